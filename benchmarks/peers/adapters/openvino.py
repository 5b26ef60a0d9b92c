"""Bare OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from benchmarks.peers.adapters import Peer, versions_of
from benchmarks.peers.adapters.direct import Direct, Ids, padded

SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,  # the benchmark pins; OpenVINO's own pinning would move it to another core
    "INFERENCE_PRECISION_HINT": "f32",
}


class _Openvino(Direct):
    def __init__(self, file: Path, model: Path) -> None:
        super().__init__(model)
        compiled = openvino.Core().compile_model(file, "CPU", SETTINGS)
        self._request = compiled.create_infer_request()
        self._names = {name for port in compiled.inputs for name in port.names}
        self.files = [file, file.with_suffix(".bin")]
        self.versions = versions_of("openvino")

    def _hidden(self, ids: Ids) -> NDArray[np.float32]:
        values, mask = padded(ids)
        feeds = {"input_ids": values, "attention_mask": mask}
        if "token_type_ids" in self._names:
            feeds["token_type_ids"] = np.zeros_like(values)
        hidden: NDArray[np.float32] = self._request.infer(feeds, share_inputs=True, share_outputs=True)[0]
        return hidden


def open_peer(options: Mapping[str, Any]) -> Peer:
    """`file`: the .xml file. `model`: the folder with the tokenizer."""
    return _Openvino(Path(options["file"]), Path(options["model"]))
