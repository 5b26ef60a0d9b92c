"""fastembed. It keeps the order given, so texts are sorted for it. A batching is its `batch_size`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding

from benchmarks.peers.adapters import Floats, Peer, versions_of

NAME = "sentence-transformers/all-MiniLM-L6-v2"


class _Fastembed:
    batchings: Sequence[int] = (1, 4, 8, 32)

    def __init__(self, folder: Path) -> None:
        self._model = TextEmbedding(NAME, specific_model_path=str(folder.resolve()), threads=1)
        self.files = [folder / "model.onnx"]
        self.versions = versions_of("fastembed", "onnxruntime")

    def encode(self, texts: Sequence[str]) -> Floats:
        return np.stack(list(self._model.embed(list(texts))))

    def encode_all(self, texts: Sequence[str], batching: int) -> Floats:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors = np.stack(list(self._model.embed([texts[index] for index in order], batch_size=batching)))
        rows = np.empty_like(vectors)
        rows[order] = vectors
        return rows

    def engine(self, text: str) -> None:
        return None


def open_peer(options: Mapping[str, Any]) -> Peer:
    """`folder`: model.onnx with its tokenizer's files."""
    return _Fastembed(Path(options["folder"]))
