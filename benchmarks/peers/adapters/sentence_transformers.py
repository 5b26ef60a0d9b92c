"""sentence-transformers as its users call it: `encode`, which sorts by length. A batching is its `batch_size`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.peers.adapters import Floats, Peer, versions_of


class _SentenceTransformers:
    batchings: Sequence[int] = (1, 4, 8, 32)

    def __init__(self, folder: Path, backend: str, settings: Mapping[str, Any], files: Sequence[Path]) -> None:
        torch.set_num_threads(1)
        self._model = SentenceTransformer(str(folder), backend=backend, device="cpu", model_kwargs=dict(settings))
        self.files = files
        engine = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}[backend]
        self.versions = versions_of("sentence-transformers", engine, "transformers")

    def encode(self, texts: Sequence[str]) -> Floats:
        vectors: Floats = self._model.encode(list(texts), convert_to_numpy=True)
        return vectors

    def encode_all(self, texts: Sequence[str], batching: int) -> Floats:
        vectors: Floats = self._model.encode(list(texts), batch_size=batching, convert_to_numpy=True)
        return vectors

    def engine(self, text: str) -> None:
        return None


def open_peer(options: Mapping[str, Any]) -> Peer:
    """`folder`: the model. `backend`: torch, onnx or openvino. `file`: which of its files, below the folder."""
    folder, backend, name = Path(options["folder"]), options["backend"], options["file"]
    file = folder / name
    if backend == "onnx":
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = 1  # otherwise its threads are one a core, and leave the pinned one
        settings = {"provider": "CPUExecutionProvider", "file_name": name, "session_options": session_options}
        return _SentenceTransformers(folder, backend, settings, [file])
    if backend == "openvino":
        config = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        settings = {"device": "CPU", "file_name": name, "ov_config": config}
        return _SentenceTransformers(folder, backend, settings, [file, file.with_suffix(".bin")])
    return _SentenceTransformers(folder, backend, {}, [file])
