"""ncnn's two files, written: a line for each layer with its settings, and the bytes of all weights in a row.

The format is described in ncnn's own documents (param-and-model-file-structure, operation-param-weight-table). A blob
that several layers take must go through a Split; what nothing takes is left out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tightrope.workshop.numerics.quantized import Array, Quantized, Weight, values

MAGIC = "7767517"
_FLOAT32, _FLOAT16, _INT8 = 0, 0x01306B47, 0x000D4B38
"""What stands before weights that say of themselves what they are."""

Setting = int | float | Sequence[int]


@dataclass(frozen=True, slots=True)
class Layer:
    """One line of the file, and its weights as bytes in the order in which the layer reads them."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[int, Setting] = field(default_factory=dict)
    weights: tuple[bytes, ...] = ()

    def __str__(self) -> str:
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        settings = (f"{key}={_written(value)}" for key, value in self.settings.items())
        return " ".join([f"{self.kind:<16} {self.name:<24} {counts}", *self.inputs, *self.outputs, *settings])


def _written(value: Setting) -> str:
    """Numbers with a point are floats to ncnn, those without are integers; a list needs a comma even if it is short."""
    if isinstance(value, Sequence):
        return ",".join(map(str, value))
    return repr(float(np.float32(value))) if isinstance(value, float) else str(value)


def files(layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[bytes, bytes]:
    """The text of the structure and the bytes of the weights."""
    whole = _split(_alive(layers, outputs))
    blobs = sum(len(layer.outputs) for layer in whole)
    text = "\n".join([MAGIC, f"{len(whole)} {blobs}", *map(str, whole)]) + "\n"
    return text.encode(), b"".join(part for layer in whole for part in layer.weights)


def _alive(layers: Sequence[Layer], outputs: Sequence[str]) -> list[Layer]:
    """The layers that something depends on."""
    wanted, kept = set(outputs), []
    for layer in reversed(layers):
        if wanted.intersection(layer.outputs):
            wanted.update(layer.inputs)
            kept.append(layer)
    return kept[::-1]


def _split(layers: Sequence[Layer]) -> list[Layer]:
    """A Split behind every blob that is taken more than once; each taker gets a name of its own."""
    takers = Counter(name for layer in layers for name in layer.inputs)
    given: Counter[str] = Counter()
    found = []
    for layer in layers:
        names = []
        for name in layer.inputs:
            names.append(f"{name}.{given[name]}" if takers[name] > 1 else name)
            given[name] += 1
        found.append(replace(layer, inputs=tuple(names)))
        for name in layer.outputs:
            if takers[name] > 1:
                copies = tuple(f"{name}.{index}" for index in range(takers[name]))
                found.append(Layer("Split", f"{name}.split", (name,), copies))
    return found


# Weights ------------------------------------------------------------------------------------------------


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def plain(array: Array) -> bytes:
    """Floats that a layer reads without being told what they are."""
    return np.ascontiguousarray(array, "<f4").tobytes()


def told(weight: Weight) -> bytes:
    """Weights that say what they are: floats of four or two bytes; a quantised one is given back its values."""
    if not isinstance(weight, Quantized) and weight.dtype == np.float16:
        return _FLOAT16.to_bytes(4, "little") + _padded(np.ascontiguousarray(weight).tobytes())
    return _FLOAT32.to_bytes(4, "little") + plain(values(weight))


def codes(array: Array) -> bytes:
    """Codes of a byte each, which say that they are."""
    assert array.dtype == np.int8
    return _INT8.to_bytes(4, "little") + _padded(np.ascontiguousarray(array).tobytes())


def packed(array: Array, bits: int) -> bytes:
    """Signed codes [out, in] of few bits, the lowest first, each row beginning with a byte of its own."""
    low = array.astype(np.uint8) & (2**bits - 1)
    spread = (low[:, :, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return _padded(np.packbits(spread.reshape(len(array), -1), axis=1, bitorder="little").tobytes())
