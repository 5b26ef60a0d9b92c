"""Turns are fair, and the interval says how sure the ratio is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.meter.interleave import (
    MOST_QUANTILES,
    Contest,
    Rounds,
    calls_in_a_block,
    in_turns,
    latency,
    ratio,
    spread,
)
from tightrope.testing import FakeClock


def test_turns_swap_from_round_to_round() -> None:
    clock, order = FakeClock(), []

    def block(name: str) -> list[float]:
        clock.advance(1)
        order.append(name)
        return [1.0]

    contests = [Contest(lambda: block("a"), lambda: block("A")), Contest(lambda: block("b"), lambda: block("B"))]
    rounds = in_turns(contests, until=16, least=1, most=99, clock=clock)
    assert "".join(order) == "AabB" + "aABb" + "AabB" + "aABb"
    assert [len(item.candidate) for item in rounds] == [len(item.original) for item in rounds] == [4, 4]


def test_the_least_is_kept_and_the_most_is_not_passed() -> None:
    clock = FakeClock()

    def block() -> list[float]:
        clock.advance(1)
        return [1.0]

    assert len(in_turns([Contest(block, None)], until=0, least=3, most=9, clock=clock)[0].candidate) == 3
    assert len(in_turns([Contest(block, None)], until=1e9, least=3, most=9, clock=clock)[0].candidate) == 9
    assert in_turns([Contest(block, None)], until=1e9, least=1, most=2, clock=clock)[0].original == []


def noisy_legs(speedup: float, *, legs: int, luck: float, seed: int) -> list[Rounds]:
    """Two processes, one `speedup` times as fast, each with its own luck, on a machine whose speed wanders."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(legs):
        own = random.normal(1, luck, 2)
        rounds = Rounds()
        for _ in range(10):
            pace = random.uniform(1, 3)
            rounds.original.append((pace * own[0] * random.gamma(200, 1 / 200, 3)).tolist())
            rounds.candidate.append((pace * own[1] / speedup * random.gamma(200, 1 / 200, 3)).tolist())
        found.append(rounds)
    return found


def test_a_wandering_machine_does_not_decide() -> None:
    found = ratio(noisy_legs(1.8, legs=3, luck=0.0, seed=1))
    assert found.n == 30
    assert found.low < 1.8 < found.high
    assert found.high - found.low < 0.15


def test_the_interval_covers_the_luck_of_processes() -> None:
    """Equal bundles: the interval holds 1 about as often as it claims; without legs it would not."""
    held = [ratio(noisy_legs(1.0, legs=3, luck=0.03, seed=seed)) for seed in range(60)]
    alone = [ratio(noisy_legs(1.0, legs=1, luck=0.03, seed=seed)) for seed in range(60)]
    assert sum(item.low <= 1 <= item.high for item in held) >= 52
    assert sum(item.low <= 1 <= item.high for item in alone) <= 45


def test_the_same_times_give_the_same_interval() -> None:
    legs = noisy_legs(1.3, legs=2, luck=0.01, seed=5)
    assert ratio(legs, seed=3) == ratio(legs, seed=3)


times = st.lists(st.lists(st.floats(1e-6, 10), min_size=1, max_size=3), min_size=1, max_size=5)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=3))
def test_the_value_lies_in_its_interval(given_legs: list[tuple[list[list[float]], list[list[float]]]]) -> None:
    legs = []
    for candidate, original in given_legs:
        count = min(len(candidate), len(original))
        legs.append(Rounds(candidate=candidate[:count], original=original[:count]))
    found = latency(32, legs)
    assert found.speedup is not None
    assert 0 <= found.speedup.low <= found.speedup.value <= found.speedup.high
    assert 0 < found.p50_s <= found.p95_s <= found.p99_s
    assert found.n == sum(len(block) for leg in legs for block in leg.candidate)


def test_percentiles_are_over_all_calls_of_the_candidate() -> None:
    found = latency(12, [Rounds(candidate=[[float(value) for value in range(1, 51)], list(range(51, 102))])])
    assert (found.p50_s, found.p95_s, found.p99_s) == (51, 96, 100)
    assert found.speedup is None


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=600))
def test_the_distribution_is_bounded_and_in_order(times: list[float]) -> None:
    found = latency(12, [Rounds(candidate=[times])]).quantiles_s
    assert len(found) == min(len(times), MOST_QUANTILES)
    assert list(found) == sorted(found)
    assert found[-1] == pytest.approx(max(times), rel=1e-4)
    if 1 < len(times) <= MOST_QUANTILES:
        assert list(found) == pytest.approx(sorted(times), rel=1e-4)


@pytest.mark.parametrize(("seconds", "calls"), [(1e-6, 15), (0.001, 12), (0.005, 2), (0.2, 1), (10.0, 1)])
def test_blocks_are_short(seconds: float, calls: int) -> None:
    assert calls_in_a_block(seconds) == calls


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 50))
def test_a_spread_holds_the_longest(lengths: list[int], most: int) -> None:
    chosen = spread(lengths, most)
    assert len(chosen) <= most and len(set(chosen)) == len(chosen)
    assert max(lengths) in [lengths[position] for position in chosen]
