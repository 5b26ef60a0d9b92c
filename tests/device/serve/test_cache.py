"""Answers of before: the same to the bit, of the right model, in no more memory than there is to spare."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.senses.text import Encoded
from tightrope.device.serve.cache import AnswerCache, names
from tightrope.device.serve.ledger import PROCESS, Ledger
from tightrope.device.session import Ragged

STEP = 65_536
ENTRY = 200


def books(budget: int | None = None) -> Ledger:
    return Ledger(budget, resident=lambda: 0, trim=lambda: None)


def encoded(*rows: list[int], types: list[list[int]] | None = None) -> Encoded:
    return Encoded(Ragged.of(rows), Ragged.of(types or [[] for _ in rows]), 0)


def row(number: float, width: int = 64) -> np.ndarray:
    return np.full(width, number, np.float32)


def test_a_row_comes_back_as_it_was() -> None:
    cache = AnswerCache(books(), 10**6)
    cache.keep(b"a", row(0.1))
    found = cache.find(b"a")
    assert found is not None and np.array_equal(found, row(0.1)) and found.dtype == np.float32
    assert cache.find(b"b") is None
    cache.keep(b"a", row(0.2))
    assert np.array_equal(cache.find(b"a"), row(0.1)), "the first answer stays: the second is the same"  # type: ignore[arg-type]


def test_texts_are_the_same_if_their_ids_are_and_the_model_is() -> None:
    first = names(b"model 1", encoded([1, 2], [3], [1, 2]))
    assert first[0] == first[2] != first[1]
    assert not set(first) & set(names(b"model 2", encoded([1, 2], [3])))
    assert names(b"m", encoded([1, 2], types=[[0, 1]])) != names(b"m", encoded([1, 2], types=[[0, 0]]))
    assert all(len(name) == 16 for name in first)


def test_what_was_not_used_for_longest_goes_first() -> None:
    size = ENTRY + 256
    cache = AnswerCache(books(), 3 * size)
    for name in b"abc":
        cache.keep(bytes([name]), row(name))
    assert cache.find(b"a") is not None
    cache.keep(b"d", row(4))
    assert [cache.find(bytes([name])) is not None for name in b"abcd"] == [True, False, True, True]
    assert len(cache) == 3
    cache.keep(b"e", row(5, 10_000))
    assert cache.find(b"e") is None and len(cache) == 3, "one that is larger than all of it is not kept"


def test_it_grows_into_free_memory_only_and_gives_back_at_once() -> None:
    ledger = books(2 * STEP)
    cache = AnswerCache(ledger, 10**9)
    asked = ledger.reserve("other", STEP)
    for number in range(1000):
        cache.keep(number.to_bytes(2), row(number))
    assert ledger.usage() == {PROCESS: 0, "other": STEP, "cache": STEP}
    assert len(cache) == STEP // (ENTRY + 256)
    assert cache.find((999).to_bytes(2)) is not None
    asked.resize(2 * STEP)
    assert ledger.usage() == {PROCESS: 0, "other": 2 * STEP}
    assert len(cache) == 0
    cache.keep(b"a", row(1))
    assert len(cache) == 0 and ledger.free_bytes == 0
    asked.release()
    cache.keep(b"a", row(1))
    assert len(cache) == 1
    cache.clear()
    assert ledger.usage() == {PROCESS: 0}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3000)), max_size=60), st.integers(0, 300_000))
def test_the_books_cover_what_is_kept(steps: list[tuple[int, int]], budget: int) -> None:
    ledger = books(budget)
    cache = AnswerCache(ledger, 150_000)
    for name, width in steps:
        cache.keep(bytes([name]), row(name, width))
        kept = sum(len(data) + ENTRY for data in cache._rows.values())
        assert kept == cache._used <= cache._held.size_bytes <= min(budget, 150_000)
    freed = cache.free(10**9)
    assert freed >= 0 and len(cache) == 0 and ledger.usage() == {PROCESS: 0}
