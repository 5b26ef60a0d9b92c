"""What the APIs share: names of models, inputs as the service takes them, rows as JSON has them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tightrope.device.model import Floats
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.catalogue import Served
from tightrope.device.serve.http import body
from tightrope.device.serve.http.failures import Failure, Headers
from tightrope.device.serve.http.routes import Request, Response
from tightrope.device.session import Ragged

Given = str | list[str | int | list[int]]
"""A text, texts, the ids of one text, or those of several."""
WHOLE_NUMBERS = 32_768
"""An answer with more numbers is written row by row: as JSON they take five times the memory of the rows."""


def named(model: str | None) -> tuple[str | None, str | None]:
    """A model's name and version; without a name the only model is meant, without a version the current one.

    >>> named("minilm@2"), named("minilm"), named(None)
    (('minilm', '2'), ('minilm', None), (None, None))
    """
    name, _, version = (model or "").partition("@")
    return name or None, version or None


async def ask(
    request: Request,
    model: str | None,
    inputs: Sequence[Any] | Encoded,
    *,
    prompt: str | None = None,
    normalize: bool = True,
) -> Served:
    """What a model, `NAME` or `NAME@VERSION`, answers. Raises `RefusedError` and `DataError` as the catalogue does."""
    name, version = named(model)
    ask_it: Callable[..., Any] = request.state.catalogue.answer
    served: Served = await request.answer(ask_it, name, inputs, version=version, prompt=prompt, normalize=normalize)
    return served


def read(given: Given, param: str) -> list[str] | Encoded:
    """Texts, or token ids. Raises `Failure` (invalid) for none, for both in one list, for ids beyond 31 bits."""
    items: list[Any] = [given] if isinstance(given, str) else given
    if not items:
        raise Failure("invalid", f"{param} is empty. Give at least one text.", param=param)
    kinds = {type(item) for item in items}
    if len(kinds) > 1:
        raise Failure("invalid", f"{param} holds texts and token ids. Give one kind.", param=param)
    if kinds == {str}:
        body.check_texts(items, param)
        return items
    return _encoded([items] if kinds == {int} else items, param)


def _encoded(rows: list[list[int]], param: str) -> Encoded:
    for row in rows:
        if row and not 0 <= min(row) <= max(row) < 2**31:
            raise Failure("invalid", f"{param} holds a number that is no token's.", param=param)
    nothing = Ragged(np.zeros(0, np.int32), np.zeros(len(rows) + 1, np.int64))
    return Encoded(ids=Ragged.of(rows), types=nothing, truncated=0)


def shortened(rows: Floats, dimensions: int | None, *, normalize: bool = True) -> Floats:
    """The first numbers of each row, at unit length again. Raises `Failure` (invalid) for more than there are."""
    if dimensions is None or dimensions == rows.shape[1]:
        return rows
    if not 1 <= dimensions <= rows.shape[1]:
        detail = f"{dimensions} dimensions cannot be given: the model has {rows.shape[1]}."
        raise Failure("invalid", detail, param="dimensions")
    cut = rows[:, :dimensions].copy()
    if normalize:
        cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return cut


def listed(head: bytes, rows: Floats, one: Callable[[int, Floats], bytes], tail: bytes, headers: Headers) -> Response:
    """JSON around a list with an item for each row: whole if it is short, else piece by piece as it is read."""
    pieces = _pieces(head, rows, one, tail)
    return Response(b"".join(pieces) if rows.size <= WHOLE_NUMBERS else _slowly(pieces), headers=headers)


def version_of(served: Served) -> Headers:
    """The headers that tell which version answered."""
    return ((b"x-model-version", f"{served.name}@{served.version}".encode()),)


def _pieces(head: bytes, rows: Floats, one: Callable[[int, Floats], bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    for index, row in enumerate(rows):
        yield (b"," if index else b"") + one(index, row)
    yield tail


async def _slowly(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)  # a reader that is quick is no reason to keep all others waiting
