"""An open bundle as LangChain's `Embeddings`, with or without LangChain installed.

    embeddings = LangChainEmbeddings("minilm.bundle")
    store = InMemoryVectorStore(embeddings)

If langchain_core is installed, the class derives from its `Embeddings`; the methods are the same either way.
"""

import asyncio
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from tightrope.adapters.sentence_transformers import DOCUMENT_PROMPTS, QUERY_PROMPTS, opened

if TYPE_CHECKING:
    from tightrope.device.model import Embedder

    Parent = object
elif find_spec("langchain_core"):
    from langchain_core.embeddings import Embeddings as Parent
else:
    Parent = object


class LangChainEmbeddings(Parent):
    """A bundle that embeds texts, as LangChain's `Embeddings`. Safe for use from several threads.

    `model`: the path of a bundle, or what `tightrope.open` gave. Queries and documents get the model's prompts of
    those names, where it has them. Raises `UnsupportedError` for a cross-encoder, and what `tightrope.open` raises.
    """

    def __init__(self, model: "Path | str | Embedder", *, threads: int = 1, engine: str | None = None) -> None:
        self._model = opened(model, threads=threads, engine=engine)
        self._lock = Lock()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of unit length, one for each text, in order."""
        return self._embed(list(texts), DOCUMENT_PROMPTS)

    def embed_query(self, text: str) -> list[float]:
        """The vector of one query, of unit length."""
        return self._embed([text], QUERY_PROMPTS)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.embed_query, text)

    def _embed(self, texts: list[str], prompts: Iterable[str]) -> list[list[float]]:
        prompt = next((name for name in prompts if name in self._model.prompts), None)
        with self._lock:
            vectors: Any = self._model.embed(texts, prompt=prompt)
        rows: list[list[float]] = vectors.tolist()
        return rows
