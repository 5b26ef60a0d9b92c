"""Where there is no native engine: bundles of other engines open all the same, and the rest says what to install."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import tightrope
from tightrope.device import engine
from tightrope.errors import MissingExtraError
from tightrope.recipe import Recipe
from tightrope.workshop.assemble import Origin, Vectors, assemble
from tightrope.workshop.converted import convert

pytestmark = pytest.mark.engine


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation whose library is not there."""
    engine.library.cache_clear()
    monkeypatch.setenv(engine.LIBRARY, "/nowhere/libtightrope.so")
    yield
    engine.library.cache_clear()


@pytest.fixture
def bundle_of(tmp_path: Path, tiny_bert):
    """bundle_of(engine): the tiny BERT as a bundle for one engine."""

    def make(name: str) -> Path:
        origin = Origin(source="tiny", recipe=Recipe((), name), calibration={})
        return assemble(
            tiny_bert, convert(tiny_bert, name), origin, Vectors(inputs=["the cat"]), tmp_path / f"{name}.bundle"
        ).path

    return make


def test_another_engine_does_without(bundle_of, without_engine):
    engine.library.cache_clear()
    with pytest.MonkeyPatch.context() as real:
        real.delenv(engine.LIBRARY)
        path = bundle_of("onnxruntime")
        with tightrope.open(path) as model:
            natively = model.embed(["the cat sat", "on"])
        engine.library.cache_clear()
    with tightrope.open(path) as model:
        assert type(model.tokenizer).__name__ == "Tokenizer"
        assert (model.embed(["the cat sat", "on"]) == natively).all()


def test_a_native_bundle_says_what_is_missing(bundle_of, monkeypatch):
    path = bundle_of("native")
    engine.library.cache_clear()
    monkeypatch.setenv(engine.LIBRARY, "/nowhere/libtightrope.so")
    with pytest.raises(MissingExtraError, match="no native engine") as caught:
        tightrope.open(path)
    assert "pip install" in caught.value.hint
    engine.library.cache_clear()


def test_a_library_that_is_none_is_refused_in_two_lines(tmp_path, monkeypatch):
    engine.library.cache_clear()
    (tmp_path / "libtightrope.so").write_bytes(b"no library")
    monkeypatch.setenv(engine.LIBRARY, str(tmp_path / "libtightrope.so"))
    with pytest.raises(tightrope.errors.EngineError) as caught:
        engine.library()
    assert len(str(caught.value).splitlines()) == 2
    engine.library.cache_clear()
