"""The native engine's file as bytes: docs/formats/native.md says what lies where."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tightrope.workshop.numerics.quantized import Array

MAGIC, FORMAT = b"TIGHTROP", 1
ALIGNMENT = 64
PANEL, BLOCK = 16, 64
"""Outputs of a panel, inputs of a block: what layouts are made of, whatever the instruction set."""

FLOAT32, FLOAT16, INT8, INT4, INT6, INT32, BYTES = range(1, 8)
"""What a section's elements are."""

_ELEMENTS = {"float32": FLOAT32, "float16": FLOAT16, "int8": INT8, "int32": INT32}


@dataclass(frozen=True, slots=True)
class Section:
    """A named run of bytes, and what its elements are."""

    data: bytes
    element: int = BYTES


def array(values: Array) -> Section:
    """An array as a section of its own dtype."""
    return Section(np.ascontiguousarray(values).tobytes(), _ELEMENTS[str(values.dtype)])


def file(sections: Mapping[str, Section]) -> bytes:
    """A header, a table, and the sections, each at a multiple of 64 bytes."""
    offset = 64 + 64 * len(sections)
    table, body = [], []
    for name, section in sections.items():
        encoded = name.encode()
        assert len(encoded) < 32, name
        table.append(struct.pack("<32sQQI12x", encoded, offset, len(section.data), section.element))
        padding = -len(section.data) % ALIGNMENT
        body += [section.data, bytes(padding)]
        offset += len(section.data) + padding
    header = struct.pack("<8sIIQ40x", MAGIC, FORMAT, len(sections), offset)
    return b"".join([header, *table, *body])


def padded(values: Array, shape: tuple[int, ...]) -> Array:
    """An array with zeros behind, up to a shape."""
    found = np.zeros(shape, values.dtype)
    found[tuple(slice(size) for size in values.shape)] = values
    return found


def round_up(value: int, multiple: int) -> int:
    """The next multiple.

    >>> round_up(17, 16)
    32
    """
    return -(-value // multiple) * multiple


def integer_panels(codes: Array) -> Array:
    """Codes [out, in] as [out / 16, in / 4, 16, 4], filled up with zeros to whole panels and blocks."""
    out, width = round_up(codes.shape[0], PANEL), round_up(codes.shape[1], BLOCK)
    whole = padded(codes, (out, width))
    return whole.reshape(out // PANEL, PANEL, width // 4, 4).transpose(0, 2, 1, 3)


def float_panels(values: Array) -> Array:
    """Values [out, in] as [out / 16, in, 16], filled up with zeros to whole panels."""
    out = round_up(values.shape[0], PANEL)
    return padded(values, (out, values.shape[1])).reshape(out // PANEL, PANEL, -1).transpose(0, 2, 1)


def nibbles(panels: Array) -> bytes:
    """Codes [..., 16] of 4 bits: outputs 0 to 7 are the low halves of 8 bytes, 8 to 15 the high ones."""
    codes = panels.view(np.uint8) & 15
    both: Array = codes[..., :8] | (codes[..., 8:] << 4)
    return both.tobytes()


def packed_rows(codes: Array, bits: int) -> bytes:
    """Rows [n, width] of codes of 4 or 6 bits, 32 together: 16 bytes of low halves, then 8 of the upper two bits."""
    groups = (codes.view(np.uint8) & (2**bits - 1)).reshape(len(codes), -1, 32)
    low: Array = (groups[..., :16] & 15) | ((groups[..., 16:] & 15) << 4)
    if bits == 4:
        return low.tobytes()
    top = (groups >> 4).reshape(*groups.shape[:2], 4, 8)
    high = top[..., 0, :] | (top[..., 1, :] << 2) | (top[..., 2, :] << 4) | (top[..., 3, :] << 6)
    return np.concatenate([low, high], axis=-1).tobytes()
