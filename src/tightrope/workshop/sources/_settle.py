"""A foreign ONNX graph made like our own: one output, open shapes, weights apart and visible, opset 21.

What is folded: constants and what is only copied or transposed from them, so that linear layers show their weights.
What is cut: everything that the chosen output does not need.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, shape_inference, version_converter

from tightrope.errors import SourceError, UnsupportedError
from tightrope.ports import Port
from tightrope.workshop import pooling
from tightrope.workshop.graph import IR_VERSION, OPSET, Builder, value_info
from tightrope.workshop.model import Task
from tightrope.workshop.numerics.quantized import Array
from tightrope.workshop.sources._files import FETCH_AGAIN, brief
from tightrope.workshop.sources._onnx_data import array, graphs_of, nodes_of

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_POOLED = ("sentence_embedding", "sentence_embeddings", "embedding", "embeddings", "text_embeds")
_HIDDEN = ("last_hidden_state", "token_embeddings", "hidden_states")
_SCORES = ("logits", "scores")
_LARGE = 4096
"""Weights of more elements stay out of the way of the version converter, which needs only the small ones."""


@dataclass(frozen=True, slots=True)
class Output:
    """The output that a model is for: a vector a text, a hidden state a token, or scores."""

    name: str
    kind: Literal["pooled", "hidden", "scores"]
    dtype: int


def chosen_output(proto: onnx.ModelProto, path: Path) -> Output:
    """The output to keep: by its usual name, else the first of two dimensions, else the first of three."""
    outputs = list(proto.graph.output)
    if not all(item.type.tensor_type.HasField("shape") for item in outputs):
        outputs = _inferred(proto, path)
    ranks = {item.name: len(item.type.tensor_type.shape.dim) for item in outputs}
    dtypes = {item.name: item.type.tensor_type.elem_type for item in outputs}

    def first(names: tuple[str, ...], rank: int) -> str | None:
        return next((name for name in names if ranks.get(name) == rank), None)

    flat = tuple(name for name in ranks if name != "pooler_output")  # a classifier's part, not the text's vector
    candidates: tuple[tuple[str | None, Literal["pooled", "hidden", "scores"]], ...] = (
        (first(_POOLED, 2), "pooled"),
        (first(_SCORES, 2), "scores"),
        (first(_HIDDEN, 3), "hidden"),
        (first(flat, 2), "pooled"),
        (first(tuple(ranks), 3), "hidden"),
    )
    for name, kind in candidates:
        if name is not None:
            return Output(name, kind, dtypes[name])
    raise UnsupportedError(
        f"{path} has no output [batch, width] or [batch, length, width]; it has: {', '.join(ranks)}.",
        hint="Export the model with last_hidden_state or sentence_embedding as an output.",
    )


def _inferred(proto: onnx.ModelProto, path: Path) -> list[onnx.ValueInfoProto]:
    try:
        return list(shape_inference.infer_shapes(proto).graph.output)
    except Exception as error:  # onnx raises its own and bare ones
        raise SourceError(f"{path} is not a sound ONNX file: {brief(error)}.", hint=FETCH_AGAIN) from error


def settle(
    proto: onnx.ModelProto, path: Path, output: Output, task: Task, dense: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The structure with the tail that the task asks for, and the weights by name."""
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    _check_inputs(proto, path)
    weights = {tensor.name: array(tensor, path) for tensor in proto.graph.initializer}
    proto = raised(proto, weights, path, INPUTS)
    graph = proto.graph
    _rename(graph, _apart)
    weights = {_apart(name): value for name, value in weights.items()}
    fold(graph, weights, path)
    ports = _open_inputs(graph)
    final = _append_tail(graph, weights, Output(_apart(output.name), output.kind, output.dtype), task, dense)
    del graph.output[:], graph.value_info[:], graph.input[:]
    graph.input.extend(value_info(port) for port in ports)
    graph.output.append(value_info(Port(final, "float32", ("batch", max(task.width, 1)))))
    cut(graph, weights)
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    return proto, weights


def _check_inputs(proto: onnx.ModelProto, path: Path) -> None:
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = {item.name: item.type.tensor_type for item in proto.graph.input if item.name not in constants}
    for name in ("input_ids", "attention_mask"):
        if name not in inputs:
            raise UnsupportedError(
                f"{path} has no input {name!r}; it has: {', '.join(inputs)}.",
                hint="Export the model with input_ids and attention_mask (and token_type_ids, if it has any).",
            )
    for name, kind in inputs.items():
        if name not in INPUTS:
            raise UnsupportedError(
                f"{path} has the input {name!r}, which nothing gives.", hint=f"Known: {', '.join(INPUTS)}."
            )
        dims = kind.shape.dim
        if kind.elem_type not in (TensorProto.INT64, TensorProto.INT32) or len(dims) != 2:
            raise UnsupportedError(f"{path} takes {name} as no matrix of integers.", hint="Export it anew.")
        if any(dim.dim_value for dim in dims):
            shape = [dim.dim_value or dim.dim_param or "?" for dim in dims]
            raise UnsupportedError(
                f"{path} takes {name} in the fixed shape {shape}.", hint="Export it with dynamic batch and length."
            )


def raised(
    proto: onnx.ModelProto, weights: Mapping[str, Array], path: Path, inputs: Collection[str]
) -> onnx.ModelProto:
    """The structure in our opset at least, checked, with these inputs.

    Large weights are inputs for the while, and dropped after.
    """
    graph = proto.graph
    large = [item for item in graph.initializer if weights[item.name].size > _LARGE]
    stand_ins = [helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in large]
    small = [item for item in graph.initializer if weights[item.name].size <= _LARGE]
    own = [item for item in graph.input if item.name not in weights]
    del graph.initializer[:], graph.input[:], graph.value_info[:]
    graph.initializer.extend(small)
    graph.input.extend([*own, *stand_ins])
    version = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    try:
        proto.ir_version = max(proto.ir_version, 4)  # from 4 on, an initialiser need not be an input
        onnx.checker.check_model(proto)
        newer = version_converter.convert_version(proto, OPSET) if version < OPSET else proto
    except Exception as error:  # onnx raises its own and bare ones
        if isinstance(error, onnx.checker.ValidationError):
            raise SourceError(f"{path} is not a sound ONNX file: {brief(error)}.", hint=FETCH_AGAIN) from error
        raise UnsupportedError(
            f"{path} is of opset {version} and cannot be brought to {OPSET}: {brief(error)}.",
            hint=f"Export it with opset {OPSET}.",
        ) from error
    kept = [item for item in newer.graph.input if item.name in inputs]
    del newer.graph.input[:]
    newer.graph.input.extend(kept)
    return newer


def _apart(name: str) -> str:
    """A foreign name, changed if it is one that our own output will bear."""
    return f"{name}.inner" if name in ("embedding", "scores") else name


def _rename(graph: onnx.GraphProto, change: Callable[[str], str]) -> None:
    for node in nodes_of(graph):
        node.name = change(node.name)
        for names in (node.input, node.output):
            names[:] = [change(name) for name in names]
    for inner in list(graphs_of(graph))[1:]:
        for item in (*inner.output, *inner.initializer, *inner.input):
            item.name = change(item.name)


def fold(graph: onnx.GraphProto, weights: dict[str, Array], path: Path) -> None:
    """Constants become weights; so does what only copies or transposes a weight."""
    for tensor in graph.initializer:
        weights.setdefault(tensor.name, array(tensor, path))  # the version converter may have added some
    del graph.initializer[:]
    kept = []
    for node in graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        source = weights.get(node.input[0]) if node.input else None
        if node.op_type == "Constant" and value is not None:
            weights[node.output[0]] = array(value, path)
        elif node.op_type == "Identity" and source is not None:
            weights[node.output[0]] = source
        elif node.op_type == "Transpose" and source is not None:
            order = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
            weights[node.output[0]] = np.ascontiguousarray(np.transpose(source, order))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _open_inputs(graph: onnx.GraphProto) -> list[Port]:
    """Inputs [batch, length] of int64; one that the model takes as int32 is cast."""
    narrow = [item.name for item in graph.input if item.type.tensor_type.elem_type == TensorProto.INT32]
    _rename(graph, lambda name: f"{name}.int32" if name in narrow else name)
    casts = [helper.make_node("Cast", [name], [f"{name}.int32"], name=f"{name}.int32", to=6) for name in narrow]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    present = {item.name for item in graph.input}
    return [Port(name, "int64", ("batch", "length")) for name in INPUTS if name in present]


def _append_tail(
    graph: onnx.GraphProto, weights: dict[str, Array], output: Output, task: Task, dense: Mapping[str, Array]
) -> str:
    """Pooling, dense layers and normalising after the chosen output; returns the name of the new output."""
    build, current = Builder(), output.name
    if output.dtype != TensorProto.FLOAT:
        current = build.node("Cast", [current], "output.float", to=TensorProto.FLOAT)
    if output.kind == "hidden":
        pooling.masks(build)
        current = pooling.pool(build, current, task.pooling)
        for number, activation in enumerate(task.dense):
            weight, bias = dense[f"dense.{number}.weight"], dense[f"dense.{number}.bias"]
            across = build.weight(f"dense.{number}.weight", np.ascontiguousarray(weight.T))
            product = build.node("MatMul", [current, across], f"dense.{number}.product")
            total = build.node("Add", [product, build.weight(f"dense.{number}.bias", bias)], f"dense.{number}")
            current = pooling.activation(build, total, f"dense.{number}.{activation}", activation)
    if output.kind == "scores":
        current = pooling.activation(build, current, "scores.activated", task.activation)
    elif task.normalize:
        current = pooling.normalize(build, current)
    final = "scores" if output.kind == "scores" else "embedding"
    build.node("Identity", [current], final)
    taken = {name for node in nodes_of(graph) for name in (node.name, *node.output)} | set(weights)
    prefix = "tail."
    while any(name.startswith(prefix) for name in taken):
        prefix = f"_{prefix}"
    own = {node.name for node in build.nodes} | set(build.weights)
    for node in build.nodes:
        node.input[:] = [f"{prefix}{name}" if name in own else name for name in node.input]
        node.output[:] = [name if name == final else f"{prefix}{name}" for name in node.output]
        node.name = node.output[0]
    graph.node.extend(build.nodes)
    weights |= {f"{prefix}{name}": np.asarray(value) for name, value in build.weights.items()}
    return final


def cut(graph: onnx.GraphProto, weights: dict[str, Array]) -> None:
    """Drop nodes and weights that the output does not need."""
    needed = {item.name for item in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            for inner in graphs_of(onnx.GraphProto(node=[node])):
                needed |= {name for item in inner.node for name in item.input}
                needed |= {item.name for item in inner.output}
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    for name in set(weights) - needed:
        del weights[name]
