"""CTranslate2's encoder; it takes ids without padding."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.adapters import Peer, versions_of
from benchmarks.peers.adapters.direct import Direct, Ids


class _Ctranslate2(Direct):
    def __init__(self, folder: Path, model: Path) -> None:
        super().__init__(model)
        self._encoder = ctranslate2.Encoder(
            str(folder), device="cpu", compute_type="int8", intra_threads=1, inter_threads=1
        )
        self.files = [folder / "model.bin"]
        self.versions = versions_of("ctranslate2")

    def _hidden(self, ids: Ids) -> NDArray[np.float32]:
        return np.asarray(self._encoder.forward_batch([list(item) for item in ids]).last_hidden_state)


def open_peer(options: Mapping[str, Any]) -> Peer:
    """`folder`: the converted model. `model`: the folder with the tokenizer."""
    return _Ctranslate2(Path(options["folder"]), Path(options["model"]))
