"""Sequential tests: how often they are wrong about a healthy version, and what they find; small, with fixed seeds."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve import sequential
from tightrope.device.serve.sequential import Expected, SequentialTest

RUNS, REQUESTS = 100, 500
RATE = 0.004


def found_at(test: SequentialTest, excesses: Iterable[float]) -> int | None:
    for number, excess in enumerate(excesses, 1):
        test = test.saw(excess)
        if test.rejected:
            return number
    return None


def rejections(test: SequentialTest, draw: Callable[[np.random.Generator], Iterable[float]], runs: int = RUNS) -> int:
    random = np.random.default_rng(11)
    return sum(found_at(test, draw(random)) is not None for _ in range(runs))


def agreements(mean: float, spread: float) -> Callable[[np.random.Generator], np.ndarray]:
    """Cosines below 1 with a long tail, as they are."""
    shape = ((1 - mean) / spread) ** 2
    return lambda random: 1 - random.gamma(shape, (1 - mean) / shape, REQUESTS)


@pytest.mark.parametrize(("mean", "spread"), [(0.998, 0.001), (0.99, 0.005), (0.97, 0.02)])
def test_agreement_lower_by_two_hundredths_is_found_and_the_recorded_one_is_left_alone(mean, spread) -> None:
    expected = Expected(mean=mean, error=0.0, n=16)
    test = sequential.agreement_test(expected, RATE)

    def excesses(mean: float) -> Callable[[np.random.Generator], list[float]]:
        draw = agreements(mean, spread)
        return lambda random: [sequential.agreement_excess(expected, value) for value in draw(random)]

    assert rejections(test, excesses(mean)) <= 1
    assert rejections(test, excesses(mean - sequential.DROP)) >= 99


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_a_fifth_slower_is_found_and_as_fast_is_left_alone(noise: float) -> None:
    def excesses(ratio: float) -> Callable[[np.random.Generator], list[float]]:
        return lambda random: [
            sequential.latency_excess(ratio * math.exp(value), 1.0) for value in random.normal(0, noise, REQUESTS)
        ]

    assert rejections(sequential.latency_test(RATE), excesses(1.0)) <= 1
    assert rejections(sequential.latency_test(RATE), excesses(1.2)) >= 99


def test_at_the_edge_of_what_is_tolerated_the_error_rate_still_holds() -> None:
    """The worst healthy version there is, and a rate that a hundred runs can see."""

    def excesses(random: np.random.Generator) -> list[float]:
        noise = random.normal(0, 0.2, REQUESTS)
        return [sequential.latency_excess(sequential.TOLERATED_RATIO * math.exp(value), 1.0) for value in noise]

    assert rejections(sequential.latency_test(0.1), excesses, runs=200) <= 26  # 10 % and two standard errors


def test_failures_of_one_in_twenty_are_found_and_one_in_a_thousand_is_left_alone() -> None:
    def excesses(share: float) -> Callable[[np.random.Generator], list[float]]:
        return lambda random: [sequential.failure_excess(bool(hit)) for hit in random.random(REQUESTS) < share]

    assert rejections(sequential.failure_test(0.001), excesses(0.001)) <= 1
    assert rejections(sequential.failure_test(0.001), excesses(0.05)) >= 95
    assert found_at(sequential.failure_test(0.001), [sequential.failure_excess(True)] * 20) <= 8


def test_a_pause_of_the_machine_decides_nothing() -> None:
    ratios = [(100.0, 0.01) if index in (3, 4) else (0.01, 0.01) for index in range(60)]
    assert found_at(sequential.latency_test(RATE), [sequential.latency_excess(*pair) for pair in ratios]) is None


def test_few_texts_that_disagree_about_what_to_expect_leave_more_room() -> None:
    sure, unsure = Expected.of([0.98] * 16), Expected.of([0.99, 0.97, 0.999, 0.961] * 4)
    assert sure.least == pytest.approx(0.975)
    assert unsure.mean == pytest.approx(0.98)
    assert unsure.least < sure.least


@given(st.lists(st.floats(-0.9, 2), max_size=60))
def test_wealth_stays_positive_and_a_test_once_rejected_stays_so(excesses: list[float]) -> None:
    test, rejected = SequentialTest.of(0.05, 1.0, 0.1), False
    for excess in excesses:
        test = test.saw(excess)
        assert math.isfinite(test.wealth_log)
        assert test.rejected or not rejected
        rejected = test.rejected
    assert SequentialTest.from_json(test.to_json()) == test


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_a_fair_game_gains_nothing_on_average(stakes: list[float], seed: int) -> None:
    """After any past, the next value's mean effect on the wealth is none: the stakes were fixed before it."""
    test = SequentialTest.of(0.01, *stakes)
    for value in np.random.default_rng(seed).uniform(-1, 1, 20):
        test = test.saw(float(value))
    after = [math.exp(test.saw(value).wealth_log - test.wealth_log) for value in (-1.0, 1.0)]
    assert sum(after) / 2 == pytest.approx(1.0)
