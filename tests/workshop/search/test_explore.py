"""The exploring, with a laboratory that does nothing but take time."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tightrope import target
from tightrope.budget import Budget
from tightrope.errors import EngineError, UnsupportedError
from tightrope.measurement import Conditions, Interval, Latency, Measurement, Parity, Quality
from tightrope.recipe import Recipe
from tightrope.testing import FakeClock
from tightrope.workshop.search import acceptance, frontier
from tightrope.workshop.search.explore import Explorer
from tightrope.workshop.search.fit import Settings, complete, device_of
from tightrope.workshop.search.trial import Trial
from tightrope.workshop.search.watcher import Unwatched

CONDITIONS = Conditions(
    target="t", processor="p", architecture="a", isa=(), engine="e", engine_version="1", threads=1, pinned=True
)


def quality(loss: float, high: float | None = None) -> Quality:
    interval = Interval(value=loss, low=0.0, high=loss * 1.1 if high is None else high, n=9)
    return Quality(kind="fidelity", metric="m", samples="s", n=9, original=1.0, score=1 - loss, loss=interval)


def measurement(speedup: float, size: int, memory: int = 90) -> Measurement:
    ratio = Interval(value=speedup, low=speedup * 0.95, high=speedup * 1.05, n=9)
    latency = Latency(tokens=32, n=9, p50_s=1 / speedup, p95_s=1.0, p99_s=1.0, speedup=ratio)
    return Measurement(conditions=CONDITIONS, latencies=(latency,), size_bytes=size, memory_peak_bytes=memory)


def timed(recipe: str, speedup: float, loss: float, size: int, *, breaches: tuple[str, ...] = ()) -> Trial:
    return Trial(
        recipe=recipe,
        state="timed",
        breaches=breaches,
        size_bytes=size,
        quality=quality(loss),
        measurement=measurement(speedup, size),
    )


class Bench:
    """A laboratory whose candidates are written down: loss, speedup, size; each step takes its time on the clock."""

    def __init__(self, clock: FakeClock, candidates: dict[str, tuple[float, float, int]]) -> None:
        self.clock, self.candidates, self.did = clock, candidates, []
        self.judge_s, self.time_s = 2.0, 5.0

    def judge(self, recipe: Recipe) -> Trial:
        self.clock.advance(self.judge_s)
        name = recipe.steps[0].name
        self.did.append(f"judge {name}")
        if name == "broken":
            raise EngineError("The engine fell over.", hint="Stand it up.")
        loss, _, size = self.candidates[name]
        parity = Parity(n=9, cosine_min=1 - loss, cosine_p1=1 - loss, cosine_mean=1 - loss, largest_difference=0.1)
        found = None if loss > 0.8 else quality(loss)
        return Trial(recipe=str(recipe), state="judged", size_bytes=size, parity=parity, quality=found)

    def time(self, trial: Trial) -> Trial:
        self.clock.advance(self.time_s)
        name = Recipe.parse(trial.recipe).steps[0].name
        self.did.append(f"time {name}")
        if name == "crashes":
            raise EngineError("The engine crashed with signal 11.", hint="Try another.")
        _, speedup, size = self.candidates[name]
        return replace(trial, state="timed", measurement=measurement(speedup, size))


CANDIDATES = {
    "good": (0.002, 2.5, 24),
    "small": (0.004, 2.4, 18),
    "slow": (0.001, 0.9, 24),
    "lossy": (0.2, 3.0, 10),
    "huge": (0.0, 1.0, 90),
    "wrong": (0.9, 3.0, 10),
    "crashes": (0.001, 2.0, 24),
}


@pytest.fixture
def explore() -> Callable[..., tuple[Explorer, Bench]]:
    def run(
        others: list[str], *, budget: str = "speedup>=1.8x, size<=30B, loss<=1%", seconds: float = 1000.0
    ) -> tuple[Explorer, Bench]:
        clock = FakeClock()
        bench = Bench(clock, CANDIDATES)
        explorer = Explorer(
            budget=Budget.parse(budget), laboratory=bench, watcher=Unwatched(), clock=clock, deadline=seconds
        )
        explorer.explore((Recipe.parse("good"),), tuple(map(Recipe.parse, others)))
        return explorer, bench

    return run


def states(explorer: Explorer) -> dict[str, str]:
    return {Recipe.parse(trial.recipe).steps[0].name: trial.state for trial in explorer.trials.values()}


def test_the_opener_is_timed_before_anything_else(explore: Callable[..., tuple[Explorer, Bench]]) -> None:
    explorer, bench = explore(["small", "slow"])
    assert bench.did[:2] == ["judge good", "time good"]
    assert explorer.first_feasible_s == 7.0


def test_cheap_questions_come_before_dear_ones(explore: Callable[..., tuple[Explorer, Bench]]) -> None:
    explorer, bench = explore(["lossy", "huge", "wrong", "broken", "small", "slow", "crashes"])
    assert states(explorer) == {
        "good": "timed",
        "small": "timed",
        "slow": "timed",
        "lossy": "rejected",
        "huge": "rejected",
        "wrong": "rejected",
        "broken": "failed",
        "crashes": "failed",
    }
    assert {"time lossy", "time huge", "time wrong"}.isdisjoint(bench.did)
    reasons = {Recipe.parse(trial.recipe).steps[0].name: trial.reason for trial in explorer.trials.values()}
    assert "size is" in str(reasons["huge"]) and "loss is 20.00%" in str(reasons["lossy"])
    assert "mean cosine of 0.100" in str(reasons["wrong"])
    assert "signal 11" in str(reasons["crashes"])


def test_a_timed_trial_that_misses_the_budget_says_by_what(explore: Callable[..., tuple[Explorer, Bench]]) -> None:
    explorer, _ = explore(["slow"])
    slow = explorer.trials["slow -> onnxruntime"]
    assert slow.breaches == ("speedup is 0.90x; the limit is speedup >= 1.80x",)
    assert [trial.recipe for trial in frontier.ranked(explorer.trials.values())] == ["good -> onnxruntime"]


@pytest.mark.parametrize("seconds", [8.0, 15.0, 30.0])
def test_the_time_limit_holds(explore: Callable[..., tuple[Explorer, Bench]], seconds: float) -> None:
    explorer, bench = explore(["small", "slow", "lossy", "huge", "crashes"] * 3, seconds=seconds)
    assert bench.clock() <= seconds * 1.1
    assert explorer.trials


def test_an_interruption_keeps_what_was_found(
    explore: Callable[..., tuple[Explorer, Bench]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Bench.judge

    def interrupted(self: Bench, recipe: Recipe) -> Trial:
        if recipe.steps[0].name == "slow":
            raise KeyboardInterrupt
        return judged(self, recipe)

    monkeypatch.setattr(Bench, "judge", interrupted)
    explorer, _ = explore(["small", "slow", "lossy"])
    assert explorer.interrupted
    assert set(states(explorer)) == {"good", "small"}


def test_the_frontier_holds_what_nothing_beats() -> None:
    trials = [
        timed("a", 2.5, 0.002, 24),
        timed("b", 2.4, 0.004, 18),
        timed("c", 2.0, 0.005, 24),
        timed("d", 1.5, 0.001, 24),
    ]
    assert [trial.recipe for trial in frontier.frontier(trials)] == ["a", "b", "d"]


def test_among_the_equally_fast_the_smallest_is_chosen() -> None:
    trials = [timed("a", 2.5, 0.002, 24), timed("b", 2.45, 0.004, 18), timed("c", 1.9, 0.001, 10)]
    assert [trial.recipe for trial in frontier.ranked(trials)] == ["b", "a", "c"]
    assert frontier.ranked([timed("a", 2.5, 0.002, 24, breaches=("too large",))]) == ()


def test_the_nearest_is_the_one_that_misses_by_least() -> None:
    budget = Budget.parse("speedup>=4x, loss<=1%")
    found = frontier.nearest(
        [timed("a", 2.5, 0.002, 24), timed("b", 3.5, 0.009, 24), timed("c", 3.9, 0.05, 24)], budget
    )
    assert found is not None and found.recipe == "b"


BASELINE = timed("original", 1.0, 0.0, 90)


def test_a_target_limits_memory_where_the_budget_does_not() -> None:
    device = target.load("raspberry-pi-4")
    assert str(complete(Budget.parse("size<=30MB"), device)) == "size <= 30 MB, loss <= 1 %, memory <= 4 GB"
    own = Budget.parse("memory<=120MB, loss<=2%")
    assert complete(own, device) == own == complete(own)
    assert str(complete(Budget.parse(""))) == "loss <= 1 %"
    hungry = measurement(2.5, 24, memory=5_000_000_000)
    (breach,) = complete(Budget.parse("loss<=9%"), device).judge(hungry, Interval(value=0, low=0, high=0, n=1)).breaches
    assert str(breach) == "memory is 5 GB; the limit is memory <= 4 GB"


def test_more_threads_than_the_target_has_cores_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="has 4 cores; 8 threads") as caught:
        device_of(Settings(target="raspberry-pi-4", threads=8))
    assert caught.value.hint
    assert device_of(Settings(target="raspberry-pi-4", threads=4)) == target.load("raspberry-pi-4")
    assert device_of(Settings(threads=8)) is None


def test_the_gate_lets_through_what_is_smaller_and_confirmed() -> None:
    assert acceptance.objections(timed("a", 2.5, 0.002, 24), BASELINE, Budget.parse("loss<=1%"), quality(0.002)) == ()


@pytest.mark.parametrize(
    ("trial", "report", "word"),
    [
        (timed("a", 1.02, 0.002, 90), quality(0.002), "neither smaller nor faster"),
        (timed("a", 2.5, 0.002, 24), quality(0.009, high=0.011), "crosses the limit"),
        (timed("a", 2.5, 0.002, 24), quality(0.009, high=float("nan")), "crosses the limit"),
        (timed("a", 2.5, 0.002, 24), None, "not confirmed"),
        (timed("a", 2.5, 0.002, 24, breaches=("speedup is low",)), quality(0.002), "speedup is low"),
    ],
)
def test_the_gate_says_why_not(trial: Trial, report: Quality | None, word: str) -> None:
    objections = acceptance.objections(trial, BASELINE, Budget.parse("loss<=1%"), report)
    assert len(objections) == 1 and word in objections[0]
