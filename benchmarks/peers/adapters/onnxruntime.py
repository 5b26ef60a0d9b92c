"""Bare onnxruntime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.peers.adapters import Peer, versions_of
from benchmarks.peers.adapters.direct import Direct, Ids, padded


class _Onnxruntime(Direct):
    def __init__(self, file: Path, model: Path) -> None:
        super().__init__(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = {item.name for item in self._session.get_inputs()}
        self._output = [self._session.get_outputs()[0].name]
        self.files = [file]
        self.versions = versions_of("onnxruntime")

    def _hidden(self, ids: Ids) -> NDArray[np.float32]:
        values, mask = padded(ids)
        feeds = {"input_ids": values, "attention_mask": mask}
        if "token_type_ids" in self._names:
            feeds["token_type_ids"] = np.zeros_like(values)
        return self._session.run(self._output, feeds)[0]


def open_peer(options: Mapping[str, Any]) -> Peer:
    """`file`: the .onnx file. `model`: the folder with the tokenizer."""
    return _Onnxruntime(Path(options["file"]), Path(options["model"]))
