"""A whole server with a small model and an index, for tests that come as clients do."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tightrope
from tightrope.bundle import Bundle
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.serve import keys, logs
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.server import Server

TEXTS = ["the cat sat", "dogs bark", "bread and butter", "seven of nine", "a mat"]


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged while a test runs."""
    stream = io.StringIO()
    before = logs.write_to(logs.Log(stream))
    yield stream
    logs.write_to(before)


@pytest.fixture(scope="session")
def searchable(native_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and an index of five texts made with it."""
    folder = tmp_path_factory.mktemp("searchable")
    bundle = native_bundle(folder / "faq.bundle")
    with tightrope.open(bundle.path) as model, create(folder / "docs.index", digest=bundle.digest, width=32) as index:
        documents = [Document(key=f"d{n}", passages=(text,), title=f"Page {n}") for n, text in enumerate(TEXTS)]
        index.add(documents, model.embed(TEXTS))
    return bundle.path, folder / "docs.index"


@pytest.fixture(scope="session")
def searched(searchable: tuple[Path, Path]) -> Iterator[Server]:
    """A server for both, which nobody needs a key for."""
    path, index = searchable
    with tightrope.serve(path, index=index, threads=1, limits=Limits(streams=4)) as running:
        yield running


@pytest.fixture(scope="session")
def locked(searchable: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with one key, and that key."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    secret = keys.new(file, "phone")
    with tightrope.serve(searchable[0], key_file=file, threads=1) as running:
        yield running, secret
