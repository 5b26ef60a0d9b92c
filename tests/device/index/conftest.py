"""What the tests of an index share: vectors, documents, and an index of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.index.opened import Index

DIGEST = "ab" * 32
WORDS = ("river", "mill", "bridge", "bread", "butter", "salt", "router", "password", "greenhouse", "tomato")


def random_vectors(count: int, seed: int = 0, width: int = 96) -> np.ndarray:
    """Unit vectors float32 [count, width]."""
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def documents(count: int, first: int = 0) -> list[Document]:
    """Documents of one passage, with words, a number and a parity."""
    return [
        Document(
            key=f"d{number}",
            passages=(f"number {number} of {WORDS[number % len(WORDS)]} and more",),
            title=f"Title {number}",
            metadata={"n": number, "parity": "odd" if number % 2 else "even", "tags": ["all", f"t{number % 3}"]},
        )
        for number in range(first, first + count)
    ]


@pytest.fixture
def vectors() -> Callable[..., np.ndarray]:
    """`vectors(count, seed)`: unit vectors."""
    return random_vectors


@pytest.fixture
def made() -> Callable[..., list[Document]]:
    """`made(count, first)`: documents."""
    return documents


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where an index of 300 documents lies, closed."""
    path = tmp_path / "docs.index"
    with create(path, digest=DIGEST, width=96) as index:
        index.add(documents(300), random_vectors(300))
    return path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An open index of 300 documents."""
    with create(tmp_path / "open.index", digest=DIGEST, width=96) as opened:
        opened.add(documents(300), random_vectors(300))
        yield opened
