"""The shelf: an index that follows its model from version to version, without a search that mixes the two."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tightrope
from tightrope.bundle import Bundle
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create, open_index
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.ledger import Ledger, Reservation
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.service import Service
from tightrope.device.serve.shelf import Shelf
from tightrope.errors import RefusedError, SearchError

pytestmark = pytest.mark.engine
TEXTS = ["the cat sat", "dogs bark", "bread and butter", "seven of nine", "a mat"]


@pytest.fixture
def bundles(tmp_path: Path, native_bundle: Callable[..., Bundle]) -> tuple[Bundle, Bundle]:
    """The first version, in models/faq, and the second one beside."""
    first = native_bundle(tmp_path / "models" / "faq" / "1.bundle", noise=0.001, seed=1)
    return first, native_bundle(tmp_path / "second.bundle", noise=0.002, seed=2)


@pytest.fixture
def place(tmp_path: Path, bundles: tuple[Bundle, Bundle]) -> Path:
    """An index for the first version."""
    path = tmp_path / "docs.index"
    with tightrope.open(bundles[0].path) as model, create(path, digest=bundles[0].digest, width=32) as index:
        index.add([Document(key=text, passages=(text,)) for text in TEXTS], model.embed(TEXTS))
    return path


@contextmanager
def served(tmp_path: Path, budget: int | None = None) -> Iterator[tuple[Catalogue, Ledger]]:
    ledger, metrics, limits = Ledger(budget, resident=lambda: 1_000_000), Metrics(), Limits(cache_bytes=0)
    with (
        Service(ledger, metrics, limits) as service,
        Catalogue.open(tmp_path / "models", service, ledger, metrics, limits, state=tmp_path / "state") as catalogue,
    ):
        yield catalogue, ledger


def searched(shelf: Shelf, catalogue: Catalogue, text: str) -> tuple[str, float, str]:
    with shelf.pair() as pair:
        answer = catalogue.answer(shelf.name, [text], version=pair.version).result(10)
        assert answer.digest == pair.index.digest, "a question is never compared with another version's vectors"
        hit = pair.index.search(answer.answer.rows[0], 1)[0]
        return hit.key, hit.score, answer.version


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_index_is_searched_with_its_version_and_its_memory_is_reserved(tmp_path, place):
    with served(tmp_path) as (catalogue, ledger):
        with Shelf(place, catalogue, ledger) as shelf:
            for text in TEXTS:
                assert searched(shelf, catalogue, text)[0] == text
            with shelf.pair() as pair:
                assert ledger.usage()["index docs.index"] == pair.index.size_bytes
            with shelf.cutting() as cut:
                assert cut("the cat. the mat.") == ["the cat. the mat."]
        assert "index docs.index" not in {name for name, size in ledger.usage().items() if size}
        with pytest.raises(RefusedError, match="closed"), shelf.pair():
            pass
        open_index(place).close()


def test_a_new_version_takes_its_index_with_it_and_no_search_fails(tmp_path, place, bundles):
    with served(tmp_path) as (catalogue, ledger), Shelf(place, catalogue, ledger) as shelf:
        seen, failed, done = set[str](), list[BaseException](), threading.Event()

        def search() -> None:
            while not done.is_set():
                try:
                    key, score, version = searched(shelf, catalogue, TEXTS[1])
                    assert key == TEXTS[1] and score > 0.999
                    seen.add(version)
                except BaseException as error:
                    failed.append(error)
                    return

        thread = threading.Thread(target=search)
        thread.start()
        before = searched(shelf, catalogue, TEXTS[0])[2]
        catalogue.deploy("faq", bundles[1].path)
        until(lambda: searched(shelf, catalogue, TEXTS[0])[2] != before or failed)
        done.set()
        thread.join()
        assert not failed and before in seen
        until(lambda: shelf.state == "current")
        with shelf.pair() as pair:
            assert pair.index.digest == bundles[1].digest and pair.index.about.documents == len(TEXTS)
    open_index(place, digest=bundles[1].digest).close()


def test_without_memory_for_a_second_index_the_first_goes_on_and_says_so(tmp_path, place, bundles, monkeypatch):
    with served(tmp_path) as (catalogue, ledger), Shelf(place, catalogue, ledger) as shelf:
        reserve = ledger.reserve

        def full(owner: str, size_bytes: int) -> Reservation:
            if owner.startswith("index docs.index "):
                raise RefusedError("The budget is full.", hint="Give more.", reason="memory")
            return reserve(owner, size_bytes)

        monkeypatch.setattr(ledger, "reserve", full)
        catalogue.deploy("faq", bundles[1].path)
        until(lambda: shelf.state.startswith("not made anew"))
        assert "The budget is full." in shelf.state
        for text in TEXTS:
            assert searched(shelf, catalogue, text)[::2] == (text, "1"), "the old version and the old index go on"


def test_a_version_that_was_taken_back_takes_its_index_back(tmp_path, place, bundles):
    with served(tmp_path) as (catalogue, ledger), Shelf(place, catalogue, ledger) as shelf:
        catalogue.deploy("faq", bundles[1].path)
        until(lambda: shelf.state == "current" and shelf.version != "1")
        catalogue.rollback("faq")
        until(lambda: shelf.state == "current" and shelf.version == "1")
        assert searched(shelf, catalogue, TEXTS[0])[::2] == (TEXTS[0], "1")


def test_an_index_of_a_model_that_is_not_served_is_refused(tmp_path, bundles):
    with create(tmp_path / "other.index", digest="cd" * 32, width=32):
        pass
    with served(tmp_path) as (catalogue, ledger):
        with pytest.raises(SearchError, match="not served here"):
            Shelf(tmp_path / "other.index", catalogue, ledger)
        open_index(tmp_path / "other.index").close()
