"""A version on trial: verified, mirrored, promoted, or taken back by itself for what is wrong with it."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.device.model import open_bundle
from tightrope.device.serve import evidence, rollout
from tightrope.device.serve.adapt import Choice, measure
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.evidence import Evidence, Pair, chosen, stage
from tightrope.device.serve.journal import Journal
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.sequential import Expected
from tightrope.device.serve.service import Service
from tightrope.errors import EngineError, ServeError

NOUNS = ("cat", "dog", "sat", "mat", "hat")
WORDS = [f"{first} {second}" for first in ("the", "a", "no", "my", "his") for second in NOUNS]


class Spoilt:
    """A model that is opened and then answers as a test wants it: wrong, late, or not at all."""

    def __init__(self, model: Any, spoil: Callable[[Any], Any], served: "Served") -> None:
        self._model, self._spoil, self._served = model, spoil, served

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def close(self) -> None:
        self._model.close()
        self._served.opened.remove(self._model.bundle.digest)

    def answer(self, encoded: Any) -> Any:
        rows = self._model.answer(encoded)
        return self._spoil(rows) if self._served.spoils else rows


def without_memory(model: Any, limits: Limits) -> Choice:
    """What is measured, but for the memory of batches, which differs from time to time."""
    return replace(measure(model, limits), batch_bytes=0)


class Served:
    """A catalogue over a folder of its own, whose candidates can be spoilt by their digest."""

    def __init__(self, folder: Path, *, budget: int | None = None) -> None:
        self.folder, self.spoilt, self.spoils = folder, {}, False
        self.metrics, self.limits = Metrics(), Limits()
        self.fat = ""
        """The digest of a version that takes 2 MB more than its bundle says."""
        self.opened: list[str] = []
        self.ledger = Ledger(budget, resident=lambda: 1_000 + 2_000_000 * self.opened.count(self.fat))

    def __enter__(self) -> "Served":
        self._stack = ExitStack()
        self.service = self._stack.enter_context(Service(self.ledger, self.metrics, self.limits, choose=without_memory))
        given = self.folder / "tiny.bundle", self.service, self.ledger, self.metrics, self.limits
        self.catalogue = self._stack.enter_context(
            Catalogue.open(*given, state=self.folder / "state", open_model=self._open)
        )
        return self

    def __exit__(self, *given: object) -> None:
        self._stack.__exit__(*given)

    def _open(self, source: Bundle) -> Any:
        spoil = self.spoilt.get(source.digest)
        model: Any = open_bundle(source)
        self.opened.append(source.digest)
        return type("Spoilt", (Spoilt, type(model)), {})(model, spoil or (lambda rows: rows), self)

    def ask(self, count: int, *, start: int = 0) -> list[str]:
        """So many requests, each another one; the version that answered each."""
        texts = (f"{WORDS[number % 25]} {WORDS[number // 25 % 25]} {number}" for number in range(start, start + count))
        return [self.catalogue.answer(None, [text]).result(10).version for text in texts]

    def until(self, state: str, *, asking: bool = True, seconds: float = 20.0) -> dict[str, Any]:
        """Ask until a version is in this state; gives what is known of that."""
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            versions = self.catalogue.about().to_json()["versions"]
            found = [item for item in versions if item["state"] == state]
            if found:
                return found[-1]
            number += 1
            self.ask(1 if asking else 0, start=number)
            time.sleep(0.002)
        raise AssertionError(f"not {state} in {seconds} s: {versions}")


@pytest.fixture
def served(tmp_path: Path, native_bundle: Callable[..., Bundle]) -> Iterator[Served]:
    native_bundle(tmp_path / "tiny.bundle")
    with Served(tmp_path) as found:
        yield found


@pytest.fixture
def better(tmp_path: Path, native_bundle: Callable[..., Bundle]) -> Bundle:
    """Another version that answers nearly the same."""
    return native_bundle(tmp_path / "better.bundle", noise=0.002)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a test's length, and no say for the clock of a shared machine unless a test wants that."""
    monkeypatch.setattr(evidence, "PAIRS", 60)
    monkeypatch.setattr(rollout, "KEPT_EVERY", 10)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times do not count: this machine is shared, and a tiny model's time is all noise."""
    real = evidence.Evidence.saw
    monkeypatch.setattr(
        evidence.Evidence, "saw", lambda self, pair: real(self, replace(pair, candidate_s=1.0, current_s=1.0))
    )


def test_a_good_version_goes_from_shadow_to_canary_to_current(served: Served, better: Bundle, patient: None) -> None:
    old = served.catalogue.about().current
    deployed = served.catalogue.deploy("tiny", better.path, shadow=True, canary=0.5)
    assert [item.state for item in deployed.versions] == ["current", "shadow"]
    assert set(served.ask(20)) == {old}, "in the shadow nobody gets its answers"
    served.until("canary")
    assert len(set(served.ask(40, start=1000))) == 2
    new = served.until("retired")
    assert new["version"] == old
    assert served.catalogue.about().digest == better.digest
    assert set(served.ask(5, start=2000)) == {better.digest[:12]}


def test_without_a_trial_a_verified_version_is_current_at_once(served: Served, better: Bundle) -> None:
    changes: list[tuple[str, str]] = []
    served.catalogue.on_change(lambda name, digest: changes.append((name, digest)))
    assert served.catalogue.deploy("tiny", better.path, version="2").current == "2"
    assert changes == [("tiny", better.digest)]
    assert served.ask(3) == ["2"] * 3
    with pytest.raises(ServeError, match="answers with"):
        served.catalogue.deploy("tiny", better.path)


def wrong(rows: Any) -> Any:
    return -rows


def slow(rows: Any) -> Any:
    time.sleep(0.002)
    return rows


def crashing(rows: Any) -> Any:
    if random.random() < 0.4:
        raise EngineError("The engine gave up.", hint="Nobody knows.")
    return rows


@pytest.mark.parametrize(("spoil", "reason"), [(wrong, "agreement"), (slow, "latency"), (crashing, "errors")])
@pytest.mark.parametrize("how", [{"shadow": True}, {"canary": 0.5}])
def test_a_worse_version_is_taken_back_by_itself_and_no_request_fails(
    served: Served, better: Bundle, spoil: Any, reason: str, how: dict[str, Any]
) -> None:
    served.spoilt[better.digest] = spoil
    served.catalogue.deploy("tiny", better.path, **how)
    served.spoils = True
    gone = served.until("rolled_back")
    assert gone["reason"] == reason
    assert served.metrics.rollbacks.total(reason=reason) == 1
    assert served.catalogue.about().current != better.digest[:12]
    with pytest.raises(ServeError, match=f"was taken back before \\({reason}\\)"):
        served.catalogue.deploy("tiny", better.path, **how)


def test_a_version_that_takes_more_memory_than_it_said_is_taken_back(tmp_path, native_bundle, better, patient) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with Served(tmp_path, budget=1_000_000) as served:
        served.catalogue.deploy("tiny", better.path, shadow=True)
        served.fat = better.digest
        assert served.until("rolled_back")["reason"] == "memory"
        assert served.ledger.check() == 0
        with pytest.raises(ServeError, match="more than the memory budget leaves"):  # and one that is so from the start
            served.fat = native_bundle(tmp_path / "fat.bundle", noise=0.001).digest
            served.catalogue.deploy("tiny", tmp_path / "fat.bundle")
        assert len(served.ask(3)) == 3


def test_a_version_that_does_not_answer_its_own_texts_is_refused(served: Served, native_bundle, tmp_path: Path) -> None:
    liar = native_bundle(tmp_path / "liar.bundle", noise=0.001, claim=lambda rows: np.roll(rows, 1, axis=0))
    before = served.ask(3)
    with pytest.raises(ServeError, match="does not answer as its bundle records"):
        served.catalogue.deploy("tiny", liar.path, shadow=True)
    assert served.ask(3) == before
    with pytest.raises(ServeError, match="was taken back before"):
        served.catalogue.deploy("tiny", liar.path)
    assert not list((tmp_path / "state" / "models" / "tiny").iterdir()), "its copy went with it"


def test_who_says_to_be_of_the_same_model_must_agree_with_it(served: Served, native_bundle, tmp_path: Path) -> None:
    vain = native_bundle(tmp_path / "vain.bundle", noise=1.0, vain=True)
    with pytest.raises(ServeError, match=r"by their records it is 1\.0"):
        served.catalogue.deploy("tiny", vain.path, shadow=True)
    honest = native_bundle(tmp_path / "honest.bundle", noise=1.0)
    assert served.catalogue.deploy("tiny", honest.path, shadow=True).versions[1].state == "shadow"


def test_a_model_of_another_kind_is_for_its_owner_to_promote(served: Served, native_bundle, tmp_path: Path) -> None:
    alien = native_bundle(tmp_path / "alien.bundle", origin="1" * 64, noise=20.0, seed=5)
    tried = served.catalogue.deploy("tiny", alien.path, canary=0.5)
    assert tried.versions[1].evidence["expected_agreement"] is None
    served.ask(150)
    assert served.catalogue.about().current != alien.digest[:12]
    assert served.catalogue.promote("tiny").digest == alien.digest


def test_a_trial_goes_on_after_a_restart_with_what_was_seen(tmp_path, native_bundle, better, patient) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with Served(tmp_path) as served:
        served.catalogue.deploy("tiny", better.path, shadow=True)
        while (seen := served.catalogue.about().versions[-1].evidence["pairs"]) < 20:
            served.ask(5, start=seen * 10)
    for _ in range(3):  # and however often that happens, it neither comes nor goes by that
        with Served(tmp_path) as served:
            found = served.until("shadow", asking=False)
            assert seen <= found["evidence"]["pairs"] < 60
            assert served.catalogue.about().current != better.digest[:12]
    with Served(tmp_path) as served:
        served.until("retired")
        assert served.catalogue.about().digest == better.digest


def test_evidence_that_another_version_of_the_program_wrote_is_gathered_anew(tmp_path, native_bundle, better) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with Served(tmp_path) as served:
        version = served.catalogue.deploy("tiny", better.path, shadow=True).versions[1].version
    with Journal(tmp_path / "state" / "journal") as journal:
        journal.append({"op": "evidence", "name": "tiny", "version": version, "evidence": {"of": "another kind"}})
    with Served(tmp_path) as served:
        assert served.until("shadow", asking=False)["evidence"]["pairs"] == 0


def test_the_owner_can_promote_and_go_back(served: Served, better: Bundle) -> None:
    old = served.catalogue.about()
    served.catalogue.deploy("tiny", better.path, shadow=True)
    assert served.catalogue.promote("tiny").digest == better.digest
    with pytest.raises(ServeError, match="no version on trial"):
        served.catalogue.promote("tiny")
    assert served.catalogue.rollback("tiny").digest == old.digest
    assert served.ask(2) == [old.current] * 2
    with pytest.raises(ServeError, match="no version to go back to"):
        served.catalogue.rollback("tiny")
    with pytest.raises(ServeError, match=r"taken back before \(asked\)"):
        served.catalogue.deploy("tiny", better.path)
    assert served.catalogue.deploy("tiny", better.path, force=True).digest == better.digest


def test_what_was_taken_back_is_remembered_after_a_restart(tmp_path, native_bundle, better) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with Served(tmp_path) as served:
        served.catalogue.deploy("tiny", better.path, shadow=True)
        served.catalogue.rollback("tiny")
    for _ in range(3):
        with Served(tmp_path) as served, pytest.raises(ServeError, match="taken back before"):
            served.catalogue.deploy("tiny", better.path)


def test_a_process_that_dies_again_and_again_with_a_version_takes_it_back(tmp_path, native_bundle, better) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with Served(tmp_path) as served:
        served.catalogue.deploy("tiny", better.path, shadow=True)
        store = served.catalogue._store
        facts = [{"op": "resumed", "name": "tiny", "boot": rollout.boot_id()}] * evidence.DEATHS
        served.catalogue.close()
    with Served(tmp_path) as served:  # as if it had not been closed so many times
        served.catalogue._store.record(*facts)
        store = served.catalogue._store
        assert store.releases.models["tiny"].trial.deaths == evidence.DEATHS
        store._journal.append({"op": "nothing"})
        served.catalogue._rollout._running.clear()  # no clean end
    with Served(tmp_path) as served:
        assert served.until("rolled_back", asking=False)["reason"] == "errors"


def test_the_stage_follows_from_what_was_seen() -> None:
    begun = Evidence.begin(Expected(mean=0.99, error=0.001, n=16))
    half, full = replace(begun, pairs=30), replace(begun, pairs=60)
    assert stage(begun, shadow=True, canary=0.1) == "shadow"
    assert stage(half, shadow=True, canary=0.1) == "canary"
    assert stage(half, shadow=True, canary=0.0) == "shadow"
    assert stage(full, shadow=True, canary=0.0) == "current"
    assert stage(full, shadow=True, canary=0.1) == "canary", "it has not answered enough for real"
    assert stage(replace(full, answered=evidence.CANARY_ANSWERS), shadow=True, canary=0.1) == "current"
    alien = replace(Evidence.begin(None), pairs=1000, answered=1000)
    assert stage(alien, shadow=True, canary=0.1) == "canary", "another model is for its owner to promote"


def test_evidence_is_written_and_read_back() -> None:
    seen = Evidence.begin(Expected(mean=0.99, error=0.001, n=16))
    for index in range(9):
        seen = seen.saw(Pair(agreement=0.99, candidate_s=0.01, current_s=0.011)).saw_answer()
        seen = seen.saw_failure() if index == 4 else seen
    assert Evidence.from_json(seen.to_json()) == seen
    alien = Evidence.begin(None).saw(Pair(agreement=None, candidate_s=0.01, current_s=0.01))
    assert Evidence.from_json(alien.to_json()) == alien


def test_the_canary_gets_its_share_and_always_the_same_requests() -> None:
    texts = [[f"text {number}"] for number in range(4000)]
    once = [chosen(text, 0.1, "digest") for text in texts]
    assert once == [chosen(text, 0.1, "digest") for text in texts]
    assert 0.08 < sum(once) / len(once) < 0.12
    assert once != [chosen(text, 0.1, "another") for text in texts]
    assert not any(chosen(text, 0.0, "digest") for text in texts)
    assert chosen([("a", "b")], 0.999999, "x") in (True, False)
