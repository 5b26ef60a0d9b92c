"""The worker: lean until it opens a bundle, patient with bad requests, deaf to what engines print."""

import io
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.device.meter import protocol, verbs
from tightrope.device.meter.verbs import Worker
from tightrope.device.meter.worker import serve
from tightrope.errors import BundleError


class FakeEmbedder:
    """Answers every text with its length."""

    engine = "fake"

    def __init__(self, source: Bundle) -> None:
        self.bundle = source
        self.calls = 0
        self.closed = False

    def embed(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        if "explode" in texts:
            raise ZeroDivisionError("by the engine")
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(bundle_without_engine: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A worker whose bundles are fake ones, and the last of them."""
    monkeypatch.setattr(verbs, "_version", lambda engine: "1.0")
    monkeypatch.setattr(verbs.os, "environ", {})
    found = SimpleNamespace(model=None, source=bundle_without_engine)

    def opener(path: str, threads: int, engine: str | None) -> FakeEmbedder:
        if not Path(path).exists():
            raise BundleError(f"{path} does not exist.", hint="Look again.")
        found.model = FakeEmbedder(bundle_without_engine)
        return found.model

    found.worker = Worker(opener, tmp_path / "cache")
    return found


def talk(worker: Worker, *requests: dict[str, Any]) -> list[tuple[dict[str, Any], bytes]]:
    heard, said = io.BytesIO(), io.BytesIO()
    for request in requests:
        protocol.write(heard, request)
    heard.seek(0)
    assert serve(heard, said, worker) == 0
    said.seek(0)
    return list(iter(lambda: protocol.read(said), None))


def test_a_whole_conversation(opened: SimpleNamespace) -> None:
    path = str(opened.source.path)
    hello, opening, rows, times, passes, memory, bye = talk(
        opened.worker,
        {"verb": "hello"},
        {"verb": "open", "path": path, "threads": 1, "cores": None},
        {"verb": "embed", "texts": ["four", "sixsix"]},
        {"verb": "time", "inputs": ["a"], "repeats": 5, "warm_up": 2},
        {"verb": "throughput", "inputs": ["a", "b"], "for_s": 0},
        {"verb": "memory"},
        {"verb": "bye"},
    )
    assert hello[0]["tightrope_bench"] == protocol.VERSION
    assert hello[0]["machine"]["cores"] >= 1
    assert opening[0]["engine_version"] == "1.0" and opening[0]["cores"] is None
    assert opening[0]["digest"] == opened.source.digest
    assert np.frombuffer(rows[1], "<f4").reshape(rows[0]["rows"], rows[0]["columns"]).tolist() == [[4, 1], [6, 1]]
    assert len(times[0]["seconds"]) == 5 and all(item > 0 for item in times[0]["seconds"])
    assert len(passes[0]["seconds"]) == 1
    assert memory[0]["now"]["peak_bytes"] >= memory[0]["bare"]["peak_bytes"]
    assert bye[0] == {"bye": True}
    assert opened.model.calls == 1 + 7 + 1
    assert opened.model.closed


def test_pairs_are_scored(opened: SimpleNamespace) -> None:
    class FakeScorer(FakeEmbedder):
        embed = None  # type: ignore[assignment]
        score = FakeEmbedder.embed

    opened.worker._opener = lambda *_: FakeScorer(opened.source)
    opening = {"verb": "open", "path": str(opened.source.path), "threads": 1}
    _, rows, times = talk(
        opened.worker,
        opening,
        {"verb": "score", "pairs": [["a", "b"], ["c", "d"]]},
        {"verb": "time", "inputs": [["a", "b"]], "repeats": 2, "warm_up": 0},
    )
    assert (rows[0]["rows"], rows[0]["columns"]) == (2, 2)
    assert len(times[0]["seconds"]) == 2


def test_threads_are_told_before_anything_is_loaded(opened: SimpleNamespace) -> None:
    talk(opened.worker, {"verb": "open", "path": str(opened.source.path), "threads": 3})
    assert verbs.os.environ["OMP_NUM_THREADS"] == verbs.os.environ["OPENBLAS_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"verb": "fly"}, "no verb 'fly'"),
        ({}, "'verb' should be a str"),
        ({"verb": "embed", "texts": ["a"]}, "No bundle is open"),
        ({"verb": "embed", "texts": []}, "nothing in 'texts'"),
        ({"verb": "embed", "texts": "a"}, "'texts' should be a list"),
        ({"verb": "open", "path": "/no/such", "threads": 1}, "does not exist"),
        ({"verb": "open", "path": "/no/such", "threads": 0}, "0 threads"),
        ({"verb": "open", "path": "/no/such", "threads": 1, "cores": ["a"]}, "not numbers of cores"),
        ({"verb": "receive", "digest": "x", "name": "y", "size": 1, "sha256": "z", "offset": 0}, "has no file"),
        ({"verb": "seal", "digest": ".."}, "not a digest"),
    ],
)
def test_a_bad_request_is_answered_and_the_next_one_too(
    request_: dict[str, Any], says: str, opened: SimpleNamespace
) -> None:
    first, second = talk(opened.worker, request_, {"verb": "hello"})
    assert says in first[0]["error"]["message"]
    assert first[0]["error"]["hint"]
    assert "error" not in second[0]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"verb": "embed", "texts": ["explode"]}, "ZeroDivisionError: by the engine"),
        ({"verb": "score", "pairs": [["a", "b"]]}, "cannot score"),
        ({"verb": "time", "inputs": ["a"], "repeats": 0, "warm_up": 0}, "0 calls"),
        ({"verb": "time", "inputs": ["a"], "repeats": 10**9, "warm_up": 0}, "At most"),
        ({"verb": "throughput", "inputs": ["a"], "for_s": 1e9}, "At most"),
        ({"verb": "compose", "texts": ["a"], "tokens": 0}, "0 tokens"),
    ],
)
def test_a_bad_request_of_an_open_bundle(request_: dict[str, Any], says: str, opened: SimpleNamespace) -> None:
    opening = {"verb": "open", "path": str(opened.source.path), "threads": 1}
    answer = talk(opened.worker, opening, request_, {"verb": "memory"})[1][0]
    assert says in answer["error"]["message"] + answer["error"]["hint"]


def test_what_is_no_request_ends_the_conversation(opened: SimpleNamespace) -> None:
    said = io.BytesIO()
    assert serve(io.BytesIO(b"GET / HTTP/1.1\r\n\r\n"), said, opened.worker) == 2
    said.seek(0)
    answer = protocol.read(said)
    assert answer is not None and "GET / HTTP" in answer[0]["error"]["message"]


def test_a_bundle_is_found_where_it_can_be_seen(opened: SimpleNamespace, tmp_path: Path) -> None:
    from tightrope.bundle import sha256_of

    place = {"path": str(opened.source.path), "digest": opened.source.digest}
    manifest = sha256_of(opened.source.path / "manifest.json")
    seen, changed, gone = talk(
        opened.worker,
        {"verb": "find", "manifest": manifest, **place},
        {"verb": "find", "manifest": "0" * 64, **place},
        {"verb": "find", "manifest": manifest, **place, "path": str(tmp_path / "elsewhere\x00")},
    )
    assert seen[0] == {"path": place["path"]}
    assert changed[0] == gone[0] == {"path": None}


def test_nothing_is_loaded_before_a_bundle_is_opened() -> None:
    code = "import sys, tightrope.device.meter.worker; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "tokenizers", "click", "onnxruntime", "tightrope.device.model"} & set(modules)


def test_what_an_engine_prints_does_not_reach_the_protocol() -> None:
    code = """
import os
from tightrope.device.meter import verbs, worker
def noisy(self, request, payload):
    print("from python", flush=True)
    os.write(1, b"from native code\\n")
    return {"stdin": os.read(0, 1).decode()}, b""
verbs.VERBS["memory"] = noisy
raise SystemExit(worker.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=b'{"verb":"memory"}\n{"verb":"bye"}\n', capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout == b'{"stdin":""}\n{"bye":true}\n'
    assert b"from python" in done.stderr and b"from native code" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs poll")
def test_a_worker_that_nobody_listens_to_ends_itself() -> None:
    code = """
import time
from tightrope.device.meter import verbs, worker
worker.ORPHAN_S = 0.1
verbs.VERBS["memory"] = lambda *_: time.sleep(60)
worker.main()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b'{"verb":"memory"}\n')
        process.stdin.flush()
        time.sleep(0.3)
        process.stdin.close()
        assert process.wait(timeout=30) == 129
