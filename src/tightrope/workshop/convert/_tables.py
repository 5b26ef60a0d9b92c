"""Tables of few bits in ONNX: only the rows that are gathered are unpacked and widened.

Dequantising a whole table before gathering from it makes engines keep a float copy of it.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from tightrope.workshop.graph import Builder
from tightrope.workshop.numerics.quantized import Array, Quantized, Weight

FLOAT = 1


def gather(build: Builder, node: onnx.NodeProto, weights: Mapping[str, Weight]) -> bool:
    """Gather rows of a quantised table [rows, features], if that is what the node does: whether it was written.

    Codes of 4 and 6 bits are stored packed: a byte holds two codes' lower 4 bits, and for 6 bits another
    holds four codes' upper 2.
    """
    weight = weights.get(node.input[0]) if node.op_type == "Gather" else None
    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    if not isinstance(weight, Quantized) or len(weight.shape) != 2 or axis != 0:
        return False
    table, ids, output = node.input[0], node.input[1], node.output[0]
    features = weight.shape[1]
    packed = weight.bits in (4, 6) and features % 4 == 0
    codes, offset = _unsigned(weight) if packed else (weight.codes, 0)
    if packed:
        current = _unpacked(build, table, ids, codes, weight.bits)
    else:
        current = build.node("Gather", [build.weight(f"{table}.codes", codes), ids], f"{output}.codes", axis=0)
        current = build.node("Cast", [current], f"{output}.wide", to=FLOAT)
    if weight.zero_point is not None:
        zero = _parameter(build, table, ids, weight, weight.zero_point, "zero")
        zero = build.node("Cast", [zero], f"{output}.zero", to=FLOAT)
        current = build.node("Sub", [current, zero], f"{output}.centred")
    if offset:
        centre = build.constant(float(offset), f"{table}.centre")
        current = build.node("Sub", [current, centre], f"{output}.signed")
    scale = _parameter(build, table, ids, weight, weight.scale, "scale")
    build.node("Mul", [current, scale], output)
    return True


def _unsigned(weight: Quantized) -> tuple[Array, int]:
    """Codes from zero up, and what was added to them."""
    if weight.codes.dtype == np.uint8:
        return weight.codes, 0
    offset = 2 ** (weight.bits - 1)
    return (weight.codes.astype(np.int16) + offset).astype(np.uint8), offset


def _unpacked(build: Builder, table: str, ids: str, codes: Array, bits: int) -> str:
    """The gathered rows' codes as float32 [..., features].

    By masks and factors, not by shifts: OpenVINO 2026.4 divides where it should shift, and does not round down.
    """
    half, quarter = codes.shape[1] // 2, codes.shape[1] // 4
    low, high = codes & 15, (codes >> 4).reshape(-1, 4, quarter)
    lower = low[:, :half] | (low[:, half:] << 4)
    upper = high[:, 0] | (high[:, 1] << 2) | (high[:, 2] << 4) | (high[:, 3] << 6)
    stored = build.weight(f"{table}.packed", lower if bits == 4 else np.concatenate([lower, upper], 1))
    rows = build.node("Gather", [stored, ids], f"{table}.rows", axis=0)
    if bits == 4:
        return _plane(build, rows, f"{table}.lower", half, {15: 1.0, 240: 1 / 16})
    sizes = build.constant([half, quarter], f"{table}.planes")
    rows, top = build.split("Split", [rows, sizes], [f"{table}.rows.lower", f"{table}.rows.upper"], axis=-1)
    lower_codes = _plane(build, rows, f"{table}.lower", half, {15: 1.0, 240: 1 / 16})
    upper_codes = _plane(build, top, f"{table}.upper", quarter, {3: 16.0, 12: 4.0, 48: 1.0, 192: 1 / 4})
    return build.node("Add", [lower_codes, upper_codes], f"{table}.whole")


def _plane(build: Builder, rows: str, name: str, width: int, fields: Mapping[int, float]) -> str:
    """The fields of each byte side by side, `width` of each, as float32; a field is a mask and the factor it needs."""
    parts = [
        build.node("BitwiseAnd", [rows, build.constant(np.array(mask, np.uint8), f"mask.{mask}")], f"{name}.{mask}")
        for mask in fields
    ]
    wide = build.node("Cast", [build.node("Concat", parts, f"{name}.parts", axis=-1)], f"{name}.wide", to=FLOAT)
    factors = build.constant(np.repeat(np.array(list(fields.values()), np.float32), width), f"{name}.factors")
    return build.node("Mul", [wide, factors], name)


def _parameter(build: Builder, table: str, ids: str, weight: Quantized, value: Array, suffix: str) -> str:
    """A scale or zero point of the gathered rows, one for each feature or one for all of a row."""
    name = f"{table}.{suffix}"
    if weight.block is None and weight.axis == 1:
        return build.weight(name, value)
    by_row = weight.axis == 0
    if by_row and weight.block is not None:
        value = np.repeat(value, weight.block, 0)[: weight.shape[0]]
    stored = build.weight(name, value[:, None] if weight.block is None else value)
    rows = build.node("Gather", [stored, ids], f"{name}.rows", axis=0)
    if by_row:
        return rows
    assert weight.block is not None
    spread = build.constant(list(np.arange(weight.shape[1]) // weight.block), f"{table}.block_of")
    return build.node("Gather", [rows, spread], f"{name}.spread", axis=-1)
