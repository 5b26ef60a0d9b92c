"""How large batches are now: as measured, smaller while memory is short or the processor is throttled, and then back.

The memory of batches is reserved here as one. Engines keep what a batch needed for the next one: so much for each
model, and for every worker beside the first what the largest needs.
"""

import threading
from collections.abc import Callable

from tightrope.device.serve import logs
from tightrope.device.serve.adapt import Choice
from tightrope.device.serve.climate import Climate
from tightrope.device.serve.ledger import BATCHES, Ledger
from tightrope.errors import RefusedError


class Sizing:
    """What was chosen for each lane, and what it is at present. Safe for use from several threads.

    `reform` is told a lane's new number of tokens.
    """

    def __init__(self, ledger: Ledger, reform: Callable[[str, int], None], workers: int) -> None:
        self._reform = reform
        self._workers = workers
        self._lock = threading.Lock()
        self._wishes: dict[str, Choice] = {}
        self._choices: dict[str, Choice] = {}
        self._held = ledger.reserve("batches", 0)
        ledger.on_shortage("batches", BATCHES, self.free)

    def add(self, lane: str, wish: Choice) -> Choice:
        """Reserve what a lane's batches take: as wished, or smaller ones. Raises `RefusedError` if none fit."""
        choice = wish
        while True:
            with self._lock:
                needed = self._bytes({**self._choices, lane: choice})
            try:
                self._held.resize(needed)
                break
            except RefusedError:
                smaller = choice.smaller("memory is short")
                if smaller is choice:
                    raise
                choice = smaller
        with self._lock:
            self._wishes[lane], self._choices[lane] = wish, choice
        return choice

    def remove(self, lane: str) -> None:
        """Give back what only this lane needed."""
        with self._lock:
            self._wishes.pop(lane, None)
            if self._choices.pop(lane, None) is not None:
                self._held.fit(self._bytes(self._choices))

    def choices(self) -> dict[str, Choice]:
        """What is chosen at present, by lane."""
        with self._lock:
            return dict(self._choices)

    def free(self, wanted: int) -> int:
        """Halve batches until so many bytes are free, or they are as small as they may be; how many that are."""
        with self._lock:
            before = self._held.size_bytes
            while before - self._held.size_bytes < wanted and self._shrink("memory is short"):
                self._held.fit(self._bytes(self._choices))
            return before - self._held.size_bytes

    def adapt(self, climate: Climate) -> None:
        """Halve batches while the processor is throttled; else give back a step of what was taken from them."""
        with self._lock:
            if climate.throttled:
                if self._shrink(climate.why):
                    logs.event("batches.smaller", level="warning", reason=climate.why)
                    self._held.fit(self._bytes(self._choices))
                return
            for lane, wish in self._wishes.items():
                self._grow(lane, wish)

    def _shrink(self, why: str) -> bool:
        changed = False
        for lane, choice in self._choices.items():
            smaller = choice.smaller(why)
            if smaller is not choice:
                self._choices[lane], changed = smaller, True
                self._reform(lane, smaller.batch_tokens)
        return changed

    def _grow(self, lane: str, wish: Choice) -> None:
        choice = self._choices[lane]
        if choice is wish:
            return
        larger = wish.of(2 * choice.batch_tokens, choice.limited)
        if self._held.fit(max(self._held.size_bytes, self._bytes({**self._choices, lane: larger}))):
            self._choices[lane] = larger
            self._reform(lane, larger.batch_tokens)

    def _bytes(self, choices: dict[str, Choice]) -> int:
        each = [choice.batch_bytes for choice in choices.values()]
        return sum(each) + (self._workers - 1) * max(each, default=0)
