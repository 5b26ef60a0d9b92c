"""The mirror: what counts as a pair, what as a failure, what as nothing, and whose time a time is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tightrope.device.serve import mirror
from tightrope.device.serve.evidence import Pair
from tightrope.device.serve.mirror import Mirror, Sample
from tightrope.device.serve.releases import Release
from tightrope.device.serve.service import Answer
from tightrope.errors import BundleError, DataError, RefusedError

OLD, NEW = (Release(name="m", version=version, digest=version, path="/x") for version in ("1", "2"))


class World:
    """Two versions that answer, fail, or do not fit, as a test says; stands for the service and the loader."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {"1": [1.0, 0.0], "2": [0.6, 0.8]}
        self.opens: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.quiet = float("inf")

    @contextmanager
    def using(self, release: Release, **_: object) -> Iterator[Any]:
        if release.version in self.opens:
            raise self.opens[release.version]
        task = {"name": "embedding"}
        yield release.version, SimpleNamespace(content=SimpleNamespace(task=task))

    def quiet_s(self, lane: str) -> float:
        return self.quiet

    def ask(self, service: object, release: Release, model: object, sample: Sample, **_: object) -> Answer:
        self.asked.append(release.version)
        said = self.says[release.version]
        if isinstance(said, Exception):
            raise said
        rows = np.array([said] * len(sample.inputs), np.float32)
        return Answer(rows=rows, tokens=1, truncated=0, queued_s=0.0, computed_s=0.0, batch_texts=1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(mirror, "ask", made.ask)
    return made


@pytest.fixture
def mirrored(world: World) -> Mirror:
    return Mirror(world, world, OLD, NEW)  # type: ignore[arg-type]


def refused(reason: str) -> RefusedError:
    return RefusedError("No.", hint="Later.", reason=reason)


def test_both_are_asked_and_the_first_one_changes(world: World, mirrored: Mirror) -> None:
    for number in range(4):
        (pair,) = mirrored.show(Sample(inputs=(f"text {number}", "b")))
        assert isinstance(pair, Pair) and pair.agreement == pytest.approx(0.6)
    assert world.asked == ["2", "1", "1", "2", "2", "1", "1", "2"]


def test_the_same_request_again_says_nothing_new(world: World, mirrored: Mirror) -> None:
    assert len(mirrored.show(Sample(inputs=("a",)))) == 1
    assert mirrored.show(Sample(inputs=("a",))) == []
    assert len(mirrored.show(Sample(inputs=("a",), prompt="query"))) == 1
    assert len(world.asked) == 4


@pytest.mark.parametrize("number", [0, 1], ids=["asked first", "asked second"])
@pytest.mark.parametrize("error", [refused("failed"), DataError("No such prompt.", hint="None.")])
def test_what_only_the_candidate_fails_is_a_failure(world: World, mirrored: Mirror, number: int, error: Any) -> None:
    for before in range(number):
        mirrored.show(Sample(inputs=(f"before {before}",)))
    world.says["2"] = error
    assert mirrored.show(Sample(inputs=("a",))) == [None]


@pytest.mark.parametrize("reason", ["overloaded", "deadline", "unavailable", "cancelled"])
def test_a_refusal_that_is_not_the_candidates_fault_says_nothing(world: World, mirrored: Mirror, reason: str) -> None:
    for number in range(2):
        world.says["2"] = refused(reason)
        assert mirrored.show(Sample(inputs=(f"text {number}",))) == []


@pytest.mark.parametrize("error", [refused("failed"), refused("overloaded"), DataError("No.", hint="No.")])
def test_what_the_current_version_fails_is_no_evidence_against_the_candidate(world, mirrored, error) -> None:
    world.says = {"1": error, "2": error}
    for number in range(2):
        assert mirrored.show(Sample(inputs=(f"text {number}",))) == []
    world.opens["1"] = BundleError("Gone.", hint="Fetch it.")
    assert mirrored.show(Sample(inputs=("other",))) == []


def test_a_candidate_that_does_not_open_any_more_fails(world: World, mirrored: Mirror) -> None:
    world.opens["2"] = BundleError("Changed.", hint="Fetch it.")
    assert mirrored.show(Sample(inputs=("a",))) == [None]


def test_answers_of_another_shape_are_not_compared(world: World, mirrored: Mirror) -> None:
    world.says["2"] = [1.0, 0.0, 0.0]
    (pair,) = mirrored.show(Sample(inputs=("a",)))
    assert isinstance(pair, Pair) and pair.agreement is None


def test_without_room_for_both_the_candidate_answers_later_what_has_gathered(world: World, mirrored: Mirror) -> None:
    world.opens["2"] = refused("memory")
    for number in range(3):
        assert mirrored.show(Sample(inputs=(f"text {number}",))) == []
    assert mirrored.in_turns and mirrored.waiting == 3 and world.asked == ["1"] * 3
    world.quiet, world.opens = 0.1, {}
    assert mirrored.catch_up() == [], "somebody has just asked for the current version"
    world.quiet = 10.0
    assert len(mirrored.catch_up()) == 3 and mirrored.waiting == 0
    assert world.asked == ["1"] * 3 + ["2"] * 3


def test_of_a_large_request_only_the_first_texts_are_mirrored() -> None:
    sample = Sample.of([str(number) for number in range(100)], None)
    assert sample is not None and sample.inputs == ("0", "1", "2", "3")
    assert Sample.of(["a" * 20_001], None) is None, "it would have to be kept for a while"
    assert Sample.of([("a" * 10_000, "b" * 10_001)], None) is None


def test_the_time_of_a_thread_that_did_not_wait_is_its_own() -> None:
    def computes(encoded: object) -> Any:
        end = time.thread_time() + 0.003
        while time.thread_time() < end:
            pass
        return None

    def sleeps(encoded: object) -> Any:
        time.sleep(0.003)
        return None

    for answer in (computes, sleeps):
        timed = mirror._Timed(SimpleNamespace(answer=answer))  # type: ignore[arg-type]
        timed.answer(None)  # type: ignore[arg-type]
        assert timed.seconds >= 0.003
