"""Two things timed in turns, so that a noisy machine bothers both alike; and the arithmetic of what was seen.

Within a round the candidate and the original follow each other at once, in an order that swaps from round to round.
The ratio is taken within each round; a slow minute of the machine falls out of it. But two processes that run the very
same bundle differ by some percent for as long as they live (where their memory happened to lie), so the rounds are cut
into legs, each with processes of its own. How sure the ratio is, a bootstrap over legs and the rounds in them says
(Davison and Hinkley 1997, section 3.8), with a fixed seed: the same times give the same interval.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tightrope.device.meter.clock import Clock, now
from tightrope.measurement import Interval, Latency

Block = Callable[[], list[float]]
"""Runs a few calls in a row and returns the seconds of each."""

RESAMPLES = 2000
BLOCK_S = 0.012
MOST_CALLS = 15
MOST_QUANTILES = 200
"""So many values at most tell the distribution of the calls: enough for a curve on a page."""


@dataclass(slots=True)
class Rounds:
    """The seconds of each call by round, of the candidate and, if there is one, of the original."""

    candidate: list[list[float]] = field(default_factory=list)
    original: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Contest:
    """What runs in turns for one length of text; `original` is `None` when the candidate is measured alone."""

    candidate: Block
    original: Block | None


def in_turns(contests: Sequence[Contest], until: float, least: int, most: int, clock: Clock = now) -> list[Rounds]:
    """Go round all contests again and again until the clock shows `until`, but `least` times and `most` at most.

    All lengths share a round, so that a change of the machine's speed does not fall on one of them.
    """
    rounds = [Rounds() for _ in contests]
    longest = 0.0
    for number in range(most):
        started = clock()
        if number >= least and started + longest > until:
            break
        for position, (contest, seen) in enumerate(zip(contests, rounds, strict=True)):
            turns = [(contest.candidate, seen.candidate)]
            if contest.original is not None:
                turns.append((contest.original, seen.original))
            for block, times in turns if (number + position) % 2 else turns[::-1]:
                times.append(block())
        longest = max(longest, clock() - started)
    return rounds


def calls_in_a_block(seconds_each: float) -> int:
    """So many calls that a block lasts about `BLOCK_S`: long enough for a median, short enough to stay in step."""
    return max(1, min(MOST_CALLS, round(BLOCK_S / seconds_each)))


def ratio(legs: Sequence[Rounds], *, seed: int = 0) -> Interval:
    """How many times faster the candidate is: the ratio of medians in each round, and of all rounds the median.

    The interval is the central 95 % of the same figure over resampled legs of resampled rounds, stretched by the
    factor that resampling few legs falls short by.
    """
    random = np.random.default_rng(seed)
    ratios = [_round_ratios(leg) for leg in legs]
    flat, sizes = np.concatenate(ratios), np.array([len(item) for item in ratios])
    starts, count, each = np.cumsum(sizes) - sizes, len(sizes), -(-len(flat) // len(sizes))
    chosen = random.integers(count, size=(RESAMPLES, count, 1))
    within = (random.random((RESAMPLES, count, each)) * sizes[chosen]).astype(np.int64)
    medians = np.median(flat[starts[chosen] + within].reshape(RESAMPLES, -1), axis=1)
    value = float(np.median(flat))
    low, high = np.percentile(medians, (2.5, 97.5)) - value
    stretch = math.sqrt(count / (count - 1)) if count > 1 else 1.0
    return Interval(
        value=value,
        low=max(0.0, value + stretch * min(0.0, float(low))),
        high=value + stretch * max(0.0, float(high)),
        n=len(flat),
    )


def _round_ratios(rounds: Rounds) -> NDArray[np.float64]:
    original = np.array([np.median(times) for times in rounds.original])
    candidate = np.array([np.median(times) for times in rounds.candidate])
    return np.asarray(original / candidate, np.float64)


def latency(tokens: int, legs: Sequence[Rounds], *, seed: int = 0) -> Latency:
    """The candidate's percentiles over every call of every round, and its ratio to the original if there is one."""
    times = np.concatenate([np.asarray(block) for leg in legs for block in leg.candidate])
    p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99)))
    speedup = ratio(legs, seed=seed) if all(leg.original for leg in legs) else None
    return Latency(
        tokens=tokens, n=len(times), p50_s=p50, p95_s=p95, p99_s=p99, speedup=speedup, quantiles_s=_distribution(times)
    )


def _distribution(times: NDArray[np.float64]) -> tuple[float, ...]:
    """The calls in ascending order or, of more than `MOST_QUANTILES`, so many quantiles; to five digits."""
    shares = np.linspace(0, 1, min(len(times), MOST_QUANTILES))
    return tuple(float(f"{value:.5g}") for value in np.quantile(times, shares))


def spread(lengths: Sequence[int], most: int) -> list[int]:
    """Positions of at most `most` items, evenly over the order of their lengths, the longest always among them.

    >>> spread([5, 1, 9, 3], 2)
    [1, 2]
    """
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    if len(order) <= most:
        return list(range(len(order)))
    return sorted({order[-1 - round(index * (len(order) - 1) / max(1, most - 1))] for index in range(most)})
