"""Ratios over rounds, and whether the peers were what they should be.

A round asks everybody the same within moments, so a ratio is taken inside each round first, and over the rounds then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.peers.expected import EXPECTED
from tightrope.measurement import Interval

RESAMPLES = 2000
FALL = 0.15
"""How far a peer may fall below what is expected of it, before the run counts for nothing."""

Rounds = Mapping[str, Mapping[str, Sequence[float]]]
"""Candidate, quantity (a length in tokens, or `corpus`), then seconds in each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A peer that was slower than it should be beside all the others in the same rounds; 1 is as expected."""

    peer: str
    quantity: str
    share: float

    def __str__(self) -> str:
        what = "on the corpus" if self.quantity == "corpus" else f"at {self.quantity} tokens"
        return f"{self.peer} is {100 * (1 - self.share):.0f} % slower {what} than it should be beside the others"


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median, and the 95 % interval of it by resampling the rounds (percentile bootstrap, Efron 1979).

    >>> interval([2.0, 2.0, 2.0])
    Interval(value=2.0, low=2.0, high=2.0, n=3)
    """
    drawn = np.random.default_rng(seed).choice(np.asarray(values), (RESAMPLES, len(values)))
    medians = np.sort(np.median(drawn, axis=1))
    low, high = medians[round(0.025 * (RESAMPLES - 1))], medians[round(0.975 * (RESAMPLES - 1))]
    return Interval(value=median(values), low=float(low), high=float(high), n=len(values))


def speed_ratio(beside: Sequence[float], seconds: Sequence[float]) -> Interval:
    """How many times as fast as `beside`, round by round; above 1 is faster.

    >>> speed_ratio([3.0, 6.0], [1.0, 2.0]).value
    3.0
    """
    return interval([one / other for one, other in zip(beside, seconds, strict=True)])


def shortfalls(rounds: Rounds, quantities: Sequence[str]) -> list[Finding]:
    """The peers that fell more than `FALL` below their expected ratio to the middle one of all peers.

    How much slower than expected each one is says how the machine is today; the median of that over all peers is the
    yardstick, taken inside each round, so that no single peer's good or bad day decides about the others.
    """
    found = []
    present = [peer for peer in EXPECTED if peer in rounds]
    for quantity in quantities:
        slowness = {peer: [value / EXPECTED[peer][quantity] for value in rounds[peer][quantity]] for peer in present}
        usual = [median(values) for values in zip(*slowness.values(), strict=True)]
        for peer in present:
            share = speed_ratio(usual, slowness[peer]).value
            if share < 1 - FALL:
                found.append(Finding(peer=peer, quantity=quantity, share=share))
    return found
