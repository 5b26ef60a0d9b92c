import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.budget import Budget
from tightrope.errors import BudgetError
from tightrope.measurement import Conditions, Interval, Latency, Measurement

CONDITIONS = Conditions(
    target="t", processor="p", architecture="a", isa=(), engine="e", engine_version="1", threads=1, pinned=True
)


def measured(speedup: float = 2.0, p95: float = 0.01, memory: int | None = 90_000_000) -> Measurement:
    ratio = Interval(value=speedup, low=speedup - 0.1, high=speedup + 0.1, n=20)
    return Measurement(
        conditions=CONDITIONS,
        latencies=(
            Latency(tokens=32, n=20, p50_s=0.001, p95_s=0.002, p99_s=0.003, speedup=ratio),
            Latency(tokens=128, n=20, p50_s=0.005, p95_s=p95, p99_s=0.02, speedup=ratio),
        ),
        size_bytes=23_000_000,
        memory_peak_bytes=memory,
    )


def loss(value: float, high: float) -> Interval:
    return Interval(value=value, low=0.0, high=high, n=100)


def test_the_words_of_the_readme_are_read() -> None:
    budget = Budget.parse("speedup>=1.8x, memory<=120MB, size<=30MB, loss<=1%, latency[128].p95<=20ms")
    assert [limit.value for limit in budget.limits] == [1.8, 120e6, 30e6, 0.01, 0.02]
    assert budget.judge(measured(), loss(0.002, 0.004))
    assert Budget.parse(str(budget)) == budget


def test_each_missed_limit_is_told_with_both_values() -> None:
    verdict = Budget.parse("speedup>=3x, latency[128].p95<=5ms").judge(measured(), None)
    assert [str(breach) for breach in verdict.breaches] == [
        "speedup is 2.00x; the limit is speedup >= 3.00x",
        "latency[128].p95 is 10 ms; the limit is latency[128].p95 <= 5 ms",
    ]


def test_what_nobody_measured_is_not_met() -> None:
    verdict = Budget.parse("energy<=1J, memory<=1GB, latency[64]<=1s").judge(measured(memory=None), None)
    assert len(verdict.breaches) == 3
    assert all("was not measured" in str(breach) for breach in verdict.breaches)


def test_loss_is_judged_by_the_upper_end_of_its_interval() -> None:
    budget = Budget.parse("loss<=1%")
    assert budget.judge(None, loss(0.008, 0.0099))
    assert not budget.judge(None, loss(0.008, 0.0101))
    assert not budget.judge(None, loss(0.0, math.nan))


@pytest.mark.parametrize(
    "text",
    [
        "latency<=fast",
        "latency<=-3ms",
        "latency<=nan",
        "latency<=nan ms",
        "latency<=0ms",
        "latency>=3ms",
        "speedup<=2x",
        "size<=30",
        "beauty<=3",
        "latency[1]<=3ms",
        "latency[99999]<=3ms",
        "size[32]<=3MB",
        "latency.p42<=3ms",
        "memory.p95<=3MB",
        "loss<=1%, loss<=2%",
        "latency<=3ms, latency[32].p50<=4ms",
        "<=3ms",
        "latency",
        "size<=1e999MB",
    ],
)
def test_nonsense_is_refused_in_two_lines(text: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget.parse(text)
    assert len(str(caught.value).splitlines()) == 2


@given(st.text(max_size=40))
def test_any_text_is_a_budget_or_a_budget_error(text: str) -> None:
    with suppress(BudgetError):
        assert Budget.parse(str(Budget.parse(text))) is not None
