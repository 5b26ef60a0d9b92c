"""Ratios over rounds, and whether the peers were what they should be.

A round asks everybody the same within moments, so a ratio is taken inside each round first, and over the rounds then.

What a peer should be is told by a yardstick: ratios that were measured elsewhere, if this processor has the same
instructions, and otherwise what each peer did alone just before the rounds. Both are of peers that had a core to
themselves, so a run in which a candidate was hampered by its neighbours is found by either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.peers.expected import EXPECTED, INSTRUCTIONS
from tightrope.measurement import Interval

RESAMPLES = 2000
FALL = 0.15
"""How far a peer may fall below what is expected of it, before the run counts for nothing."""
FEWEST_PEERS = 2
"""One alone has nobody to be beside."""

Rounds = Mapping[str, Mapping[str, Sequence[float]]]
"""Candidate, quantity (a length in tokens, or `corpus`), then seconds in each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What each peer should be able to do, in seconds by quantity; only their ratios to each other are used."""

    name: str
    than: str
    """How a sentence ends that says that a peer was slower."""
    seconds: Mapping[str, Mapping[str, float]]


def yardstick(instructions: str, alone: Rounds) -> Yardstick:
    """The expectations where they were measured with the same instructions; else what each peer did alone."""
    if instructions == INSTRUCTIONS:
        return Yardstick(name="expected", than="it should be beside the others", seconds=EXPECTED)
    seconds = {
        peer: {quantity: median(values) for quantity, values in row.items() if values} for peer, row in alone.items()
    }
    return Yardstick(name="alone", than="it was alone, beside the others", seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A peer that was slower than it should be beside all the others in the same rounds; 1 is as expected."""

    peer: str
    quantity: str
    share: float
    than: str

    def __str__(self) -> str:
        what = "on the corpus" if self.quantity == "corpus" else f"at {self.quantity} tokens"
        return f"{self.peer} is {100 * (1 - self.share):.0f} % slower {what} than {self.than}"


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


def shares(rounds: Rounds, quantities: Sequence[str], expected: Yardstick) -> dict[str, dict[str, float]]:
    """What each peer reached of what is expected of it beside the middle one of all peers; 1 is as expected.

    How much slower than expected each one is says how the machine is today; the median of that over all peers is what
    is usual, taken inside each round, so that no single peer's good or bad day decides about the others.
    """
    present = [peer for peer in expected.seconds if peer in rounds]
    found: dict[str, dict[str, float]] = {peer: {} for peer in present}
    for quantity in quantities:
        slowness = {
            peer: [value / expected.seconds[peer][quantity] for value in rounds[peer][quantity]] for peer in present
        }
        usual = [median(values) for values in zip(*slowness.values(), strict=True)]
        for peer in present:
            found[peer][quantity] = speed_ratio(usual, slowness[peer]).value
    return found


def shortfalls(rounds: Rounds, quantities: Sequence[str], expected: Yardstick) -> list[Finding]:
    """The peers that fell more than `FALL` below what is expected of them."""
    return [
        Finding(peer=peer, quantity=quantity, share=share, than=expected.than)
        for peer, row in shares(rounds, quantities, expected).items()
        for quantity, share in row.items()
        if share < 1 - FALL
    ]
