"""An ONNX file with its tokenizer beside it, or one that takes images: the door for a model of any architecture.

Of images see `_images`. A file for text must take `input_ids` and `attention_mask` (and may take `token_type_ids`),
with batch and length left open.
A hidden state for each token is pooled and normalised as the folder's modules say, inside the graph.
External data is read from the model's own folder only; operators that need a custom library are refused.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tightrope import bundle
from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses, text_senses
from tightrope.workshop.numerics.quantized import Array
from tightrope.workshop.reference import reference
from tightrope.workshop.sources import _images, _onnx_data, _senses, _settle, _task
from tightrope.workshop.sources._files import FETCH_AGAIN, brief, optional_json


def load(path: Path) -> Graph:
    """Read an .onnx file; its tokenizer and settings are in its folder or in the one above.

    Raises `SourceError` if something is missing, broken or escapes the folder, `UnsupportedError` if it is foreign.
    """
    if not path.is_file():
        raise SourceError(f"There is no file {path}.", hint="Give an .onnx file with its tokenizer.json.")
    proto = _onnx_data.read(path)
    if _images.takes_images(proto):
        return _images.load(proto, path)
    home = next((place for place in (path.parent, path.parent.parent) if (place / "tokenizer.json").is_file()), None)
    if home is None:
        raise SourceError(f"{path} has no tokenizer.json beside it.", hint="Put the model's tokenizer.json there.")
    config = optional_json(home / "config.json")
    senses = _senses.read(home, config)
    output = _settle.chosen_output(proto, path)
    task, dense = _purpose(home, config, output)
    structure, weights = _settle.settle(proto, path, output, task, dense)
    digest = _digest(structure.SerializeToString(deterministic=True), weights, task, senses)
    graph = Graph(proto=structure, weights=weights, senses=senses, task=task, origin=digest, digest=digest)
    _senses.check(graph, path)
    width = _width(graph, path)
    if output.kind == "scores" and config and width != task.width:
        raise SourceError(
            f"{path} gives {width} scores; its config.json makes it {task.width}.", hint="Give the config.json of it."
        )
    structure.graph.output[0].type.tensor_type.shape.dim[1].dim_value = width
    return replace(graph, task=replace(task, width=width))


def _purpose(home: Path, config: Mapping[str, Any], output: _settle.Output) -> tuple[Task, dict[str, Array]]:
    """The task by the kind of output; a vector that is pooled already only wants normalising."""
    if output.kind == "scores":
        return (_task.scoring(config) if config else Task(name="scoring", width=1)), {}
    task, dense = _task.read(home, {"hidden_size": 1})  # the width is read off the answers
    return (task, dense) if output.kind == "hidden" else (replace(task, dense=()), {})


def _digest(structure: bytes, weights: Mapping[str, Array], task: Task, senses: TextSenses) -> str:
    parts = {
        "structure": hashlib.sha256(structure).hexdigest(),
        "weights": {name: [str(v.dtype), hashlib.sha256(v.tobytes()).hexdigest()] for name, v in weights.items()},
        "tokenizer": hashlib.sha256(senses.tokenizer).hexdigest(),
        "task": task.to_json(),
        "senses": senses.to_json(),
    }
    return hashlib.sha256(bundle.canonical(parts)).hexdigest()


def _width(graph: Graph, path: Path) -> int:
    """The width of the answers, by asking: two texts, one as long as the model's limit."""
    from tokenizers import Tokenizer

    senses = text_senses(graph)
    first = Tokenizer.from_str(senses.tokenizer.decode()).encode("").ids[0]
    lengths = np.array([senses.max_length, 3])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    given = {"input_ids": np.full_like(mask, first), "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(reference(graph).SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class for each status code
        raise SourceError(f"{path} cannot be opened: {brief(error)}.", hint=FETCH_AGAIN) from error
    try:
        answer = session.run(None, {item.name: given[item.name] for item in session.get_inputs()})[0]
    except Exception as error:
        raise UnsupportedError(
            f"{path} fails on a text of {lengths[0]} tokens: {brief(error)}.",
            hint="Say what it can take as max_seq_length in sentence_bert_config.json, or export it anew.",
        ) from error
    if answer.ndim != 2 or len(answer) != 2 or not np.isfinite(answer).all():
        raise SourceError(
            f"{path} answers two texts with {'nan' if answer.ndim == 2 else list(answer.shape)}.", hint=FETCH_AGAIN
        )
    return int(answer.shape[1])
