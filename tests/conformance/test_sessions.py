"""What every runtime keeps to: threads as stated, sessions that close, errors in two lines, equal files, no network."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope import plugins
from tightrope.errors import EngineError
from tightrope.workshop.converted import convert
from tightrope.workshop.verify import stand_in

pytestmark = pytest.mark.engine
STATIC = {"weights": (8, None, True), "scheme": {"bits": 8, "static": True, "symmetric": False}}
TOKEN = {"weights": (8, None, True), "scheme": {"bits": 8}}
WEIGHTS = {"weights": (8, None, True)}


def integers(engine: str) -> dict[str, Any]:
    """A form on integers that the engine takes; of one that rounds no inputs, weights alone."""
    if "static" in getattr(plugins.load("converters", engine), "REFUSES", ()):
        return WEIGHTS
    return TOKEN if engine == "native" else STATIC


RUN = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from tightrope import plugins
engine, files, settings, threads = json.loads(sys.argv[1])
runtime = plugins.load("runtimes", engine)
session = runtime.open_artefact({role: Path(path) for role, path in files.items()}, settings, threads=threads)
ids = np.ones((8, 64), np.int64)
feeds = {"input_ids": ids, "attention_mask": ids}
if session.capabilities.ragged:
    feeds = {"input_ids": np.ones(8 * 64, np.int32), "offsets": np.arange(9) * 64}
until = time.monotonic() + 1.0
while time.monotonic() < until:
    session.run(feeds)
def busy(task):
    return sum(map(int, Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()[11:13]))
ticks = sorted((busy(task) for task in os.listdir("/proc/self/task")), reverse=True)
print(json.dumps(ticks))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_thread_is_one_thread(engine, tiny_bert, seen_by_tiny, annotate, opened):
    if stand_in.needed(engine):
        pytest.skip(f"{engine} does not run here, and a stand-in's threads are nobody's")
    found = opened(annotate(tiny_bert, integers(engine), seen_by_tiny), engine)
    files = {role: str(path) for role, path in found.files.items()}
    given = json.dumps([engine, files, dict(found.converted.settings), 1])
    done = subprocess.run([sys.executable, "-c", RUN, given], capture_output=True, text=True, timeout=120, check=True)
    ticks = json.loads(done.stdout)
    assert sum(ticks[1:]) <= 0.1 * ticks[0]


def test_more_threads_give_the_same_answers(engine, tiny_bert, seen_by_tiny, annotate, opened, feeds):
    model = annotate(tiny_bert, integers(engine), seen_by_tiny)
    one, two = opened(model, engine), opened(model, engine, threads=2)
    assert np.allclose(one.run(feeds(model)), two.run(feeds(model)), atol=1e-5)


def test_ports_are_those_of_the_model(engine, tiny_bert, opened):
    found = opened(tiny_bert, engine)
    for side in ("inputs", "outputs"):
        stated, real = getattr(found.converted, side), getattr(found.session, side)
        assert [(port.name, port.dtype, len(port.shape)) for port in stated] == [
            (port.name, port.dtype, len(port.shape)) for port in real
        ]


def test_a_closed_session_says_so(engine, tiny_bert, opened, feeds):
    found = opened(tiny_bert, engine)
    found.session.close()
    with pytest.raises(EngineError, match="closed") as caught:
        found.run(feeds(tiny_bert))
    assert len(str(caught.value).splitlines()) == 2
    found.session.close()


def test_wrong_feeds_are_an_engine_error(engine, tiny_bert, opened, feeds):
    found = opened(tiny_bert, engine)
    given = feeds(tiny_bert)
    for wrong in ({"words": given["input_ids"]}, given | {"input_ids": given["input_ids"][0]}):
        with pytest.raises(EngineError) as caught:
            found.run(wrong)
        assert len(str(caught.value).splitlines()) == 2
    assert np.isfinite(found.run(given)).all()


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\0" * len(data)]
)
def test_a_broken_file_is_refused_in_two_lines(engine, tiny_bert, opened, damage, capfd):
    found = opened(tiny_bert, engine)
    broken = found.files["model"].with_name(f"broken{found.files['model'].suffix}")
    broken.write_bytes(damage(found.files["model"].read_bytes()))
    with pytest.raises(EngineError) as caught:
        found.runtime.open_artefact({**found.files, "model": broken}, found.converted.settings, threads=1)
    assert len(str(caught.value).splitlines()) == 2
    assert broken.name in str(caught.value)


def test_missing_weights_are_refused(engine, tiny_bert, opened):
    found = opened(tiny_bert, engine)
    found.session.close()
    for role, path in found.files.items():
        if role != "model" or len(found.files) == 1:
            path.unlink()
    with pytest.raises(EngineError):
        found.runtime.open_artefact(found.files, found.converted.settings, threads=1)


def test_equal_models_give_equal_files(engine, tiny_bert, seen_by_tiny, annotate):
    first = convert(annotate(tiny_bert, integers(engine), seen_by_tiny), engine)
    convert(tiny_bert, engine)  # an engine that numbers things goes on counting
    second = convert(annotate(tiny_bert, integers(engine), seen_by_tiny), engine)
    assert first == second


def test_converting_and_opening_need_no_network(engine, tiny_bert, opened, feeds, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert np.isfinite(opened(tiny_bert, engine).run(feeds(tiny_bert))).all()


def test_nothing_is_written_beside_the_files(engine, tiny_bert, opened, feeds, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = opened(tiny_bert, engine)
    found.runtime.executed(found.files, found.converted.settings, found.feeds(feeds(tiny_bert)))
    assert {item.name for item in tmp_path.iterdir()} == {path.name for path in found.files.values()}
