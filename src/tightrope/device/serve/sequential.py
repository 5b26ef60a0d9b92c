"""Sequential tests: is the new version worse? Asked after every request, with an error rate that holds all the same.

A test bets against the claim that the mean of some excess is at most zero. A fixed stake multiplies its wealth by
`1 + stake * excess` at each value. If the claim is true the wealth is a supermartingale, and by Ville's inequality
(1939) it ever reaches 1/a with probability at most a: whatever the distribution, whenever one looks, and when values
depend on those before. Where the best stake depends on what is not known, such as whether all answers are a little
worse or few are all wrong, the wealth is divided among several stakes: Robbins' method of mixtures (1970). For the
theory see Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 86, 2024). For
failures the wealth is the likelihood ratio of Wald's test (1945).

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
TOLERATED_FAILURES, FAILURES = 0.005, 0.025
"""The same for the share of requests that fail though the current version answers them."""
WRONG_DROP = 0.2
"""An agreement lower than the expected by so much is a wrong answer: a failure."""
LARGEST_RATIO = 2.0
"""A ratio beyond this, or below its inverse, counts as this: one pause of the machine decides nothing."""
_SURE = 2.95
"""Standard errors by which a mean of 16 texts may be too high, at half a percent: Student's t."""
_BOLDNESS = 0.5
"""The share of its wealth that the boldest stake on agreement may lose at once."""
_TIMIDER = tuple(4.0**-power for power in range(5))
_LATENCY_STAKES = (0.5, 1.2)
"""About the best for times that vary a lot, and for such that hardly do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialTest:
    """Bets against "the mean excess is at most zero", and what they came to so far.

    `error_rate` is how often it may be wrong about a mean of zero or less, over all time. No excess is so low that a
    stake times it is -1 or less.
    """

    error_rate: float
    stakes: tuple[float, ...]
    wealth_logs: tuple[float, ...]
    """The logarithm of what each stake's share of the wealth has become, in shares."""
    n: int = 0
    mean: float = 0.0
    peak_log: float = 0.0

    @classmethod
    def of(cls, error_rate: float, *stakes: float) -> Self:
        """One that has seen nothing."""
        return cls(error_rate=error_rate, stakes=stakes, wealth_logs=(0.0,) * len(stakes))

    def saw(self, excess: float) -> Self:
        """With one more value."""
        logs = tuple(log + math.log1p(stake * excess) for log, stake in zip(self.wealth_logs, self.stakes, strict=True))
        n = self.n + 1
        return replace(
            self,
            n=n,
            mean=self.mean + (excess - self.mean) / n,
            wealth_logs=logs,
            peak_log=max(self.peak_log, _log_mean(logs)),
        )

    @property
    def wealth_log(self) -> float:
        """The logarithm of the whole wealth; 0 at the start."""
        return _log_mean(self.wealth_logs)

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
        return cls(**{**data, **{name: tuple(data[name]) for name in ("stakes", "wealth_logs")}})


def _log_mean(logs: tuple[float, ...]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))


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
    boldest = _BOLDNESS / (1.0 - expected.least)
    return SequentialTest.of(error_rate, *(boldest * part for part in _TIMIDER))


def agreement_excess(expected: Expected, agreement: float) -> float:
    """By how much one agreement, at most 1, is below the least that is tolerated on average."""
    return expected.least - min(1.0, agreement)


def latency_test(error_rate: float) -> SequentialTest:
    """For `latency_excess`: is the typical ratio of the two versions' times above what is tolerated?"""
    return SequentialTest.of(error_rate, *_LATENCY_STAKES)


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
    stake = (FAILURES - TOLERATED_FAILURES) / (TOLERATED_FAILURES * (1 - TOLERATED_FAILURES))
    return SequentialTest.of(error_rate, stake)


def failure_excess(failed: bool) -> float:
    """One request that the current version answered, and whether the candidate failed."""
    return float(failed) - TOLERATED_FAILURES
