"""LangChain's `Embeddings`, with and without LangChain."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tightrope.adapters import LangChainEmbeddings


def test_documents_and_queries(embedder) -> None:
    model = LangChainEmbeddings(embedder({"query": "find: ", "document": "store: "}))
    rows = model.embed_documents(["red", "red blue"])
    assert [len(row) for row in rows] == [8, 8]
    assert all(isinstance(value, float) for row in rows for value in row)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0][5] > 0 > rows[0][4]  # the documents' prompt
    query = model.embed_query("red")
    assert query[4] > 0 > query[5]
    assert model.embed_documents([]) == []


def test_without_prompts_query_and_document_are_the_same(embedder) -> None:
    model = LangChainEmbeddings(embedder())
    assert model.embed_query("red") == model.embed_documents(["red"])[0]


def test_the_asynchronous_ones_give_the_same(embedder) -> None:
    model = LangChainEmbeddings(embedder())

    async def both() -> tuple[list[list[float]], list[float]]:
        return await asyncio.gather(model.aembed_documents(["red", "blue"]), model.aembed_query("green"))

    assert asyncio.run(both()) == [model.embed_documents(["red", "blue"]), model.embed_query("green")]


def test_many_threads_at_once(embedder) -> None:
    model = LangChainEmbeddings(embedder())
    expected = {text: model.embed_query(text) for text in ("red", "green", "blue")}
    with ThreadPoolExecutor(8) as pool:
        for text, row in zip(list(expected) * 30, pool.map(model.embed_query, list(expected) * 30), strict=True):
            assert row == expected[text]


def test_it_derives_from_langchains_class_where_that_is_installed(tmp_path: Path) -> None:
    package = tmp_path / "langchain_core"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "embeddings.py").write_text("class Embeddings:\n    marker = 'of langchain_core'\n")
    code = "from tightrope.adapters import LangChainEmbeddings as E; print(E.marker)"
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2] / 'src'}"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "of langchain_core"


@pytest.mark.parametrize("method", ["embed_documents", "embed_query", "aembed_documents", "aembed_query"])
def test_every_method_of_the_interface_is_there(method: str) -> None:
    assert callable(getattr(LangChainEmbeddings, method))
