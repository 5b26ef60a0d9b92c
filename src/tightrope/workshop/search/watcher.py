"""Whoever watches a search: what the search tells while it runs. It never asks anything back."""

from typing import Protocol

from tightrope.workshop.search.trial import Trial


class Watcher(Protocol):
    """Told what happens, as it happens, from the thread that searches."""

    def stage(self, text: str) -> None:
        """A new part of the work begins, in a few words: "timing 8 candidates"."""
        ...

    def trial(self, trial: Trial) -> None:
        """A trial has come to an answer. The same recipe may come again, further along: judged, then timed."""
        ...

    def advance(self, done: float, remaining_s: float | None) -> None:
        """How much of the whole is done, 0 to 1, and the seconds that are left, if they can be told."""
        ...


class Unwatched:
    """The watcher of a search that nobody looks at."""

    def stage(self, text: str) -> None:
        """Ignore it."""

    def trial(self, trial: Trial) -> None:
        """Ignore it."""

    def advance(self, done: float, remaining_s: float | None) -> None:
        """Ignore it."""
