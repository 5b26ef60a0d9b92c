"""A request's body: taken within limits, before anything of it is understood, and then read strictly.

What it will take is reserved before it is taken. Compressed bodies are refused: a few bytes can be the promise of any
number. JSON is what RFC 8259 says and no more: one value, UTF-8 without a byte order mark, finite numbers, no key
twice.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.ledger import Ledger, Reservation

T = TypeVar("T")
OWNER = "bodies"
STEP_BYTES = 65_536
"""How much is reserved at a time for a body that does not tell its length."""

REFUSED_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a page of another origin may send without asking: no API takes it, so no such page can use one."""


def check_head(header: Callable[[str], str | None], most: int) -> int | None:
    """The body's length as the client tells it, if it does. Raises `Failure`: wrong_type, too_large."""
    coding = (header("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise Failure("wrong_type", f"The body is compressed ({coding:.20}). Send it as it is.")
    kind = (header("content-type") or "").partition(";")[0].strip().lower()
    if kind in REFUSED_TYPES:
        raise Failure("wrong_type", f"The body is {kind}. Send it with 'Content-Type: application/json'.")
    length = header("content-length")
    if length is None:
        return None
    if int(length) > most:  # the parser let digits pass only
        raise _too_large(most)
    return int(length)


async def take(
    receive: Callable[[], Awaitable[dict[str, Any]]], length: int | None, most: int, ledger: Ledger
) -> tuple[bytes, Reservation]:
    """The whole body, and the reservation of its memory, which the caller releases.

    Raises `Failure`: too_large as soon as there is more than `most`, cancelled if the client goes away; `RefusedError`
    (memory) if there is no room for it.
    """
    held = ledger.reserve(OWNER, 2 * (length or 0))  # the bytes, and what they are read into
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Failure("cancelled", "The client went away.")
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise _too_large(most)
            if 2 * size > held.size_bytes:
                held.resize(2 * (size + STEP_BYTES))
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts), held
    except BaseException:
        held.release()
        raise


def _too_large(most: int) -> Failure:
    return Failure("too_large", f"The body has more than {most:,} bytes. Send less at a time.")


# JSON ---------------------------------------------------------------------------------------------------


def decode(data: bytes, kind: type[T], *, depth: int) -> T:
    """JSON as a value of the given type. Raises `Failure`: malformed if it is no JSON, invalid if it is other JSON.

    >>> decode(b'{"a": 1}', dict, depth=3)
    {'a': 1}
    """
    check_shape(data, depth)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$.")
        where = where.rstrip("`")
        raise Failure("invalid", f"{said}{f' at {where}' if where else ''}.", param=where) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure("malformed", f"The body is not JSON: {error}.") from error


_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"\s*(:)?|\\?\Z)|[\[\]{}]', re.DOTALL)
"""Strings (with a colon after them: keys) and brackets. One that does not end is one all the same: each byte is seen
once, whatever is sent. The decoder says what is wrong with it."""


def check_shape(data: bytes, depth: int) -> None:
    """Raise `Failure` for JSON that is nested too deeply (malformed) or has a key twice in one object (invalid)."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise Failure("malformed", "The body begins with a byte order mark. Send plain UTF-8.")
    keys: list[set[bytes] | None] = []
    for found in _TOKENS.finditer(data):
        token = found[0]
        if found[1]:
            _note(keys[-1] if keys else None, token[:-1].rstrip())
        elif token in b"[{":
            keys.append(set() if token == b"{" else None)
            if len(keys) > depth:
                raise Failure("malformed", f"The body is nested deeper than {depth} levels.")
        elif token in b"]}" and keys:
            keys.pop()


def _note(seen: set[bytes] | None, quoted: bytes) -> None:
    if seen is None:
        return  # a colon where none belongs: the decoder says so
    key = quoted
    if b"\\" in quoted:
        try:
            key = b'"' + msgspec.json.decode(quoted, type=str).encode() + b'"'
        except (msgspec.DecodeError, UnicodeError):
            return
    if key in seen:
        name = key.decode("utf-8", "replace")
        raise Failure("invalid", f"The key {name:.60} is there twice.", param=name.strip('"')[:60])
    seen.add(key)


def check_texts(texts: Sequence[str], param: str) -> None:
    """Raise `Failure` (invalid) if one holds NUL, which is no character of a text and ends it elsewhere."""
    for text in texts:
        if "\0" in text:
            raise Failure("invalid", "A text holds the character NUL.", param=param)
