"""Documents become an index by a real model; the index is made anew for another."""

from pathlib import Path

import numpy as np
import pytest

import tightrope
from tightrope.device.index import building
from tightrope.device.index.documents import Document
from tightrope.device.index.making import open_index
from tightrope.device.index.model import counting
from tightrope.device.index.rebuild import Rebuild
from tightrope.errors import DataError, OutputError, SearchError

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def models(native_bundle, tmp_path_factory):
    """Two real models of the same width, whose vectors differ."""
    folder = tmp_path_factory.mktemp("models")
    with (
        tightrope.open(native_bundle(folder / "one.bundle").path) as one,
        tightrope.open(native_bundle(folder / "two.bundle", noise=0.5).path) as two,
    ):
        yield one, two


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.md").write_text("# Cats\nThe cat sat. " + "The cat sat on the mat again and again. " * 30)
    (folder / "inner" / "b.txt").write_text("the dogs bark")
    (folder / "c.jsonl").write_text('{"id": 1, "text": "cat", "n": 5}\n{"id": 2, "text": "sat", "bad": null}\n')
    (folder / "spoilt.jsonl").write_text("{")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "link.txt").symlink_to(folder / "a.md")
    return folder


def test_a_folder_is_built_and_searched(models, source, tmp_path):
    one, _ = models
    told = []
    built = building.build(source, tmp_path / "docs.index", one, progress=told.append)
    assert built.documents == 4 and [name for name, _ in built.skipped] == ["spoilt.jsonl"]
    assert told[-1].share == 1 and told[-1].left_s == 0 and told[-1].passages == built.passages
    with open_index(tmp_path / "docs.index", digest=one.bundle.digest) as index:
        assert {hit.key for hit in index.search(one.embed(["the dogs bark"])[0], 1)} == {"inner/b.txt"}
        assert index.matching("cat", 1, {"n": 5})[0].key == "c.jsonl#1"
        passages = [text for _, document in index.numbered(0, 10) for text in document.passages]
    count, limit = counting(one.tokenizer)
    assert max(count(passages)) <= limit and one.truncated == 0 and len(passages) == built.passages > 8


def test_what_was_interrupted_leaves_nothing(models, source, tmp_path):
    one, _ = models

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        building.build(source, tmp_path / "docs.index", one, progress=stop)
    assert not (tmp_path / "docs.index").exists()
    building.build(source, tmp_path / "docs.index", one)
    with pytest.raises(KeyboardInterrupt):
        building.build(source, tmp_path / "docs.index", one, progress=stop, force=True)
    with open_index(tmp_path / "docs.index") as index:
        assert index.about.documents == 4, "the older one is as it was"


def test_an_index_is_replaced_by_force_only(models, source, tmp_path):
    one, two = models
    building.build(source, tmp_path / "docs.index", one)
    with pytest.raises(OutputError, match="exists"):
        building.build(source, tmp_path / "docs.index", two)
    building.build(source, tmp_path / "docs.index", two, force=True)
    open_index(tmp_path / "docs.index", digest=two.bundle.digest).close()
    with open_index(tmp_path / "docs.index"), pytest.raises(SearchError, match="written by another"):
        building.build(source, tmp_path / "docs.index", one, force=True)


def test_nothing_to_read_is_an_error(models, tmp_path):
    one, _ = models
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "a.txt").write_text("  \n")
    for name in ("empty", "blank", "nowhere"):
        with pytest.raises(DataError):
            building.build(tmp_path / name, tmp_path / "docs.index", one)
        assert not (tmp_path / "docs.index").exists()


def test_documents_are_added_to_an_index(models, source, tmp_path):
    one, _ = models
    building.build(source, tmp_path / "docs.index", one)
    (source / "a.md").write_text("new words")
    with open_index(tmp_path / "docs.index") as index:
        assert building.add(index, source, one).documents == 4
        assert index.matching("again", 5) == [] and index.matching("new", 1)[0].key == "a.md"


def test_another_model_takes_over_while_the_old_index_answers(models, source, tmp_path):
    one, two = models
    building.build(source, tmp_path / "docs.index", one)
    old = open_index(tmp_path / "docs.index")
    with Rebuild(old, two.bundle.digest, 32, two.embed, lambda text: [text]) as made:
        made.copy()
        old.add([Document(key="late", passages=("late cat",))], one.embed(["late cat"]))
        old.delete(["inner/b.txt"])
        assert old.search(one.embed(["late cat"])[0], 1)[0].key == "late"
        new = made.swap()
    assert new.present(["late", "inner/b.txt", "a.md"]) == {"late", "a.md"} and new.digest == two.bundle.digest
    assert new.search(two.embed(["late cat"])[0], 1)[0].score == pytest.approx(1, abs=1e-3)
    assert old.search(one.embed(["late cat"])[0], 1)[0].key == "late", "the old one answers until it is closed"
    with pytest.raises(SearchError):
        old.delete(["late"])
    old.close()
    assert len([item for item in (tmp_path / "docs.index").iterdir() if item.is_dir()]) == 1
    new.delete(["late"])
    new.close()
    with open_index(tmp_path / "docs.index", digest=two.bundle.digest) as again:
        assert again.check() == [] and again.present(["late"]) == set()


def test_a_rebuild_that_fails_changes_nothing(models, source, tmp_path):
    one, _two = models
    building.build(source, tmp_path / "docs.index", one)

    def fail(texts):
        return np.full((len(texts), 32), np.nan, np.float32)

    with open_index(tmp_path / "docs.index") as index:
        with pytest.raises(DataError), Rebuild(index, "cd" * 32, 32, fail, lambda text: [text]) as made:
            made.copy()
        index.delete(["a.md"])
        assert index.digest == one.bundle.digest and index.about.documents == 3
    assert len([item for item in (tmp_path / "docs.index").iterdir() if item.is_dir()]) == 1
