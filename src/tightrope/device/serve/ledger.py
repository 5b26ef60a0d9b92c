"""The memory law: whoever will allocate reserves first, and what does not fit is shed or refused, never tried.

Owners reserve bytes under a name. When there is no room, others give theirs back in a stated order: caches, idle
models, the size of batches. If that is not enough the reservation is refused and nothing has happened. What nobody
reserves (the interpreter, its libraries, what was guessed too low) belongs to the owner `process`: it is measured at
the start and corrected by `check` from what the system counts.
"""

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tightrope.device.meter import memory
from tightrope.errors import RefusedError
from tightrope.units import show

PROCESS = "process"
"""The owner of all that nobody reserved."""
CACHES, IDLE_MODELS, BATCHES = 0, 1, 2
"""The order in which memory is given back when it runs short."""
RETRY_S = 1.0
_ROUNDS = 8
_M_ARENA_MAX = -8

Free = Callable[[int], int]
"""Asked for some bytes, gives back what it can and says how much that was."""


class Reservation:
    """Bytes that belong to one owner until they are released. A context manager."""

    __slots__ = ("_ledger", "owner", "size_bytes")

    def __init__(self, ledger: "Ledger", owner: str, size_bytes: int) -> None:
        self._ledger = ledger
        self.owner = owner
        self.size_bytes = size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def resize(self, size_bytes: int) -> None:
        """Make it larger or smaller. Raises `RefusedError` as `Ledger.reserve` does; it then keeps its size."""
        self._ledger._resize(self, size_bytes, sheds=True)

    def fit(self, size_bytes: int) -> bool:
        """Make it larger only out of what is free, so that nobody sheds for it; whether that was possible."""
        return self._ledger._resize(self, size_bytes, sheds=False)

    def release(self) -> None:
        """Give all of it back. A second time does nothing."""
        self._ledger._resize(self, 0, sheds=False)


class Ledger:
    """The budget of this process in bytes, who holds how much of it, and who gives back first.

    `None` as a budget limits nothing; the books are kept all the same. `resident` tells the process's real memory, and
    `trim` asks the allocator to return what it keeps: tests bring their own. Safe for use from several threads.
    """

    def __init__(
        self,
        budget_bytes: int | None,
        *,
        resident: Callable[[], int | None] = memory.resident_bytes,
        trim: Callable[[], None] | None = None,
    ) -> None:
        self.budget_bytes = budget_bytes
        self._resident = resident
        self._trim = trim or trim_heap
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._sum = 0
        self._shedders: list[tuple[int, str, Free]] = []
        self._children: dict[int, Callable[[], int | None]] = {}
        self._floor = self._process = resident() or 0
        if budget_bytes is not None and self._process > budget_bytes:
            raise self._never(PROCESS, self._process)

    @property
    def free_bytes(self) -> int | None:
        """What nobody holds; `None` if there is no budget."""
        with self._lock:
            return None if self.budget_bytes is None else max(0, self.budget_bytes - self._used())

    def usage(self) -> dict[str, int]:
        """Bytes by owner, the process itself included."""
        with self._lock:
            return {PROCESS: self._process, **self._held}

    def reserve(self, owner: str, size_bytes: int) -> Reservation:
        """Hold bytes for an owner, after shedding if need be.

        Raises `RefusedError` (memory): at once, and without shedding, if the budget could never hold so much.
        """
        reservation = Reservation(self, owner, 0)
        self._resize(reservation, size_bytes, sheds=True)
        return reservation

    def on_shortage(self, name: str, order: int, free: Free) -> None:
        """Ask `free` for bytes when they run short, in ascending `order`; a second one of that name takes its place.

        It is called without any lock of the ledger, from whatever thread reserves, and gives back by releasing.
        """
        with self._lock:
            kept = [item for item in self._shedders if item[1] != name]
            self._shedders = sorted([*kept, (order, name, free)], key=lambda item: item[0])

    def watch(self, process: int, resident: Callable[[], int | None]) -> None:
        """Count the memory of a child process too, until `unwatch`."""
        with self._lock:
            self._children[process] = resident

    def unwatch(self, process: int) -> None:
        """A child has ended."""
        with self._lock:
            self._children.pop(process, None)

    def check(self) -> int:
        """Compare the books with what the system counts; bytes by which the process is over its budget, mostly 0.

        What nobody reserved is the process's. Is that too much, the heap is trimmed, and then others give back.
        """
        over = self._correct()
        if over > 0:
            self._trim()
            over = self._correct()
        if over > 0 and self._shed(over):
            self._trim()
            over = self._correct()
        return max(0, over)

    def _correct(self) -> int:
        """Measure the process; bytes over the budget."""
        with self._lock:
            children = list(self._children.values())
        counted = self._resident()
        together = None if counted is None else counted + sum(child() or 0 for child in children)
        with self._lock:
            if together is not None:
                self._process = max(self._floor, together - self._sum)
            return 0 if self.budget_bytes is None else self._used() - self.budget_bytes

    def _resize(self, reservation: Reservation, size_bytes: int, *, sheds: bool) -> bool:
        assert size_bytes >= 0
        for _ in range(_ROUNDS):
            with self._lock:
                more = size_bytes - reservation.size_bytes
                missing = self._missing(more)
                if more <= 0 or missing <= 0:
                    self._book(reservation, size_bytes)
                    return True
                if not sheds:
                    return False
                if self.budget_bytes is not None and size_bytes > self.budget_bytes - self._floor:
                    raise self._never(reservation.owner, size_bytes)
            if not self._shed(missing) and self._correct() + more > 0:  # somebody may have given back since the guard
                break
        raise self._full(reservation.owner, more)

    def _book(self, reservation: Reservation, size_bytes: int) -> None:
        held = self._held.get(reservation.owner, 0) + size_bytes - reservation.size_bytes
        self._sum += size_bytes - reservation.size_bytes
        reservation.size_bytes = size_bytes
        if held:
            self._held[reservation.owner] = held
        else:
            self._held.pop(reservation.owner, None)

    def _missing(self, more: int) -> int:
        return 0 if self.budget_bytes is None else self._used() + more - self.budget_bytes

    def _used(self) -> int:
        return self._process + self._sum

    def _shed(self, wanted: int) -> int:
        """Ask one after the other until enough was given back. No lock is held: they take locks of their own."""
        with self._lock:
            shedders = list(self._shedders)
        freed = 0
        for _, _, free in shedders:
            if freed < wanted:
                freed += free(wanted - freed)
        return freed

    def _never(self, owner: str, size_bytes: int) -> RefusedError:
        assert self.budget_bytes is not None
        least = show(size_bytes if owner == PROCESS else size_bytes + self._floor, "bytes")
        itself = "" if owner == PROCESS else f", of which the process itself takes {show(self._floor, 'bytes')}"
        return RefusedError(
            f"{owner} needs {show(size_bytes, 'bytes')}; the budget is {show(self.budget_bytes, 'bytes')}{itself}.",
            hint=f"Give it {least} or more, or a smaller model.",
            reason="memory",
        )

    def _full(self, owner: str, more: int) -> RefusedError:
        free = self.free_bytes or 0
        return RefusedError(
            f"{owner} needs {show(more, 'bytes')} more; {show(free, 'bytes')} of the budget are free.",
            hint="Try again when others have finished, or give the server more memory.",
            reason="memory",
            retry_after_s=RETRY_S,
        )


def trim_heap() -> None:
    """Give the allocator's free pages back to the system, where it can: glibc's malloc_trim(3)."""
    _allocator("malloc_trim", 0)


def share_heap() -> None:
    """Let all threads allocate in one heap, where the allocator would give each its own: glibc's mallopt(3).

    What one thread has freed another one can use then; with searches beside embeddings that is 5 MB less.
    """
    _allocator("mallopt", _M_ARENA_MAX, 1)


def _allocator(name: str, *given: int) -> None:
    """Call a function of glibc's; where there is none, do nothing."""
    with suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), name)(*given)
