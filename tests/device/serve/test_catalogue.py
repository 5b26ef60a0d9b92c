"""The catalogue: names, versions, memory and readiness, over small real bundles in the native engine."""

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.model import open_bundle
from tightrope.device.serve import readiness
from tightrope.device.serve.adapt import Choice, measure
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.inventory import find
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.loader import footprint_bytes
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.service import Service
from tightrope.errors import BundleError, RefusedError, ServeError, TightropeError
from tightrope.testing import FakeClock

Make = Callable[..., Bundle]


def without_memory(model: Any, limits: Limits) -> Choice:
    """What is measured, but for the memory of batches, which differs from time to time."""
    return replace(measure(model, limits), batch_bytes=0)


@contextmanager
def served(path: Path, *, models: float | None = None, process: int = 1_000_000, **given: Any) -> Iterator[Catalogue]:
    """A catalogue with room for so many `models` of the tiny kind, and a little more for batches."""
    one = footprint_bytes(bundle.read(next(path.rglob("manifest.json")).parent))
    budget = None if models is None else process + int(models * one)
    ledger, metrics, limits = Ledger(budget, resident=lambda: process), Metrics(), Limits(cache_bytes=0)
    with Service(ledger, metrics, limits, choose=without_memory) as service:
        with Catalogue.open(path, service, ledger, metrics, limits, **given) as catalogue:
            catalogue.ledger, catalogue.service, catalogue.metrics = ledger, service, metrics  # for the tests to see
            yield catalogue
        assert not service.lanes()
    assert ledger.usage() == {"process": ledger.usage()["process"]}, "everything was given back"


@pytest.fixture
def folder(tmp_path: Path, native_bundle: Make) -> Path:
    """models/ with three models, one of which has three versions."""
    for number, name in enumerate(("faq", "minilm", "search")):
        native_bundle(tmp_path / "models" / name / "1.bundle", noise=0.001, seed=number + 10)
    for version in ("9", "10"):
        native_bundle(tmp_path / "models" / "minilm" / f"{version}.bundle", noise=0.001, seed=int(version))
    return tmp_path / "models"


def rows(catalogue: Catalogue, *given: Any, **named: Any) -> Any:
    return catalogue.answer(*given, **named).result(10).answer.rows


# Names and versions -----------------------------------------------------------------------------------------


def test_a_folder_is_served_by_name_and_the_newest_version_answers(folder: Path) -> None:
    with served(folder) as catalogue:
        assert [(model.name, model.current) for model in catalogue.models()] == [
            *(("faq", "1"), ("minilm", "10"), ("search", "1"))
        ]
        answer = catalogue.answer("minilm", ["the cat"]).result(10)
        with open_bundle(folder / "minilm" / "10.bundle") as model:
            assert np.array_equal(answer.answer.rows, model.embed(["the cat"]))
        assert (answer.name, answer.version, answer.digest) == ("minilm", "10", model.bundle.digest)
        older = catalogue.answer("minilm", ["the cat"], version="9").result(10)
        assert older.version == "9" and not np.array_equal(older.answer.rows, answer.answer.rows)
        with catalogue.opened("faq") as opened:
            assert opened.width == 32


def test_one_bundle_needs_no_name(tmp_path: Path, native_bundle: Make) -> None:
    made = native_bundle(tmp_path / "tiny.bundle")
    with served(tmp_path / "tiny.bundle") as catalogue:
        assert np.array_equal(rows(catalogue, None, ["cat"]), rows(catalogue, "tiny", ["cat"]))
        assert catalogue.about().digest == made.digest
        assert catalogue.about().to_json()["task"] == {"name": "embedding", "width": 32}


HOSTILE = [
    *("", ".", "..", "../minilm", "../../etc/passwd", "minilm/", "minilm/1", "minilm/../faq", "%2e%2e", "minilm%00"),
    *("minilm\0", "/etc/passwd", "C:\\x", "con", "NUL.bundle", "MINILM", "a" * 4096, "\ud800", "１", "minilm\n"),
]


def test_no_name_from_outside_ever_reaches_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the disk was touched")

    with served(folder) as catalogue, monkeypatch.context() as patched:
        for function in ("open", "stat", "scandir", "listdir", "readlink", "lstat"):
            patched.setattr(f"os.{function}", touched)
        for name, asking in itertools.product(HOSTILE, ("answer", "version", "about", "unload", "promote", "rollback")):
            with pytest.raises(RefusedError) as refused:
                if asking == "version":
                    catalogue.answer("minilm", ["cat"], version=name)
                else:
                    getattr(catalogue, asking)(name, *([["cat"]] if asking == "answer" else []))
            assert refused.value.reason == "unknown_model"
            assert len(str(refused.value)) < 300 and str(refused.value).isascii()


def test_nothing_is_deployed_under_a_name_that_is_none(folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with served(folder, state=tmp_path / "state") as catalogue:
        for name in set(HOSTILE) - {"MINILM"}:
            for given in ({"name": name}, {"name": "minilm", "version": name or "."}):
                with pytest.raises(RefusedError, match="cannot name a"):
                    catalogue.deploy(path=folder / "faq" / "1.bundle", **given)
        assert not (tmp_path / "state" / "models").exists()
    assert [item for item in sorted(tmp_path.rglob("*")) if "state" not in item.parts] == before


def test_folders_that_are_no_models_are_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "bad name").mkdir()
    shutil.copytree(folder / "faq" / "1.bundle", folder / "bad name" / "1.bundle")
    (folder / "faq" / "2.bundle").mkdir()
    (folder / "faq" / "notes.txt").write_text("no bundle")
    assert {name: len(found) for name, found in find(folder).items()} == {"faq": 1, "minilm": 3, "search": 1}
    assert find(folder / "empty") == {}
    with pytest.raises(ServeError, match="There is no bundle in"):
        find(folder / "bad name")


# Memory -----------------------------------------------------------------------------------------------------


def test_models_that_do_not_fit_together_take_turns_by_least_recent_use(folder: Path) -> None:
    with served(folder, models=2.5) as catalogue:

        def loaded() -> set[str]:
            return {lane.partition("@")[0] for lane in catalogue._loader.loaded()}

        assert loaded() == {"faq", "minilm"}
        expected = {name: rows(catalogue, name, ["the cat"]) for name in ("faq", "minilm", "search")}
        assert loaded() == {"minilm", "search"}
        for name in ("faq", "search", "minilm", "faq"):
            assert np.array_equal(rows(catalogue, name, ["the cat"]), expected[name])
            assert name in loaded() and len(loaded()) <= 2
        assert catalogue.about("search").versions[0].state == "idle"


def test_a_hundred_requests_for_models_that_take_turns_are_all_answered(folder: Path) -> None:
    with served(folder, models=1.5) as catalogue:
        names = ("faq", "minilm", "search")
        futures = [catalogue.answer(names[number % 3], [f"the cat {number % 7}"]) for number in range(100)]
        assert [future.result(30).name for future in futures] == [names[number % 3] for number in range(100)]


def test_unloading_gives_back_what_was_reserved(folder: Path) -> None:
    with served(folder) as catalogue:
        before = catalogue.ledger.usage()
        assert before["model:minilm@10"] > 0
        catalogue.unload("minilm")
        assert "model:minilm@10" not in catalogue.ledger.usage()
        assert catalogue.about("minilm").versions[-1].loaded_bytes == 0
        rows(catalogue, "minilm", ["cat"])
        assert catalogue.ledger.usage() == before


def test_loads_and_unloads_leave_nothing_behind(tmp_path: Path, native_bundle: Make) -> None:
    """The engine's own memory is measured in the benchmark; here: reservations, lanes, threads and files."""
    native_bundle(tmp_path / "tiny.bundle")
    with served(tmp_path / "tiny.bundle") as catalogue:
        rows(catalogue, None, ["cat"])
        before = (catalogue.ledger.usage(), threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))
        for _ in range(50):
            catalogue.unload("tiny")
            rows(catalogue, None, ["cat"])
        after = (catalogue.ledger.usage(), threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))
        assert after[0] == before[0]
        assert after[1] <= before[1] + 1 and after[2] <= before[2] + 2


def test_a_model_larger_than_the_budget_is_refused_with_the_numbers_and_the_rest_goes_on(folder, tmp_path) -> None:
    with served(folder, models=1.5, state=tmp_path / "state") as catalogue:
        catalogue.ledger.budget_bytes, kept = 1_050_000, catalogue.ledger.budget_bytes
        with pytest.raises(RefusedError, match=r"model:new@\w+ needs 88.9 kB; the budget is 1.05 MB") as refused:
            catalogue.deploy("new", folder / "search" / "1.bundle")
        assert refused.value.reason == "memory" and refused.value.retry_after_s is None
        assert not (tmp_path / "state" / "models").exists(), "it was not even copied"
        catalogue.ledger.budget_bytes = kept
        assert rows(catalogue, "faq", ["cat"]).shape == (1, 32)
        assert [model.name for model in catalogue.models()] == ["faq", "minilm", "search"]


def test_at_the_start_a_single_model_larger_than_the_budget_is_refused_with_the_numbers(
    tmp_path, native_bundle
) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with (
        pytest.raises(RefusedError, match=r"needs 8\d\.\d kB; the budget is 1\.04 MB"),
        served(tmp_path / "tiny.bundle", models=0.5),
    ):
        raise AssertionError("it must not start")


def test_a_trial_of_versions_that_do_not_fit_together_is_done_in_turns(tmp_path, native_bundle, monkeypatch) -> None:
    """Users' requests are answered all along; the candidate answers what has gathered when nobody asks."""
    monkeypatch.setattr("tightrope.device.serve.mirror.QUIET_S", 0.05)
    monkeypatch.setattr("tightrope.device.serve.loader.QUIET_S", 0.05)
    monkeypatch.setattr("tightrope.device.serve.evidence.PAIRS", 12)
    monkeypatch.setattr("tightrope.device.serve.sequential.latency_excess", lambda *_: 0.0)
    native_bundle(tmp_path / "tiny.bundle")
    better = native_bundle(tmp_path / "better.bundle", noise=0.001)
    with served(tmp_path / "tiny.bundle", models=1.5, state=tmp_path / "state") as catalogue:
        catalogue.deploy("tiny", better.path, shadow=True, canary=0.5)
        end, number = time.monotonic() + 20, 0
        while catalogue.about().digest != better.digest and time.monotonic() < end:
            answered = {catalogue.answer(None, [f"the cat {'sat ' * number}"]).result(10).digest for _ in range(3)}
            assert len(catalogue._loader.loaded()) == 1
            number += 1
            time.sleep(0.4 if number % 4 == 0 else 0.0)
            assert better.digest not in answered or catalogue.about().digest == better.digest
        assert catalogue.about().digest == better.digest
        assert rows(catalogue, None, ["the cat"]).shape == (1, 32)


# Swapping ---------------------------------------------------------------------------------------------------


def test_no_request_fails_while_versions_are_swapped_again_and_again(tmp_path: Path, native_bundle: Make) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    others = [native_bundle(tmp_path / f"{number}.bundle", noise=0.001, seed=number + 2) for number in range(6)]
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        stop, failed, digests = threading.Event(), [], []

        def ask(number: int) -> None:
            while not stop.is_set():
                try:
                    digests.append(catalogue.answer(None, [f"the cat {number}", "sat"]).result(10).digest)
                except TightropeError as error:
                    failed.append(error)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for made in others:
            catalogue.deploy("tiny", made.path)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert {made.digest for made in others[:-1]} <= set(digests)
        end = time.monotonic() + 5
        while len(catalogue._loader.loaded()) > 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert list(catalogue._loader.loaded()) == [f"tiny@{others[-1].digest[:12]}"]
        copies = {item.name for item in (tmp_path / "state" / "models" / "tiny").iterdir()}
        assert copies == {f"{made.digest[:12]}.bundle" for made in others[-2:]}, "older ones are gone"


def test_a_cancelled_request_is_dropped_wherever_it_is(folder: Path) -> None:
    with served(folder, models=1.5) as catalogue:
        futures = [catalogue.answer(name, ["cat"]) for name in ("search", "faq", "minilm") * 3]
        for future in futures:
            future.cancel()
        for future in futures:
            if future.cancelled():
                with pytest.raises(CancelledError):
                    future.result(10)
        assert rows(catalogue, "search", ["cat"]).shape == (1, 32)


def test_a_request_whose_time_is_over_when_its_model_is_open_is_refused(folder: Path) -> None:
    with served(folder, models=1.5) as catalogue:
        late = catalogue.answer("search", ["cat"], deadline_s=-1.0)
        with pytest.raises(RefusedError) as refused:
            late.result(10)
        assert refused.value.reason == "deadline"


# Damage -----------------------------------------------------------------------------------------------------


def spoilt_ways(size: int) -> Iterator[tuple[str, int]]:
    """Each way to spoil a file, at every block of 4 KiB."""
    for start in range(0, size, 4096):
        for way in ("cut", "zeros", "flip"):
            yield way, start


def spoil(path: Path, way: str, start: int) -> None:
    data = bytearray(path.read_bytes())
    if way == "cut":
        data = data[:start]
    elif way == "zeros":
        block = data[start : start + 4096]
        data[start : start + 4096] = bytes(len(block)) if any(block) else b"\1" * len(block)
    else:
        data[start + (len(data) - start) // 2 % 4096] ^= 0x10
    path.write_bytes(data)


def test_a_bundle_damaged_at_any_block_of_any_file_is_refused_and_the_old_one_goes_on(tmp_path, native_bundle) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    good = native_bundle(tmp_path / "good.bundle", noise=0.001)
    tried = 0
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        before = rows(catalogue, None, ["the cat"])
        for item in sorted(good.path.rglob("*")):
            for way, start in spoilt_ways(item.stat().st_size) if item.is_file() else ():
                bad = tmp_path / "bad.bundle"
                shutil.rmtree(bad, ignore_errors=True)
                shutil.copytree(good.path, bad)
                spoil(bad / item.relative_to(good.path), way, start)
                with pytest.raises(BundleError) as refused:
                    catalogue.deploy("tiny", bad)
                assert len(str(refused.value).splitlines()) == 2
                tried += 1
        assert tried > 60
        assert np.array_equal(rows(catalogue, None, ["the cat"]), before)
        assert [item.state for item in catalogue.about().versions] == ["current"]
        assert catalogue.deploy("tiny", good.path).digest == good.digest, "nothing was remembered against the whole one"


def test_a_current_version_that_was_damaged_meanwhile_gives_way_to_the_one_before(tmp_path, native_bundle) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    good = native_bundle(tmp_path / "good.bundle", noise=0.001)
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        old = catalogue.about().current
        copy = Path(catalogue.deploy("tiny", good.path).versions[-1].path)
    spoil(max(copy.rglob("*.tightrope"), key=lambda item: item.stat().st_size), "flip", 8192)
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        assert catalogue.about().current == old
        assert rows(catalogue, None, ["cat"]).shape == (1, 32)


@pytest.mark.parametrize("what", ["pytorch_model.bin", "model.pkl", "code.py", "files/x.so", "attachments/run.py"])
def test_a_bundle_with_anything_undeclared_is_refused(tmp_path: Path, native_bundle: Make, what: str) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    bad = native_bundle(tmp_path / "bad.bundle", noise=0.001).path
    (bad / what).parent.mkdir(exist_ok=True)
    (bad / what).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        with pytest.raises(BundleError, match="is not declared"):
            catalogue.deploy("tiny", bad)
        assert catalogue.ready().ready


def test_a_bundle_with_a_link_is_refused(tmp_path: Path, native_bundle: Make) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    bad = native_bundle(tmp_path / "bad.bundle", noise=0.001).path
    item = next((bad / "files").glob("*.npy"))
    shutil.move(item, tmp_path / "elsewhere")
    item.symlink_to(tmp_path / "elsewhere")
    with (
        served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue,
        pytest.raises(BundleError, match="is a link"),
    ):
        catalogue.deploy("tiny", bad)


def test_a_journal_that_was_damaged_is_said_and_what_is_whole_of_it_still_holds(tmp_path, native_bundle) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    better = native_bundle(tmp_path / "better.bundle", noise=0.001)
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        catalogue.deploy("tiny", better.path)
    journal = tmp_path / "state" / "journal"
    journal.write_bytes(journal.read_bytes().replace(b'"op":"trial"', b'"op":"tribe"'))
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        assert "not what was written" in catalogue.damage
        assert catalogue.about().digest == better.digest


def test_two_servers_do_not_share_a_state_folder(tmp_path: Path, native_bundle: Make) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    with (
        served(tmp_path / "tiny.bundle", state=tmp_path / "state"),
        pytest.raises(ServeError, match="in use by another server"),
        served(tmp_path / "tiny.bundle", state=tmp_path / "state"),
    ):
        raise AssertionError("it must not start")


def test_an_update_survives_a_restart_and_another_bundle_named_at_the_start_is_taken(tmp_path, native_bundle) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    better = native_bundle(tmp_path / "better.bundle", noise=0.001)
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        catalogue.deploy("tiny", better.path)
        shutil.rmtree(better.path)
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        assert catalogue.about().digest == better.digest, "the server keeps a copy of its own"
    third = native_bundle(tmp_path / "tiny.bundle", noise=0.001, seed=3)
    with served(tmp_path / "tiny.bundle", state=tmp_path / "state") as catalogue:
        assert catalogue.about().digest == third.digest, "who names a new bundle means it"


# Readiness --------------------------------------------------------------------------------------------------


def test_ready_really_asks_and_remembers_for_a_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(100.0)
    with served(folder, clock=clock) as catalogue:
        asked: list[str] = []
        real = readiness.ask
        monkeypatch.setattr(readiness, "ask", lambda *given, **named: asked.append("") or real(*given, **named))
        assert catalogue.readiness is None
        assert catalogue.ready().ready and len(asked) == 3
        assert catalogue.ready().checked == ("faq@1", "minilm@10", "search@1") and len(asked) == 3
        clock.advance(1.1)
        assert catalogue.ready().ready and len(asked) == 6
        assert catalogue.readiness == catalogue.ready()


def test_ready_is_false_when_answers_are_wrong_and_true_again_when_they_are_right(tmp_path, native_bundle) -> None:
    native_bundle(tmp_path / "tiny.bundle")
    clock, spoils = FakeClock(100.0), [False]

    def opened(source: Bundle) -> Any:
        model: Any = open_bundle(source)
        right = model.answer
        model.answer = lambda encoded: right(encoded)[:, ::-1].copy() if spoils[0] else right(encoded)
        return model

    with served(tmp_path / "tiny.bundle", clock=clock, open_model=opened) as catalogue:
        assert catalogue.ready().ready
        spoils[0] = True
        assert catalogue.ready().ready, "remembered"
        clock.advance(1.1)
        found = catalogue.ready()
        assert not found.ready and "does not answer as its bundle records" in found.reason
        spoils[0] = False
        clock.advance(1.1)
        assert catalogue.ready().ready


def test_ready_is_false_when_the_model_cannot_be_opened_any_more(tmp_path: Path, native_bundle: Make) -> None:
    made = native_bundle(tmp_path / "tiny.bundle")
    with served(tmp_path / "tiny.bundle") as catalogue:
        catalogue.unload("tiny")
        spoil(max(made.path.rglob("*.tightrope"), key=lambda item: item.stat().st_size), "flip", 4096)
        assert not catalogue.ready().ready
        with pytest.raises(RefusedError) as refused:
            rows(catalogue, None, ["cat"])
        assert refused.value.reason == "unavailable" and refused.value.retry_after_s


def test_the_metrics_say_what_each_version_is(folder: Path, tmp_path: Path, native_bundle: Make) -> None:
    with served(folder, state=tmp_path / "state") as catalogue:
        better = native_bundle(tmp_path / "better.bundle", noise=0.001, seed=99)
        catalogue.deploy("faq", better.path, version="2", shadow=True)
        catalogue.unload("search")
        found = {(item["model"], item["version"]): item["state"] for item in catalogue.metrics.snapshot()["models"]}
        assert found[("faq", "1")] == "current" and found[("faq", "2")] == "shadow"
        assert found[("search", "1")] == "idle" and found[("minilm", "9")] == "retired"
        catalogue.rollback("faq")
        found = {(item["model"], item["version"]): item["state"] for item in catalogue.metrics.snapshot()["models"]}
        assert found[("faq", "2")] == "rolled_back"
        assert 'tightrope_rollbacks_total{reason="asked"} 1' in catalogue.metrics.text()
