"""An ONNX file that classifies images, with `preprocessor_config.json` and, for the labels, `config.json` beside it.

It takes one float array [batch, colours, height, width] (or [batch, height, width, colours]) and gives one score for
each class. It is settled on one image at a time, so that every shape is known to every engine.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, inliner

from tightrope import bundle
from tightrope.device.senses.image import ImageSenses
from tightrope.errors import SourceError, UnsupportedError
from tightrope.ports import Port
from tightrope.workshop.graph import IR_VERSION, Graph, value_info
from tightrope.workshop.model import Task
from tightrope.workshop.numerics.quantized import Array
from tightrope.workshop.reference import reference
from tightrope.workshop.sources import _preprocessing, _settle, _tidy
from tightrope.workshop.sources._files import FETCH_AGAIN, brief, optional_json, read_json
from tightrope.workshop.sources._onnx_data import array

PREPROCESSING, CONFIG = "preprocessor_config.json", "config.json"
OUTPUT = "logits"


def takes_images(proto: onnx.ModelProto) -> bool:
    """Whether a file's inputs are one float array of four dimensions."""
    inputs = _inputs(proto)
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    return kind is not None and kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4


def load(proto: onnx.ModelProto, path: Path) -> Graph:
    """The file with its settings, from its folder or the one above. Raises `SourceError`, `UnsupportedError`."""
    home = next((place for place in (path.parent, path.parent.parent) if (place / PREPROCESSING).is_file()), None)
    if home is None:
        raise SourceError(
            f"{path} takes images, and has no {PREPROCESSING} beside it that says how to prepare them.",
            hint=_preprocessing.HINT,
        )
    settings = read_json(home / PREPROCESSING, hint=FETCH_AGAIN)
    return graph_of(proto, settings, optional_json(home / CONFIG), path)


def graph_of(proto: onnx.ModelProto, preprocessing: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> Graph:
    """A parsed ONNX model as a Graph, by the settings that its files hold. `path` is what errors call it."""
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    port = _inputs(proto)[0]
    dims = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
    layout = "nhwc" if dims[3] in (1, 3) and dims[1] not in (1, 3) else "nchw"
    senses = _preprocessing.senses(preprocessing, tuple(dims[1:]), layout, path)
    weights = {item.name: array(item, path) for item in proto.graph.initializer}
    proto = _settle.raised(proto, weights, path, (port.name,))
    graph = proto.graph
    _settle.fold(graph, weights, path)
    del graph.input[:], graph.value_info[:]
    graph.input.append(value_info(Port(port.name, "float32", senses.shape)))
    if len(graph.output) != 1:
        raise UnsupportedError(f"{path} has {len(graph.output)} outputs.", hint="Export the logits alone.")
    activation = _without_softmax(graph)
    _tidy.tidy(proto, weights)
    _settle.cut(graph, weights)
    width = _answers(proto, weights, senses, port.name, path)
    task = Task(name="classification", width=width, activation=activation, labels=_labels(config, width, path))
    _name_output(graph, width)
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    digest = _digest(proto, weights, task, senses)
    return Graph(proto=proto, weights=weights, senses=senses, task=task, origin=digest, digest=digest)


def _inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {item.name for item in proto.graph.initializer}
    return [item for item in proto.graph.input if item.name not in constants]


def _without_softmax(graph: onnx.GraphProto) -> str:
    """Take a last Softmax off, so that what is compared are logits; what is to be done to them."""
    makers = {node.output[0]: node for node in graph.node}
    last = makers.get(graph.output[0].name)
    while last is not None and last.op_type == "Identity":
        last = makers.get(last.input[0])
    if last is None or last.op_type != "Softmax":
        return "identity"
    graph.output[0].name = last.input[0]
    return "softmax"


def _name_output(graph: onnx.GraphProto, width: int) -> None:
    """The output is called `logits`, and nothing else is."""
    old = graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == old else f"{name}.inner" if name == OUTPUT else name for name in names]
    del graph.output[:]
    graph.output.append(value_info(Port(OUTPUT, "float32", (1, width))))


def _labels(config: Mapping[str, Any], width: int, path: Path) -> tuple[str, ...]:
    """The names of the classes by `id2label`, or their numbers."""
    names = config.get("id2label")
    if names is None:
        return tuple(map(str, range(width)))
    if not isinstance(names, dict) or set(names) != set(map(str, range(width))):
        raise SourceError(
            f"{path} tells {width} classes apart; id2label of its {CONFIG} does not name 0 to {width - 1}.",
            hint=f"Give the {CONFIG} that belongs to it.",
        )
    return tuple(str(names[str(place)]) for place in range(width))


def _answers(proto: onnx.ModelProto, weights: Mapping[str, Array], senses: ImageSenses, name: str, path: Path) -> int:
    """The number of classes, by asking about an image of noise."""
    task = Task(name="classification", width=1)
    graph = Graph(proto=proto, weights=weights, senses=senses, task=task, origin="", digest="")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    pixels = np.random.default_rng(0).uniform(-1, 1, senses.shape).astype(np.float32)
    try:
        session = ort.InferenceSession(reference(graph).SerializeToString(), options, ["CPUExecutionProvider"])
        answer = session.run(None, {name: pixels})[0]
    except Exception as error:  # onnxruntime raises a class for each status code
        raise SourceError(f"{path} cannot be run: {brief(error)}.", hint=FETCH_AGAIN) from error
    if answer.ndim != 2 or len(answer) != 1 or not np.isfinite(answer).all():
        shape = list(answer.shape) if answer.ndim != 2 or len(answer) != 1 else "numbers that are not finite"
        raise UnsupportedError(f"{path} answers an image with {shape}.", hint="Export scores [batch, classes].")
    return int(answer.shape[1])


def _digest(proto: onnx.ModelProto, weights: Mapping[str, Array], task: Task, senses: ImageSenses) -> str:
    parts = {
        "structure": hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(),
        "weights": {name: [str(v.dtype), hashlib.sha256(v.tobytes()).hexdigest()] for name, v in weights.items()},
        "task": task.to_json(),
        "senses": senses.to_json(),
    }
    return hashlib.sha256(bundle.canonical(parts)).hexdigest()
