"""Whether TensorRT's ONNX parser takes a model, by what its documentation says: operators, types and restrictions.

A model that passes may still be refused: the parser's own word needs a GPU.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tightrope.errors import UnsupportedError


@cache
def documented() -> Mapping[str, Any]:
    """The documented operators, as stored beside this file, with their source and version."""
    return tomllib.loads((files(__package__) / "tensorrt_operators.toml").read_text())


def check(proto: onnx.ModelProto) -> None:
    """Raise `UnsupportedError` with the node's name for what the documentation does not list, or restricts."""
    _check_opset(proto)
    types, shapes = _inferred(proto)
    constants = {item.name: item for item in proto.graph.initializer}
    for node in proto.graph.node:
        _check_node(node, types, constants)
        _check_rank(node, shapes)


def _check_opset(proto: onnx.ModelProto) -> None:
    low, high = documented()["opsets"]
    for item in proto.opset_import:
        if item.domain or not low <= item.version <= high:
            raise UnsupportedError(
                f"The model is of opset {item.domain or 'ai.onnx'} {item.version}.",
                hint=f"TensorRT {documented()['version']} takes ai.onnx {low} to {high}.",
            )


def _check_node(node: onnx.NodeProto, types: Mapping[str, str], constants: Mapping[str, onnx.TensorProto]) -> None:
    known = documented()
    kind = next((kind for kind, names in known["operators"].items() if node.op_type in names), None)
    if kind is None:
        raise _refused(node, f"the parser of TensorRT {known['version']} has no {node.op_type}")
    found = types.get(node.input[0]) if node.input else None
    if found is not None and found not in known["types"][kind]:
        raise _refused(node, f"its input is {found}, and {node.op_type} takes {', '.join(known['types'][kind])}")
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
        zero = constants.get(node.input[2])
        if zero is None or np.asarray(numpy_helper.to_array(zero)).astype(np.float32).any():
            raise _refused(node, "its zero point is not zero")
    if node.op_type in known["constant_axes"] and len(node.input) > 1 and node.input[1] not in constants:
        raise _refused(node, "its axes are not constant")


def _check_rank(node: onnx.NodeProto, ranks: Mapping[str, int]) -> None:
    rank = ranks.get(node.input[0]) if node.op_type in documented()["flat_or_deep"] else None
    if rank not in (None, 4, 5):
        raise _refused(node, f"it has {(rank or 0) - 2} dimensions, and the parser takes 2 or 3")


def _refused(node: onnx.NodeProto, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"TensorRT cannot run {node.name or node.output[0]}: {reason}.", hint="Choose another engine for this model."
    )


def _inferred(proto: onnx.ModelProto) -> tuple[dict[str, str], dict[str, int]]:
    """The type of each value, and its rank where it is known."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    types, ranks = {}, {}
    for item in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = item.type.tensor_type
        types[item.name] = _type(tensor.elem_type)
        if tensor.HasField("shape"):
            ranks[item.name] = len(tensor.shape.dim)
    for item in proto.graph.initializer:
        types[item.name], ranks[item.name] = _type(item.data_type), len(item.dims)
    return types, ranks


def _type(kind: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(kind)) if kind else "of unknown type"
