"""Messages cross as they are, and whatever is no message is refused."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.meter import protocol
from tightrope.errors import BenchError, BundleError, EngineError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda name: name != "payload"), VALUES, max_size=4), st.binary(max_size=200))
def test_what_is_written_is_read(message: dict[str, object], payload: bytes) -> None:
    stream = io.BytesIO()
    protocol.write(stream, message, payload)
    protocol.write(stream, {"next": 1})
    stream.seek(0)
    assert protocol.read(stream) == (message, payload)
    assert protocol.read(stream) == ({"next": 1}, b"")
    assert protocol.read(stream) is None


def test_a_lone_surrogate_survives() -> None:
    stream = io.BytesIO()
    protocol.write(stream, {"texts": ["a\ud800b\x00\U0001f600"]})
    stream.seek(0)
    assert protocol.read(stream) == ({"texts": ["a\ud800b\x00\U0001f600"]}, b"")


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        received = protocol.read(io.BytesIO(data))
    except BenchError:
        return
    assert received is not None and isinstance(received[0], dict)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]\n",
        b'{"a": NaN}\n',
        b'{"verb": "hello"}',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"payload": -1}\n',
        b'{"payload": true}\n',
        b'{"payload": 1.5}\n',
        b'{"payload": "9"}\n',
        b'{"payload": 9}\nshort',
        b'{"a": ' + b"9" * 5000 + b"}\n",
    ],
)
def test_no_message(line: bytes) -> None:
    with pytest.raises(BenchError):
        protocol.read(io.BytesIO(line))


def test_a_line_without_end_is_not_read_to_its_end() -> None:
    class Endless(io.RawIOBase):
        asked = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.asked = size or 0
            return b"x" * self.asked

    stream = Endless()
    with pytest.raises(BenchError, match="A line of more than"):
        protocol.read(stream)
    assert stream.asked == protocol.MAX_LINE_BYTES + 1


def test_too_long_a_message_is_not_sent() -> None:
    stream = io.BytesIO()
    with pytest.raises(BenchError, match="too long"):
        protocol.write(stream, {"texts": ["x" * protocol.MAX_LINE_BYTES]})
    assert not stream.getvalue()


def test_errors_cross_by_name() -> None:
    for error, kind in [
        (EngineError("No.", hint="Yes."), EngineError),
        (BundleError("No.", hint="Yes."), BundleError),
        (ZeroDivisionError("division by zero"), BenchError),
    ]:
        message = json.loads(json.dumps(protocol.failure(error)))
        with pytest.raises(kind, match=r"No\.|ZeroDivisionError: division by zero"):
            protocol.raise_failure(message)


def test_a_field_of_another_kind_is_refused() -> None:
    message = {"text": "a", "number": 1, "truth": True, "none": None}
    assert protocol.take(message, "text", str) == "a"
    assert protocol.take(message, "number", float) == 1
    assert protocol.take(message, "absent", int, 7) == 7
    assert protocol.take(message, "none", list, None) is None
    for name, kind in [("text", int), ("truth", int), ("truth", float), ("none", str), ("absent", str)]:
        with pytest.raises(BenchError, match=name):
            protocol.take(message, name, kind)
