"""From the threads that compute to the loop that serves the network: what a batch has answered goes over in one go.

asyncio brings a future over by itself, but each one alone: a write to a pipe, which wakes the loop while the thread has
the others still in hand.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_here = threading.local()


@contextmanager
def together() -> Iterator[None]:
    """Loops that this thread would wake meanwhile are woken once, at the end."""
    bells: dict[Callable[[], None], None] = {}
    _here.bells = bells
    try:
        yield
    finally:
        _here.bells = None
        for bell in bells:
            bell()


class Arrivals:
    """Futures of threads on their way to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._came: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False

    def expect(self, future: "Future[T]") -> "asyncio.Future[T]":
        """The loop's own future for one that a thread will settle. Cancelling it cancels nothing else."""
        waiting: asyncio.Future[T] = self.loop.create_future()
        future.add_done_callback(partial(self._come, waiting))
        return waiting

    def _come(self, waiting: "asyncio.Future[Any]", future: "Future[Any]") -> None:
        """On any thread."""
        self._came.append((waiting, future))
        bells = getattr(_here, "bells", None)
        if bells is None:
            self._wake()
        else:
            bells[self._wake] = None

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self._bring)

    def _bring(self) -> None:
        self._woken = False  # first, so that whoever comes from now on wakes the loop again
        while self._came:
            waiting, future = self._came.popleft()
            if waiting.done():
                continue  # nobody waits for it any more
            if future.cancelled():
                waiting.cancel()
            elif (error := future.exception()) is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(future.result())
