"""Tensors of text as the Open Inference Protocol has them: as JSON, or each text's length and its bytes."""

from collections.abc import Iterator
from typing import Any, Protocol

from tightrope.device.serve.http import body
from tightrope.device.serve.http.failures import Failure


class Input(Protocol):
    """What `texts` needs to know of a tensor."""

    name: str
    shape: list[int]
    parameters: dict[str, bool | int | float | str]
    data: list[Any] | None


def texts(given: Input, binary: bytes, *, pairs: bool) -> list[Any]:
    """The texts of shape [n] or [n, 1], the pairs of shape [n, 2].

    `binary` is all that came after the JSON, and must be this tensor's. Raises `Failure` (invalid) if shape and data
    are not as they should be.
    """
    count = _count(given, pairs)
    size = given.parameters.get("binary_data_size")
    if set(given.parameters) - {"binary_data_size"}:
        raise Failure("unsupported", f"{given.name}'s only parameter here is binary_data_size.", param="inputs")
    if given.data is not None and size is not None:
        raise Failure("invalid", f"{given.name} has its data twice: as JSON and as bytes.", param="inputs")
    if len(binary) != (size or 0) or isinstance(size, bool | float | str):
        raise Failure(
            "invalid", f"{len(binary)} bytes follow the JSON; {given.name} says {size!a:.20}.", param="inputs"
        )
    found = unpacked(binary, given.name) if size is not None else list(_flat(given.data, given.name, given.shape))
    if len(found) != count:
        detail = f"{given.name} has {len(found)} texts; its shape {given.shape!s:.40} says {count}."
        raise Failure("invalid", detail, param="inputs")
    body.check_texts(found, given.name)
    return list(zip(found[::2], found[1::2], strict=True)) if pairs else found


def _count(given: Input, pairs: bool) -> int:
    """How many texts a shape means."""
    shape = given.shape
    fits = len(shape) == 2 and shape[1] == 2 if pairs else len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if not fits or shape[0] < 1:
        wanted = "[n, 2]" if pairs else "[n]"
        raise Failure("invalid", f"{given.name} has the shape {shape!s:.40}; the model takes {wanted}.", param="inputs")
    return shape[0] * 2 if pairs else shape[0]


def _flat(data: list[Any] | None, name: str, shape: list[int]) -> Iterator[str]:
    """The texts of a list, or of one list within another."""
    if data is None:
        raise Failure("invalid", f"{name} has no data.", param="inputs")
    for item in data:
        parts = item if isinstance(item, list) and len(shape) > 1 else [item]
        for part in parts:
            if not isinstance(part, str):
                raise Failure("invalid", f"{name} holds something that is not text.", param="inputs")
            yield part


def unpacked(data: bytes, name: str) -> list[str]:
    """Texts, each after its length in bytes as a little-endian number of 32 bits.

    >>> unpacked(bytes([2, 0, 0, 0]) + b"ab" + bytes(4), "text")
    ['ab', '']
    """
    found, place = [], 0
    while place < len(data):
        start = place + 4
        place = start + int.from_bytes(data[start - 4 : start], "little")
        if start > len(data) or place > len(data):
            raise Failure("invalid", f"{name} ends within a text.", param="inputs")
        try:
            found.append(data[start:place].decode())
        except UnicodeDecodeError as error:
            raise Failure("invalid", f"{name} holds a text that is not UTF-8.", param="inputs") from error
    return found
