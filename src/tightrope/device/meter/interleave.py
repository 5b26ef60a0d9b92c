"""Two things timed in turns, so that a noisy machine bothers both alike; and the arithmetic of what was seen.

Within a round the candidate and the original follow each other at once, in an order that swaps from round to round.
The ratio is taken within each round; a slow minute of the machine falls out of it. How sure the ratio is, a
percentile bootstrap over the rounds says (Efron 1979), with a fixed seed: the same times give the same interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tightrope.device.meter.clock import Clock, now
from tightrope.measurement import Interval, Latency

Block = Callable[[], list[float]]
"""Runs a few calls in a row and returns the seconds of each."""

RESAMPLES = 2000
BLOCK_S = 0.012
MOST_CALLS = 15


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


def ratio(rounds: Rounds, *, seed: int = 0) -> Interval:
    """How many times faster the candidate is: the median over rounds of the ratio of the round's medians.

    The interval is the central 95 % of the medians of resampled rounds.
    """
    original = np.array([np.median(times) for times in rounds.original])
    candidate = np.array([np.median(times) for times in rounds.candidate])
    ratios = original / candidate
    picks = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), (2.5, 97.5))
    value = float(np.median(ratios))
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), n=len(ratios))


def latency(tokens: int, rounds: Rounds, *, seed: int = 0) -> Latency:
    """The candidate's percentiles over every call of every round, and its ratio to the original."""
    times = np.concatenate([np.asarray(block) for block in rounds.candidate])
    p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99)))
    speedup = ratio(rounds, seed=seed) if rounds.original else None
    return Latency(tokens=tokens, n=len(times), p50_s=p50, p95_s=p95, p99_s=p99, speedup=speedup)


def spread(lengths: Sequence[int], most: int) -> list[int]:
    """Positions of at most `most` items, evenly over the order of their lengths, the longest always among them.

    >>> spread([5, 1, 9, 3], 2)
    [1, 2]
    """
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    if len(order) <= most:
        return list(range(len(order)))
    chosen = {order[round(index * (len(order) - 1) / max(1, most - 1))] for index in range(most)}
    return sorted(chosen | {order[-1]})
