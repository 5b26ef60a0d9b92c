"""The books: what is reserved never exceeds the budget, who gives back and in which order, and what is never asked."""

import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve import ledger as ledger_room
from tightrope.device.serve.ledger import BATCHES, CACHES, IDLE_MODELS, PROCESS, Ledger, Reservation
from tightrope.errors import RefusedError


def books(budget: int | None = 100, process: int = 20, **given: object) -> Ledger:
    return Ledger(budget, resident=lambda: process, trim=lambda: None, **given)  # type: ignore[arg-type]


class Cache:
    """An owner that gives back what it is asked for."""

    def __init__(self, ledger: Ledger, size: int, owner: str = "cache") -> None:
        self.held = ledger.reserve(owner, size)
        self.asked: list[int] = []

    def free(self, wanted: int) -> int:
        self.asked.append(wanted)
        freed = min(wanted, self.held.size_bytes)
        self.held.resize(self.held.size_bytes - freed)
        return freed


def test_the_process_itself_is_an_owner() -> None:
    ledger = books()
    assert ledger.usage() == {PROCESS: 20}
    assert ledger.free_bytes == 80
    with ledger.reserve("model:m", 50) as held:
        assert (held.owner, held.size_bytes) == ("model:m", 50)
        assert ledger.usage() == {PROCESS: 20, "model:m": 50}
    assert ledger.usage() == {PROCESS: 20}
    held.release()
    assert ledger.free_bytes == 80


def test_the_real_process_is_measured() -> None:
    ledger = Ledger(None)
    assert ledger.usage()[PROCESS] > 1_000_000
    assert ledger.free_bytes is None
    with ledger.reserve("model:m", 10**15):
        assert ledger.check() == 0
    ledger_room.trim_heap()


def test_what_can_never_fit_is_refused_at_once_with_the_numbers() -> None:
    ledger = books(100_000_000, 20_000_000)
    cache = Cache(ledger, 10_000_000)
    ledger.on_shortage("cache", CACHES, cache.free)
    with pytest.raises(RefusedError, match=r"model:big needs 81 MB; the budget is 100 MB, .* takes 20 MB") as caught:
        ledger.reserve("model:big", 81_000_000)
    assert caught.value.reason == "memory"
    assert caught.value.retry_after_s is None
    assert "101 MB or more" in caught.value.hint
    assert not cache.asked


def test_a_process_that_is_larger_than_its_budget_does_not_start() -> None:
    with pytest.raises(RefusedError, match="process needs 20 B; the budget is 10 B"):
        books(10)


def test_caches_give_back_before_idle_models_and_those_before_batches() -> None:
    ledger = books()
    batches, models, cache = (Cache(ledger, 20, owner) for owner in ("batches", "model:idle", "cache"))
    ledger.on_shortage("batches", BATCHES, batches.free)
    ledger.on_shortage("cache", CACHES, cache.free)
    ledger.on_shortage("idle models", IDLE_MODELS, models.free)
    held = ledger.reserve("model:a", 30)
    assert (cache.asked, models.asked, batches.asked) == ([10], [], [])
    held.resize(50)
    assert (cache.asked, models.asked, batches.asked) == ([10, 20], [10], [])
    held.resize(70)
    assert ledger.usage() == {PROCESS: 20, "model:a": 70, "batches": 10}
    with pytest.raises(RefusedError, match="requests needs 21 B more; 10 B of the budget are free") as caught:
        ledger.reserve("requests", 21)
    assert caught.value.retry_after_s
    assert ledger.free_bytes == 10, "what was shed for somebody who was refused after all is free"


def test_a_reservation_that_cannot_grow_keeps_its_size() -> None:
    ledger = books()
    held, _other = ledger.reserve("a", 30), ledger.reserve("b", 40)
    with pytest.raises(RefusedError):
        held.resize(50)
    assert held.size_bytes == 30
    assert not held.fit(41)
    assert held.fit(40)
    assert ledger.free_bytes == 0


def test_growing_into_what_is_free_sheds_nothing() -> None:
    ledger = books()
    cache = Cache(ledger, 60)
    ledger.on_shortage("cache", CACHES, cache.free)
    held = ledger.reserve("other", 10)
    assert held.fit(20)
    assert not held.fit(21)
    assert not cache.asked


def test_one_shedder_of_a_name() -> None:
    ledger = books()
    cache = Cache(ledger, 80)
    for _ in range(3):
        ledger.on_shortage("cache", CACHES, cache.free)
    ledger.reserve("a", 5)
    assert cache.asked == [5]


def test_a_shedder_that_only_promises_does_not_hang_anybody() -> None:
    ledger = books()
    ledger.reserve("a", 80)
    ledger.on_shortage("liar", CACHES, lambda wanted: wanted)
    with pytest.raises(RefusedError):
        ledger.reserve("b", 1)


def test_what_nobody_reserved_is_the_process_s_and_is_made_room_for() -> None:
    resident = 20
    ledger = Ledger(100, resident=lambda: resident, trim=lambda: None)
    cache = Cache(ledger, 50)
    ledger.on_shortage("cache", CACHES, cache.free)
    resident = 70
    assert ledger.check() == 0
    assert ledger.usage() == {PROCESS: 20, "cache": 50}
    resident = 90  # 20 more than anybody said: together 110 would be held if the cache were full
    assert ledger.check() == 0
    assert ledger.usage() == {PROCESS: 40, "cache": 50}
    resident = 115
    over = ledger.check()
    assert cache.asked == [15]
    assert over == 15, "the system has not taken back what the cache gave"
    resident = 60
    assert ledger.check() == 0
    assert ledger.usage() == {PROCESS: 25, "cache": 35}
    resident = 10
    ledger.check()
    assert ledger.usage()[PROCESS] == 20, "never below what it was at the start"


def test_the_heap_is_trimmed_before_anybody_gives_back() -> None:
    resident, trimmed = 20, []

    def trim() -> None:
        nonlocal resident
        trimmed.append(resident)
        resident = 90

    ledger = Ledger(100, resident=lambda: resident, trim=trim)
    cache = Cache(ledger, 70)
    ledger.on_shortage("cache", CACHES, cache.free)
    resident = 95
    assert ledger.check() == 0
    assert not trimmed
    resident = 120
    assert ledger.check() == 0
    assert trimmed == [120]
    assert not cache.asked


def test_the_process_is_measured_once_more_before_anybody_is_refused() -> None:
    resident = 90
    ledger = Ledger(100, resident=lambda: resident, trim=lambda: None)
    ledger._floor = 20
    resident = 30
    assert ledger.usage() == {PROCESS: 90}
    ledger.reserve("requests", 60)
    assert ledger.usage() == {PROCESS: 30, "requests": 60}


def test_children_count() -> None:
    ledger = books()
    ledger.watch(4711, lambda: 30)
    ledger.watch(4712, lambda: None)
    ledger.check()
    assert ledger.usage() == {PROCESS: 50}
    ledger.unwatch(4711)
    ledger.check()
    assert ledger.usage() == {PROCESS: 20}


def test_an_unknown_memory_leaves_the_books_as_they_are() -> None:
    ledger = Ledger(100, resident=lambda: None)
    ledger.reserve("a", 60)
    assert ledger.check() == 0
    assert ledger.usage() == {PROCESS: 0, "a": 60}


def step(ledger: Ledger, held: list[Reservation], draw: Callable[[int], int]) -> None:
    """One admission step: reserve, resize, fit or release."""
    choice, size = draw(5), draw(120)
    if choice < 2 or not held:
        held.append(ledger.reserve(f"owner {draw(4)}", size))
    elif choice == 2:
        held[draw(len(held))].resize(size)
    elif choice == 3:
        held[draw(len(held))].fit(size)
    else:
        held.pop(draw(len(held))).release()


def test_ten_thousand_random_steps_never_overshoot() -> None:
    chance = random.Random(4)
    ledger, refused = books(200), 0
    cache = Cache(ledger, 0)
    ledger.on_shortage("cache", CACHES, cache.free)
    held: list[Reservation] = []
    for number in range(10_000):
        try:
            step(ledger, held, chance.randrange)
        except RefusedError:
            refused += 1
        if number % 7 == 0:
            cache.held.fit(cache.held.size_bytes + chance.randrange(40))
        usage = ledger.usage()
        assert sum(usage.values()) <= 200
        assert sum(usage.values()) == 20 + sum(item.size_bytes for item in (*held, cache.held))
    assert 1_000 < refused < 9_000
    assert cache.asked
    for item in (*held, cache.held):
        item.release()
    assert ledger.usage() == {PROCESS: 20}


@given(st.data())
def test_steps_never_overshoot(data: st.DataObject) -> None:
    ledger = books(150)
    held: list[Reservation] = []
    for _ in range(data.draw(st.integers(1, 30))):
        try:
            step(ledger, held, lambda most: data.draw(st.integers(0, most - 1)))
        except RefusedError as error:
            assert error.reason == "memory"
        assert sum(ledger.usage().values()) <= 150


def test_threads_never_overshoot_together() -> None:
    ledger = books(200)
    cache = Cache(ledger, 100)
    lock = threading.Lock()

    def free(wanted: int) -> int:
        with lock:
            return cache.free(wanted)

    ledger.on_shortage("cache", CACHES, free)
    over: list[int] = []

    def admit(seed: int) -> None:
        chance, held = random.Random(seed), []
        for _ in range(500):
            with suppress(RefusedError):
                step(ledger, held, chance.randrange)
            used = sum(ledger.usage().values())
            over.extend([used] if used > 200 else [])
        for item in held:
            item.release()

    threads = [threading.Thread(target=admit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not over
    cache.held.release()
    assert ledger.usage() == {PROCESS: 20}
