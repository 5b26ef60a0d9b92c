"""A torch module that classifies images, through torch's own exporter to ONNX.

`write` puts the module as an ONNX file with its settings into a folder, from where any command takes it; `load` gives
the Graph at once. Needs the extra [torch]; the module is the caller's own, and nothing of it is kept but the graph.
"""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from tightrope.bundle import write_atomic
from tightrope.errors import OutputError, UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.sources import _images
from tightrope.workshop.sources._files import brief

INPUT, OUTPUT = "image", "logits"
EXPORTED_OPSET = 18


def load(
    module: torch.nn.Module, size: tuple[int, int], preprocessing: Mapping[str, Any], labels: Sequence[str] = ()
) -> Graph:
    """The module as a Graph for images of `size` (height, width).

    `preprocessing` says how images are prepared, in the words of a `preprocessor_config.json` (docs/guide/images.md);
    `labels` what the module's outputs are about. Raises `UnsupportedError` for a module that cannot be exported.
    """
    proto = onnx.ModelProto.FromString(_exported(module, size, _channels(preprocessing)))
    return _images.graph_of(proto, preprocessing, _config(labels), Path(type(module).__name__))


def write(
    module: torch.nn.Module,
    path: Path | str,
    size: tuple[int, int],
    preprocessing: Mapping[str, Any],
    labels: Sequence[str] = (),
) -> Path:
    """The module as an ONNX file at `path`, with its settings beside it; raises also `OutputError`."""
    place = Path(path)
    data = _exported(module, size, _channels(preprocessing))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, data)
        write_atomic(place.with_name(_images.PREPROCESSING), json.dumps(dict(preprocessing)).encode())
        write_atomic(place.with_name(_images.CONFIG), json.dumps(_config(labels)).encode())
    except OSError as error:
        raise OutputError(f"{place} cannot be written: {error.strerror}.", hint="Choose another place.") from error
    return place


def _config(labels: Sequence[str]) -> dict[str, Any]:
    return {"id2label": {str(place): name for place, name in enumerate(labels)}} if labels else {}


def _channels(preprocessing: Mapping[str, Any]) -> int:
    mean = preprocessing.get("image_mean")
    return len(mean) if isinstance(mean, list | tuple) else 3


def _exported(module: torch.nn.Module, size: tuple[int, int], channels: int) -> bytes:
    """The ONNX file's bytes, for one image. The module is exported as it infers, and left in the mode it was in."""
    stream, trains = io.BytesIO(), module.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own about itself
            torch.onnx.export(
                module.eval(),
                (torch.zeros(1, channels, *size),),
                stream,
                opset_version=EXPORTED_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                dynamo=False,  # the newer one wants onnxscript, and writes what a search then folds again
            )
    except Exception as error:  # whatever a module's own code or the exporter raises
        raise UnsupportedError(
            f"{type(module).__name__} cannot be exported for images of {size[0]} x {size[1]}: {brief(error)}.",
            hint="Export it to ONNX by hand, and give the file.",
        ) from error
    finally:
        module.train(trains)
    return stream.getvalue()
