"""How a bench and its worker talk: one JSON object a line, and bytes of a stated length where a message needs them.

    {"verb": "embed", "texts": ["a sentence"]}\n
    {"seconds": 0.004, "rows": 1, "columns": 384, "payload": 1536}\n<1536 bytes>

One request, one answer, in turn. An error is an answer too: {"error": {"kind", "message", "hint"}}. Both sides
limit what they accept, because the other side may be broken, or something else altogether. The verbs are described
in docs/guide/measuring.md.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, Protocol

from tightrope.errors import BenchError, TightropeError, named

VERSION = 1
MAX_LINE_BYTES = 16_000_000
MAX_PAYLOAD_BYTES = 1_000_000_000
PIECE_BYTES = 4_000_000
"""Files are sent in pieces of this size, each answered, so that a deadline is about a piece."""

Message = dict[str, Any]


def _image(item: object) -> dict[str, str]:
    """An image as JSON holds it."""
    if not isinstance(item, bytes):
        raise TypeError(f"{type(item).__name__} cannot be sent")
    return {"image": base64.b64encode(item).decode()}


def image(item: Mapping[str, Any]) -> bytes:
    """An image out of a message. Raises `BenchError` for anything else."""
    try:
        return base64.b64decode(take(item, "image", str), validate=True)
    except ValueError as error:
        raise BenchError(f"Something that is no image was sent: {error}.", hint=_HINT) from error


class Source(Protocol):
    """What a message is read from."""

    def readline(self, limit: int, /) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    """What a message is written to."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> None: ...


def write(sink: Sink, message: Mapping[str, Any], payload: bytes = b"") -> None:
    """Send one message. Lone surrogates survive: the line is ASCII."""
    head = {**message, "payload": len(payload)} if payload else message
    line = json.dumps(head, separators=(",", ":"), allow_nan=False, default=_image).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise BenchError(f"A message of {len(line):,} bytes is too long.", hint="Send fewer texts at a time.")
    sink.write(line + payload)
    sink.flush()


def read(source: Source) -> tuple[Message, bytes] | None:
    """Receive one message and its payload, or `None` at the end. Raises `BenchError` for anything else."""
    line = source.readline(MAX_LINE_BYTES + 1)
    if not line:
        return None
    message = parse(line)
    size = message.pop("payload", 0)
    if type(size) is not int or not 0 <= size <= MAX_PAYLOAD_BYTES:
        raise BenchError(f"A payload of {size!r:.40} bytes was announced.", hint=_HINT)
    payload = source.read(size) if size else b""
    if len(payload) != size:
        raise BenchError(f"A payload ended after {len(payload):,} of {size:,} bytes.", hint=_HINT)
    return message, payload


_HINT = "Is the same tightrope at the other end? Its standard output must carry nothing else."


def parse(line: bytes) -> Message:
    """One line as a message. Raises `BenchError` that shows the line."""
    if len(line) > MAX_LINE_BYTES:
        raise BenchError(f"A line of more than {MAX_LINE_BYTES:,} bytes was sent: {_shown(line)}", hint=_HINT)
    try:
        message = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"Something that is no message was sent: {_shown(line)}", hint=_HINT) from error
    if not isinstance(message, dict) or not line.endswith(b"\n"):
        raise BenchError(f"Something that is no message was sent: {_shown(line)}", hint=_HINT)
    return message


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def failure(error: Exception) -> Message:
    """An error as a message; one that is not ours is an engine's or our own mistake, and is named."""
    if isinstance(error, TightropeError):
        return {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
    text = f"The worker failed: {type(error).__name__}: {error}"[:2000]
    return {"error": {"kind": "BenchError", "message": text, "hint": "See the worker's standard error."}}


def raise_failure(message: Message) -> None:
    """Raise the error that a message carries, if it carries one."""
    error = message.get("error")
    if error is None:
        return
    if not isinstance(error, dict):
        raise BenchError(f"Something that is no error was sent: {error!r:.200}", hint=_HINT)
    raise named(*(str(error.get(name, "")) for name in ("kind", "message", "hint")))


def take(message: Mapping[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """One field of a message, of the kind that is expected. Raises `BenchError` if it is missing or another."""
    value = message.get(name, default)
    if value is default and default is not ...:
        return value
    fits = isinstance(value, kind) or (kind is float and type(value) is int)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise BenchError(f"The field {name!r} should be a {kind.__name__}, not {value!r:.60}.", hint=_HINT)
    return value


def _shown(line: bytes) -> str:
    return repr(line[:80].decode(errors="replace")) + ("…" if len(line) > 80 else "")
