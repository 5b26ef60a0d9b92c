"""Search by meaning, by words and by both, with a real model."""

from collections.abc import Iterator

import pytest

import tightrope
from tightrope.device.apps import semantic_search
from tightrope.device.apps.semantic_search import Mode
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.index.opened import Index
from tightrope.device.model import Embedder
from tightrope.errors import DataError

pytestmark = pytest.mark.engine
TEXTS = ("the cat sat", "dogs bark at night", "bread and butter", "seven of nine")


@pytest.fixture(scope="module")
def model(native_bundle, tmp_path_factory) -> Iterator[Embedder]:
    with tightrope.open(native_bundle(tmp_path_factory.mktemp("model") / "tiny.bundle").path) as opened:
        yield opened


@pytest.fixture
def index(model, tmp_path) -> Iterator[Index]:
    with create(tmp_path / "docs.index", digest=model.bundle.digest, width=32) as opened:
        opened.add([Document(key=text.split()[0], passages=(text,)) for text in TEXTS], model.embed(TEXTS))
        yield opened


@pytest.mark.parametrize("mode", list(Mode))
def test_a_text_finds_itself(index, model, mode):
    for text in TEXTS:
        assert semantic_search.search(index, model, text, 2, mode=mode)[0].text == text


def test_a_document_is_found_once_by_its_best_passage(index, model):
    passages = ("the cat sat", "a cat sat", "cats sit")
    index.add([Document(key="many", passages=passages)], model.embed(passages))
    for mode in Mode:
        hits = semantic_search.search(index, model, "a cat sat", 10, mode=mode)
        assert len({hit.key for hit in hits}) == len(hits)
    assert [hit.text for hit in hits if hit.key == "many"] == ["a cat sat"]


def test_a_query_that_asks_nothing_is_refused(index, model):
    for query in ("", "  ", None):
        with pytest.raises(DataError):
            semantic_search.search(index, model, query)
