"""The file of LiteRT, edited: weights that its converter wrote as floats are stored as the codes that they stand for.

The converter knows no annotations, so it is given the values on their grids; here each is found again by its bytes and
stored as its codes and scales. Nothing is rounded anew: the codes are the model's own, by construction.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tightrope.workshop.numerics.quantized import Array, Floats, Quantized

Stored = Quantized | Array
"""What takes the place of floats: codes (symmetric, around zero), or values of half precision."""

_LAYERS = {
    schema.BuiltinOperator.FULLY_CONNECTED: 1,
    schema.BuiltinOperator.EMBEDDING_LOOKUP: 1,
}
"""The operators that take integer weights beside float inputs, and which of their inputs the weights are."""


def stored(data: bytes, weights: Mapping[str, tuple[Floats, Stored]]) -> tuple[bytes, frozenset[str]]:
    """The file with the weights stored as said, and the names of those that were found and could be.

    `weights` maps a name to the float32 values that the converter was given, and to what they are to be stored as.
    """
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    by_bytes = {_key(floats): (name, store) for name, (floats, store) in weights.items()}
    sizes = {size for _, size in by_bytes}
    places: dict[int, tuple[str, Stored]] = {}
    for index, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data) in sizes:
            found = by_bytes.get(_key(np.asarray(buffer.data)))
            if found is not None:
                places[index] = found
    for index in _elsewhere(model, places):
        del places[index]
    for graph in model.subgraphs:
        _unnamed(graph)
        _put(model, graph, places)
    for index, (_, store) in places.items():
        model.buffers[index].data = _packed(store)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), frozenset(name for name, _ in places.values())


def _key(values: Array) -> tuple[bytes, int]:
    """What tells two arrays apart by their bytes."""
    raw = np.ascontiguousarray(values).view(np.uint8).ravel()
    return hashlib.sha256(raw.data).digest(), raw.nbytes


def _elsewhere(model: Any, places: Mapping[int, tuple[str, Stored]]) -> set[int]:
    """The buffers of codes that an operator takes which knows no integer weights."""
    found = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            weights = _LAYERS.get(_code(model, operator))
            for index, number in enumerate(operator.inputs):
                buffer = graph.tensors[number].buffer if number >= 0 else 0
                if buffer in places and _is_taken(places[buffer][1]) and index != weights:
                    found.add(buffer)
    return found


def _code(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _unnamed(graph: Any) -> None:
    """Drop the names of all that lies between inputs and outputs: places in torch's code, longer than the code."""
    ends = {int(number) for number in (*graph.inputs, *graph.outputs)}
    for number, item in enumerate(graph.tensors):
        if number not in ends:
            item.name = b""


def _put(model: Any, graph: Any, places: Mapping[int, tuple[str, Stored]]) -> None:
    """Let the tensors of one subgraph be what their buffers will hold."""
    widened = []
    for number, item in enumerate(list(graph.tensors)):
        if item.buffer not in places:
            continue
        name, store = places[item.buffer]
        if not _is_taken(store):
            widened.append(_widening(model, graph, number))
            item = graph.tensors[-1]
        item.name = name.encode()
        item.type = _type(store)
        if isinstance(store, Quantized):
            item.quantization = _parameters(model, graph, name, store)
    graph.operators = [*widened, *graph.operators]


def _is_taken(store: Stored) -> bool:
    """Whether operators take it as it is stored; halves, and codes of convolutions, are made floats where they lie."""
    return isinstance(store, Quantized) and store.codes.ndim == 2


def _type(store: Stored) -> int:
    if not isinstance(store, Quantized):
        return int(schema.TensorType.FLOAT16)
    return int(schema.TensorType.INT4 if store.bits == 4 else schema.TensorType.INT8)


def _parameters(model: Any, graph: Any, name: str, weight: Quantized) -> Any:
    """Scales and zeros as the format has them: one for each row, or in a tensor of their own one for each block."""
    found = schema.QuantizationParametersT()
    found.quantizedDimension = weight.axis if weight.block is None else 0
    if weight.block is None:
        found.scale = weight.scale.astype(np.float32)
        found.zeroPoint = np.zeros(len(weight.scale), np.int64)
        return found
    blocks = schema.BlockwiseQuantizationT()
    blocks.scales = _constant(model, graph, f"{name}.scales", block_scales(weight.scale))
    blocks.zeroPoints, blocks.blockSize = -1, weight.block
    found.detailsType, found.details = schema.QuantizationDetails.BlockwiseQuantization, blocks
    return found


def block_scales(scale: Floats) -> Array:
    """Scales of blocks as the kernels take them: float16, of which seven bits behind the point are looked at."""
    return scale.astype(ml_dtypes.bfloat16).astype(np.float16)


def _constant(model: Any, graph: Any, name: str, values: Array) -> int:
    """A tensor of half precision with a buffer of its own; its number."""
    buffer, item = schema.BufferT(), schema.TensorT()
    buffer.data = values.view(np.uint8).ravel()
    model.buffers.append(buffer)
    item.name, item.shape, item.buffer = name.encode(), list(values.shape), len(model.buffers) - 1
    item.type, item.hasRank = schema.TensorType.FLOAT16, True
    graph.tensors.append(item)
    return len(graph.tensors) - 1


def _widening(model: Any, graph: Any, number: int) -> Any:
    """The operator that makes float32 of what is stored, in the place of a constant; that is the last tensor now."""
    wide = graph.tensors[number]
    narrow = schema.TensorT()
    narrow.shape, narrow.buffer, narrow.hasRank = list(wide.shape), wide.buffer, True
    wide.buffer = 0
    graph.tensors.append(narrow)
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, schema.BuiltinOperator.DEQUANTIZE)
    operator.inputs, operator.outputs = [len(graph.tensors) - 1], [number]
    return operator


def _opcode(model: Any, builtin: int) -> int:
    for index, code in enumerate(model.operatorCodes):
        if max(int(code.builtinCode), int(code.deprecatedBuiltinCode)) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 3
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _packed(store: Stored) -> Array:
    """The bytes of codes, two of 4 bits to a byte, or of halves."""
    if not isinstance(store, Quantized):
        return np.ascontiguousarray(store, np.float16).view(np.uint8).ravel()
    flat = np.ascontiguousarray(store.codes).view(np.uint8).ravel()
    if store.bits != 4:
        return flat
    even = np.append(flat, np.zeros(flat.size % 2, np.uint8)) & 15
    return even[0::2] | (even[1::2] << 4)


def codes(data: bytes) -> dict[str, tuple[Array, Floats]]:
    """The integer weights in a file, by name: codes (int8) and scales."""
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    found = {}
    for graph in model.subgraphs:
        for item in graph.tensors:
            if item.type not in (schema.TensorType.INT8, schema.TensorType.INT4) or not item.buffer:
                continue
            raw = np.asarray(model.buffers[item.buffer].data)
            if item.type == schema.TensorType.INT4:
                raw = np.stack([raw & 15, raw >> 4], 1).ravel()[: int(np.prod(item.shape))]
                raw = raw - ((raw & 8) << 1)
            details = item.quantization.details
            scale = item.quantization.scale
            if details is not None:
                scale = np.asarray(model.buffers[graph.tensors[details.scales].buffer].data).view(np.float16)
            found[item.name.decode()] = raw.view(np.int8).reshape(item.shape), np.asarray(scale, np.float32)
    return found
