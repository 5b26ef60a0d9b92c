"""A request on its way through the service: its ids, the rows that are there already, and who waits for them."""

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from tightrope.device.model import Floats
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.cache import AnswerCache, names
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
        "places",
        "remember",
        "request",
        "rows",
        "tokens",
        "truncated",
    )

    def __init__(self, encoded: Encoded, width: int, held: Reservation, arrived_s: float) -> None:
        self.encoded = encoded
        """Of the texts whose answers are not known yet."""
        self.places = np.arange(len(encoded))
        """Where the rows of those belong."""
        self.rows = np.empty((len(encoded), width), np.float32)
        self.left = len(encoded)
        self.tokens = len(encoded.ids.values)
        self.truncated = encoded.truncated
        self.held = held
        self.future: Future[Answer] = Future()
        self.finish: Callable[[Floats], Floats] = _as_it_is
        self.remember: Callable[[Floats], None] | None = None
        self.request: Request
        self.arrived_s = arrived_s
        self.begun_s: float | None = None
        self.computed_s = 0.0
        self.batch_texts = 0

    def recall(self, name: bytes, cache: AnswerCache) -> None:
        """Take the rows that are remembered under a model's name; the others will be remembered in the end."""
        ours = names(name, self.encoded)
        known = {place: row for place, each in enumerate(ours) if (row := cache.find(each)) is not None}
        for place, row in known.items():
            self.rows[place] = row
        missing = [place for place in range(len(ours)) if place not in known]
        self.left = len(missing)
        if known:
            self.places = np.array(missing, np.int64)
            self.encoded = self.encoded.take(self.places)

        def remember(rows: Floats) -> None:
            for place in missing:
                cache.keep(ours[place], rows[place])

        self.remember = remember

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
        self.rows[self.places[start : start + len(rows)]] = rows
        self.left -= len(rows)
        self.computed_s += seconds
        return self.left == 0

    def succeed(self) -> None:
        """Give the answer to whoever waits for it, unless nobody does."""
        if self.remember is not None:
            self.remember(self.rows)
        answer = Answer(
            rows=self.finish(self.rows),
            tokens=self.tokens,
            truncated=self.truncated,
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
