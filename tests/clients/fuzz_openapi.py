"""Schemathesis against our own document: whatever it draws, no crash, no 5xx, and every answer is as the document says.

No test of the suite: `make fuzz-api` runs it, for `TIGHTROPE_FUZZ_S` seconds, from `TIGHTROPE_FUZZ_SEED`, or any.
"""

import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tightrope
from tightrope.bundle import Bundle
from tightrope.device.apps import faq_bot
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.serve import keys
from tightrope.device.serve.server import Server

SECONDS = int(os.environ.get("TIGHTROPE_FUZZ_S", "120"))
SEED = int(os.environ.get("TIGHTROPE_FUZZ_SEED") or random.SystemRandom().randrange(2**31))
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    *("unsupported_method", "allow_header_conformance", "ignored_auth"),
)
"""Not `negative_data_rejection`, to which a header that nobody knows is an error; test_any_json.py is about bodies."""
CONFIG = """
[parameters]
"header.X-Request-Deadline-Ms" = "60000"  # a shorter one is answered by 504, and rightly
"""
STREAMS = "^/v1/live/"
"""They do not end; tests/attacks/test_live.py is about them."""


@pytest.fixture
def searching(bundle: Bundle, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """An embedder with an index, and a key."""
    texts = ["the cat sat", "dogs bark", "bread and butter", "a mat"]
    width = bundle.content.task["width"]
    with tightrope.open(bundle.path) as model, create(tmp_path / "docs", digest=bundle.digest, width=width) as index:
        index.add([Document(key=text, passages=(text,)) for text in texts], model.embed(texts))
        faq_bot.calibrate(index, model.embed([f"{n} strange words {n * 7}" for n in range(40)]))
    secret = keys.new(tmp_path / "keys", "fuzz")
    with tightrope.serve(bundle.path, index=tmp_path / "docs", key_file=tmp_path / "keys", threads=1) as server:
        yield server, secret


@pytest.fixture
def scoring(seal_scorer: Callable[..., Bundle], tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A cross-encoder, and no key."""
    with tightrope.serve(seal_scorer(tmp_path / "labels.bundle", 3, "identity").path, threads=1) as server:
        yield server, ""


@pytest.mark.parametrize("fixture", ["searching", "scoring"])
def test_whatever_is_drawn(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server, secret = request.getfixturevalue(fixture)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    headers = ["--header", f"Authorization: Bearer {secret}"] if secret else []
    print(f"\n{fixture}: {SECONDS // 2} s from TIGHTROPE_FUZZ_SEED={SEED}", flush=True)  # noqa: T201
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "--no-color"),
            *("run", f"{server.url}/openapi.json", *headers, "--exclude-path-regex", STREAMS),
            *("--seed", str(SEED), "--max-time", str(max(1, SECONDS // 2)), "--checks", ",".join(CHECKS)),
            *("--request-timeout", "20", "--warnings", "off", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        check=False,
        timeout=SECONDS + 300,
    )
    assert done.returncode == 0
    _sound(server, secret)


def _sound(server: Server, secret: str) -> None:
    """Afterwards the server still answers rightly, holds nothing of what is over, and has made no mistake."""
    asked = urllib.request.Request(f"{server.url}/health/ready", headers={"Authorization": f"Bearer {secret}"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.status == 200
    state: Any = server.app.state
    statuses = {status for _, status in state.metrics.requests.values()}
    assert not [status for status in statuses if status >= "5" and status not in ("501", "503", "504")], statuses
    usage = state.ledger.usage()
    assert [usage.get(owner, 0) for owner in ("bodies", "requests")] == [0, 0]
