"""Sequential tests: is the new version worse? Asked after every request, with an error rate that holds all the same.

A test bets against the claim that the mean of some excess is at most zero. A stake that is fixed before each value
is seen multiplies its wealth by `1 + stake * excess`. If the claim is true the wealth is a supermartingale, and by
Ville's inequality (1939) it ever reaches 1/a with probability at most a: whatever the distribution, whenever one looks,
and when values depend on those before. With stakes after Waudby-Smith and Ramdas ("Estimating means of bounded random
variables by betting", JRSS B 86, 2024) it grows about as fast as if the distribution were known. For events with a
fixed stake it is the likelihood ratio of Wald's test (1945).

What the tests find, and how often they are wrong, is simulated in `benchmarks/canary.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

TOLERATED_DROP, DROP = 0.005, 0.02
"""A mean agreement lower by the first is no reason to go back; one lower by the second must be found."""
TOLERATED_RATIO, RATIO = 1.05, 1.2
"""The same for the ratio of the times that both versions take for one request."""
TOLERATED_FAILURES, FAILURES = 0.005, 0.05
"""The same for the share of requests that fail though the current version answers them."""
LARGEST_RATIO = 2.0
"""A ratio beyond this, or below its inverse, counts as this: one pause of the machine decides nothing."""
_SURE = 2.6
"""Standard errors by which a mean of 16 texts may be too high, at one percent: Student's t."""
_BOLDNESS = 0.5
"""The share of its wealth that a test may lose at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialTest:
    """A bet against "the mean excess is at most zero", and what it has seen so far.

    No excess is below `-bound`. `effect` is the mean excess that the test is made to find; `error_rate` is how often
    it may be wrong about a mean of zero or less, over all time.
    """

    error_rate: float
    bound: float
    effect: float
    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """The sum of squared distances from the mean."""
    wealth_log: float = 0.0
    peak_log: float = 0.0

    def saw(self, excess: float) -> Self:
        """With one more value."""
        excess = max(excess, -self.bound)
        wealth_log = self.wealth_log + math.log1p(self.stake * excess)
        n = self.n + 1
        mean = self.mean + (excess - self.mean) / n
        return replace(
            self,
            n=n,
            mean=mean,
            squares=self.squares + (excess - self.mean) * (excess - mean),
            wealth_log=wealth_log,
            peak_log=max(self.peak_log, wealth_log),
        )

    @property
    def stake(self) -> float:
        """What is bet on the next value: about the best for the mean and spread of those before it."""
        aim = max(self.effect, self.mean)
        spread = (self.bound**2 / 4 + self.squares) / (self.n + 1)
        return min(aim / (spread + aim * aim), _BOLDNESS / self.bound)

    @property
    def p(self) -> float:
        """How likely so much evidence is if the claim is true: at most this, whenever one looks."""
        return math.exp(-self.peak_log)

    @property
    def rejected(self) -> bool:
        """Whether the claim is given up. Once it is, it stays so."""
        return self.p <= self.error_rate

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The agreement that was found at verification: the mean over `n` texts and its standard error."""

    mean: float
    error: float
    n: int

    @staticmethod
    def of(values: "list[float]") -> "Expected":
        """From the agreement of each text."""
        n = len(values)
        mean = sum(values) / n
        variance = sum((value - mean) ** 2 for value in values) / max(1, n - 1)
        return Expected(mean=mean, error=math.sqrt(variance / n), n=n)

    @property
    def least(self) -> float:
        """The mean agreement that no version is taken back for.

        It is below what was found by what is tolerated and by as much as so few texts may mislead. Where they disagree
        a lot, a drop of `DROP` is found later, or not at all.
        """
        return min(1.0, self.mean) - TOLERATED_DROP - _SURE * self.error


def agreement_test(expected: Expected, error_rate: float) -> SequentialTest:
    """For `agreement_excess`: is the mean agreement below what is expected?"""
    gap = max(DROP - (min(1.0, expected.mean) - expected.least), TOLERATED_DROP)
    return SequentialTest(error_rate=error_rate, bound=1.0 - expected.least, effect=gap)


def agreement_excess(expected: Expected, agreement: float) -> float:
    """By how much one agreement, at most 1, is below the least that is tolerated on average."""
    return expected.least - min(1.0, agreement)


def latency_test(error_rate: float) -> SequentialTest:
    """For `latency_excess`: is the typical ratio of the two versions' times above what is tolerated?"""
    effect = math.log(RATIO / TOLERATED_RATIO)
    return SequentialTest(error_rate=error_rate, bound=math.log(LARGEST_RATIO * TOLERATED_RATIO), effect=effect)


def latency_excess(candidate_s: float, current_s: float) -> float:
    """By how much the logarithm of one ratio, which pauses of either version cannot pull far, is above the tolerated.

    >>> round(latency_excess(0.011, 0.010), 6), round(latency_excess(1.0, 0.010), 3)
    (0.04652, 0.644)
    """
    ratio = max(candidate_s, 1e-9) / max(current_s, 1e-9)
    most = math.log(LARGEST_RATIO)
    return max(-most, min(most, math.log(ratio))) - math.log(TOLERATED_RATIO)


def failure_test(error_rate: float) -> SequentialTest:
    """For `failure_excess`: does the candidate fail more often than is tolerated where the current one answers?"""
    effect = FAILURES - TOLERATED_FAILURES
    return SequentialTest(error_rate=error_rate, bound=TOLERATED_FAILURES, effect=effect)


def failure_excess(failed: bool) -> float:
    """One request that the current version answered, and whether the candidate failed."""
    return float(failed) - TOLERATED_FAILURES
