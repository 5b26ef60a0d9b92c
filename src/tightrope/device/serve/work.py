"""A request on its way through the service: its ids, the rows that are there already, and who waits for them."""

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from tightrope.device.model import Floats
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.fair_queue import Request
from tightrope.device.serve.ledger import Reservation
from tightrope.errors import TightropeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows float32 [n, width] in the order of the inputs, and what it took to make them.

    `queued_s` is the wait until the first of them was begun, `computed_s` the time of the batches that they were in,
    `batch_texts` the texts in the largest of those.
    """

    rows: Floats
    tokens: int
    truncated: int
    queued_s: float
    computed_s: float
    batch_texts: int


class Work:
    """A request, and what is done of it. Its memory is held until the future is done, however that comes about."""

    __slots__ = (
        "arrived_s",
        "batch_texts",
        "begun_s",
        "computed_s",
        "encoded",
        "finish",
        "future",
        "held",
        "left",
        "request",
        "rows",
    )

    def __init__(self, request: Request, encoded: Encoded, width: int, held: Reservation, arrived_s: float) -> None:
        self.request = request
        self.encoded = encoded
        self.rows = np.empty((len(encoded), width), np.float32)
        self.left = len(encoded)
        self.held = held
        self.future: Future[Answer] = Future()
        self.finish: Callable[[Floats], Floats] = _as_it_is
        self.arrived_s = arrived_s
        self.begun_s: float | None = None
        self.computed_s = 0.0
        self.batch_texts = 0

    @property
    def queued_s(self) -> float:
        """The wait until the first batch was begun."""
        return 0.0 if self.begun_s is None else self.begun_s - self.arrived_s

    def begin(self, now: float, texts: int) -> None:
        """A batch of so many texts that some of these are in is about to be computed."""
        self.begun_s = now if self.begun_s is None else self.begun_s
        self.batch_texts = max(self.batch_texts, texts)

    def add(self, start: int, rows: Floats, seconds: float) -> bool:
        """Rows for the texts from `start` on; whether that were the last that were missing."""
        self.rows[start : start + len(rows)] = rows
        self.left -= len(rows)
        self.computed_s += seconds
        return self.left == 0

    def succeed(self) -> None:
        """Give the answer to whoever waits for it, unless nobody does."""
        answer = Answer(
            rows=self.finish(self.rows),
            tokens=self.request.tokens,
            truncated=self.encoded.truncated,
            queued_s=self.queued_s,
            computed_s=self.computed_s,
            batch_texts=self.batch_texts,
        )
        with suppress(InvalidStateError):  # it was cancelled
            self.future.set_result(answer)

    def fail(self, error: TightropeError) -> bool:
        """Say what went wrong; whether anybody still waited."""
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            return False  # it was cancelled, or has failed already
        return True


def size_bytes(encoded: Encoded, width: int) -> int:
    """What a request holds while it waits: ids and segments with their offsets, and its rows."""
    arrays = (encoded.ids.values, encoded.ids.offsets, encoded.types.values, encoded.types.offsets)
    return sum(array.nbytes for array in arrays) + len(encoded) * width * 4


def _as_it_is(rows: Floats) -> Floats:
    return rows
