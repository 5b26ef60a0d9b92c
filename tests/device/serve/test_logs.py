"""One event is one line of ASCII JSON, whatever is in it; a flood is thinned and said; nobody waits for a log."""

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve import logs
from tightrope.device.serve.logs import BURST, LINE_BYTES, Log, line
from tightrope.testing import FakeClock

FIELDS = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name not in logs.FORBIDDEN),
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
)


def log(clock: FakeClock | None = None, **given: str) -> tuple[Log, io.StringIO]:
    """A log in memory, at the end of 2001-09-09T01:46:40."""
    stream = io.StringIO()
    return Log(stream, wall=lambda: 1e9, clock=clock or FakeClock(), **given), stream


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    """The events of a stream."""
    return [json.loads(text) for text in stream.getvalue().splitlines()]


@given(FIELDS, st.text())
def test_an_event_is_one_line_of_ascii_json(fields: dict[str, logs.Field], name: str) -> None:
    text = line(1e9, "info", name, fields)
    assert text.count("\n") == 1 and text.endswith("\n")
    assert text[:-1].isascii() and text[:-1].isprintable()
    entry = json.loads(text)
    assert (entry["time"], entry["level"]) == ("2001-09-09T01:46:40.000Z", "info")
    assert len(text) <= LINE_BYTES + 200 + 6 * len(name)


def test_numbers_stay_numbers() -> None:
    to, stream = log()
    to.event("request", request_id="7f", status=200, seconds=0.00123456789, cached=False, model=None)
    [entry] = entries(stream)
    assert entry == {
        "time": "2001-09-09T01:46:40.000Z",
        "level": "info",
        "event": "request",
        "request_id": "7f",
        "status": 200,
        "seconds": 0.00123457,
        "cached": False,
        "model": None,
    }


def test_a_field_cannot_pose_as_another_event() -> None:
    text = line(1e9, "info", "request", {"time": "never", "level": "error", "event": "model.promoted"})
    assert json.loads(text) == {"time": "2001-09-09T01:46:40.000Z", "level": "info", "event": "request"}


def test_long_words_are_cut_and_long_lines_end() -> None:
    entry = json.loads(line(1e9, "info", "request", {"model": "x" * 1000}))
    assert len(entry["model"]) == logs.VALUE_CHARACTERS
    entry = json.loads(line(1e9, "info", "request", {f"field{number}": "é" * 200 for number in range(50)}))
    assert entry["cut"] is True
    assert 1 < len(entry) < 10


def test_a_flood_is_thinned_and_said() -> None:
    clock = FakeClock()
    to, stream = log(clock)
    for _ in range(1000):
        to.event("request")
    written = len(entries(stream))
    assert written <= BURST
    to.event("model.rolled_back", level="error")  # room is kept for what matters
    assert entries(stream)[-1]["event"] == "model.rolled_back"
    clock.advance(10.0)
    to.event("request")
    said = [entry["events"] for entry in entries(stream) if entry["event"] == "log.dropped"]
    assert sum(said) == 1000 - written


def test_levels_below_the_asked_one_are_left_out() -> None:
    to, stream = log(level="warning")
    to.event("request")
    to.event("deadline", level="warning")
    assert [entry["event"] for entry in entries(stream)] == ["deadline"]


@pytest.mark.parametrize("field", ["text", "inputs", "query", "key", "authorization"])
def test_texts_and_keys_have_no_field(field: str) -> None:
    to, stream = log()
    with pytest.raises(AssertionError, match="would log"):
        to.event("request", **{field: "secret"})
    assert not stream.getvalue()


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    reading, writing = os.pipe()
    clock = FakeClock()
    with os.fdopen(writing, "w", buffering=1) as stream, os.fdopen(reading) as reader:
        to = Log(stream, wall=lambda: 1e9, clock=clock)
        for _ in range(2000):
            to.event("request", path="x" * 200)
            clock.advance(1.0)
        os.set_blocking(reading, False)
        lines = os.read(reading, 1 << 20).decode().splitlines()
        assert all(json.loads(text) for text in lines)
        to.event("request", path="after")
        assert reader.readline().startswith('{"time"')


def test_a_stream_that_fails_is_survived() -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    Log(Full()).event("request")
    closed = io.StringIO()
    closed.close()
    Log(closed).event("request")


def test_the_process_has_one_log() -> None:
    to, stream = log()
    before = logs.write_to(to)
    try:
        logs.event("server.ready", port=8080)
    finally:
        logs.write_to(before)
    assert entries(stream)[0]["port"] == 8080


def test_it_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Log().event("server.ready")
    assert json.loads(capsys.readouterr().err)["event"] == "server.ready"
