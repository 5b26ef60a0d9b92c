"""Acceptance: the gate that a bundle passes to be published as a success.

A bundle must be faster or smaller than the original, the lower end of the interval above 1; and the upper end of its
loss, on samples that the search did not see, must keep the limit. The reasons are for people to read.
"""

from tightrope import units
from tightrope.budget import Budget
from tightrope.measurement import Quality
from tightrope.workshop.search.trial import Trial, usual


def objections(trial: Trial, baseline: Trial, budget: Budget, report: Quality | None) -> tuple[str, ...]:
    """Why a trial may not be published; empty if it may."""
    found = list(trial.breaches)
    if not (_is_smaller(trial, baseline) or _is_faster(trial)):
        found.append("it is neither smaller nor faster than the original, with the interval's lower end above 1")
    limit = budget.limit("loss")
    if report is None:
        found.append("its quality was not confirmed on samples that the search did not see")
    elif limit is not None and not report.loss.high <= limit.value:
        shown = [units.show(value, "fraction") for value in (report.loss.value, report.loss.low, report.loss.high)]
        found.append(
            f"loss on unseen samples is {shown[0]} [{shown[1]}, {shown[2]}]: its interval crosses the limit of "
            f"{units.show(limit.value, 'fraction')}"
        )
    return tuple(found)


def _is_smaller(trial: Trial, baseline: Trial) -> bool:
    return (trial.size_bytes or 0) < (baseline.size_bytes or 0)


def _is_faster(trial: Trial) -> bool:
    if trial.measurement is None:
        return False
    ratio = usual(trial.measurement).speedup
    return ratio is not None and ratio.low > 1
