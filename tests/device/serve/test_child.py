"""A session in a child that is really killed: who waits is told at once, and another child is there in a moment."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope import plugins
from tightrope.bundle import Bundle
from tightrope.device.model import Embedder, open_bundle
from tightrope.device.serve import child as room
from tightrope.device.serve.child import ChildSession, open_safely
from tightrope.device.serve.ledger import PROCESS, Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.pace import Lane
from tightrope.device.serve.service import Service
from tightrope.errors import EngineError, RefusedError
from tightrope.workshop.converted import convert

pytestmark = pytest.mark.engine
TEXTS = ["the cat", "sat", "a cat sat on the mat"]
SOON = 20.0


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger(None, resident=lambda: 1000)


@pytest.fixture(scope="module")
def model(tiny_bundle: Bundle, ledger: Ledger) -> Iterator[Embedder]:
    """The tiny model in a child with ONNX Runtime."""
    with open_safely(tiny_bundle, ledger=ledger) as opened:
        assert isinstance(opened, Embedder)
        yield opened
    assert ledger.check() == 0 and ledger.usage() == {PROCESS: 1000}


def session(model: Embedder) -> ChildSession:
    found = model._session
    assert isinstance(found, ChildSession)
    return found


def kill(process: int, how: signal.Signals) -> None:
    """End a child as a crash does, and wait until it has happened."""
    os.kill(process, how)
    deadline = time.monotonic() + SOON
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.005)


def again(model: Embedder) -> Any:
    """An answer, from a child that may still be on its way."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            return model.embed(TEXTS)
        except RefusedError as error:
            assert error.reason == "unavailable"
            assert time.monotonic() < deadline


def test_a_child_answers_as_the_process_itself_does(model: Embedder, tiny_bundle: Bundle, ledger: Ledger) -> None:
    with open_bundle(tiny_bundle) as here:
        assert np.array_equal(model.embed(TEXTS), here.embed(TEXTS))
        assert (model.exact, model.ragged) == (here.exact, here.ragged)
        assert session(model).inputs == here._session.inputs
    assert not model.parallel, "one child computes one batch at a time"
    ledger.check()
    assert ledger.usage()[PROCESS] > 10_000_000, "the child's memory counts"


def test_what_the_engine_throws_is_no_crash(model: Embedder) -> None:
    before = session(model).process
    with pytest.raises(EngineError) as caught:
        session(model).run({"words": np.zeros((1, 2), np.int64)})
    assert len(str(caught.value).splitlines()) == 2
    assert session(model).process == before
    assert model.embed(TEXTS).shape == (3, 32)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_dies_is_replaced(model: Embedder, how: signal.Signals, logged: StringIO) -> None:
    expected, before = again(model), session(model).process
    kill(before, how)
    with pytest.raises(RefusedError, match="onnxruntime engine crashed") as caught:
        model.embed(TEXTS)
    assert (caught.value.reason, caught.value.retry_after_s) == ("unavailable", 1.0)
    assert np.array_equal(again(model), expected)
    assert session(model).process != before
    said = logged.getvalue()
    assert f"was ended by {how.name}" in said and "child.started" in said


def test_requests_in_flight_are_told_and_the_next_ones_answered(model: Embedder) -> None:
    expected, ledger, metrics = again(model), Ledger(None), Metrics()
    with Service(ledger, metrics, Limits(cache_bytes=0)) as service:
        service.add("m", model, form=Lane(batch_tokens=100, batch_texts=1, parallel=False))
        kill(session(model).process, signal.SIGSEGV)
        error = service.submit("m", TEXTS).exception(SOON)
        assert isinstance(error, RefusedError) and error.reason == "unavailable"
        deadline = time.monotonic() + SOON
        while (future := service.submit("m", TEXTS)).exception(SOON) is not None:
            assert time.monotonic() < deadline
        assert np.allclose(future.result().rows, expected, atol=1e-5)


def test_a_child_that_hangs_is_replaced(tiny_bundle: Bundle) -> None:
    with open_safely(tiny_bundle) as opened:
        found = session(opened)  # type: ignore[arg-type]
        found._bench.limit_s = 0.2
        os.kill(found.process, signal.SIGSTOP)
        with pytest.raises(RefusedError, match="crashed"):
            opened.embed(TEXTS)  # type: ignore[union-attr]
        assert again(opened).shape == (3, 32)  # type: ignore[arg-type]


def test_a_closed_child_is_gone(tiny_bundle: Bundle) -> None:
    opened = open_safely(tiny_bundle)
    process = session(opened).process  # type: ignore[arg-type]
    opened.close()
    opened.close()
    assert not Path(f"/proc/{process}").exists()
    with pytest.raises(EngineError, match="closed"):
        opened.embed(TEXTS)  # type: ignore[union-attr]


def test_closing_while_it_is_replaced_leaves_no_child(tiny_bundle: Bundle) -> None:
    opened = open_safely(tiny_bundle)
    kill(session(opened).process, signal.SIGKILL)  # type: ignore[arg-type]
    with pytest.raises(RefusedError):
        opened.embed(TEXTS)  # type: ignore[union-attr]
    opened.close()
    assert not Path(f"/proc/{session(opened).process}").exists()  # type: ignore[arg-type]
    assert not [thread for thread in threading.enumerate() if thread.name == "tightrope-child"]


def test_a_file_that_the_engine_refuses_is_the_engine_s_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"refused broken\.onnx"):
        ChildSession("onnxruntime", {"model": tmp_path / "broken.onnx"}, {}, threads=1)


def test_openvino_runs_in_a_child_too(tiny_bert: Any, need: Any, tmp_path: Path) -> None:
    need("openvino")
    converted = convert(tiny_bert, "openvino")
    files = converted.write(tmp_path)
    ids = np.array([[2, 5, 3], [2, 7, 3]], np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    here = plugins.load("runtimes", "openvino").open_artefact(files, converted.settings, threads=1)
    found = ChildSession("openvino", files, converted.settings, threads=1)
    try:
        (answer,) = found.run(feeds).values()
        assert np.array_equal(answer, *here.run(feeds).values())
        answer *= 2.0  # whoever gets an answer may change it
    finally:
        found.close()
        here.close()


def test_the_native_engine_stays_in_the_process(native_bundle: Any, tmp_path: Path) -> None:
    with open_safely(native_bundle(tmp_path / "native.bundle")) as opened:
        assert not isinstance(opened._session, ChildSession)


def test_children_that_hardly_live_are_started_ever_more_slowly() -> None:
    assert [room._pause_s(deaths) for deaths in (0, 1, 2, 3, 4, 100)] == [0, 0, 0.1, 0.2, 0.4, 5.0]
