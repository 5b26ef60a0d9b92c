"""ncnn's layers in the making: the few of which everything else is made.

What a layer gives is known by its blob and its shape without the batch, where one size at most is open: a text's
length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.errors import UnsupportedError
from tightrope.workshop.convert._forms import signed
from tightrope.workshop.convert._ncnn_file import Layer, Setting, codes, plain, told
from tightrope.workshop.numerics.quantized import Array, Quantized, Weight

Shape = tuple[int | None, ...]

ADD, SUB, MUL, DIV, MAX, MIN, POW, RSUB, RDIV = range(9)
"""What BinaryOp calls its operations; the last two with their sides exchanged."""
_ORDERS = {"whc": 0, "hwc": 1, "wch": 2, "cwh": 3, "hcw": 4, "chw": 5, "wh": 0, "hw": 1}
_AXES = -23303
"""Reduction's axes, as a list."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A value: its name, and its shape from the outermost axis on, without the batch."""

    name: str
    shape: Shape


class Layers:
    """Collects layers, and what each of them gives."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.blobs: dict[str, Blob] = {}
        self.places: dict[str, int] = {}
        """How often a layer's weights are multiplied for each token or image, where it is not once."""

    def input(self, name: str, shape: Shape) -> None:
        """An input of the net."""
        self.layers.append(Layer("Input", name, (), (name,)))
        self.blobs[name] = Blob(name, shape)

    def layer(
        self,
        kind: str,
        inputs: Sequence[Blob],
        output: str,
        shape: Shape,
        settings: Mapping[int, Setting] | None = None,
        weights: Sequence[bytes] = (),
        *,
        name: str | None = None,
    ) -> Blob:
        """One layer with one output, which is what the model knows by `output`."""
        blob = Blob("_".join(output.split()), shape)
        taken = tuple(item.name for item in inputs)
        layer_name = "_".join((name or output).split())
        self.layers.append(Layer(kind, layer_name, taken, (blob.name,), settings or {}, tuple(weights)))
        self.blobs[output] = blob
        return blob

    def constant(self, value: Array, output: str) -> Blob:
        """An array in the file."""
        sizes = dict(zip((0, 1, 2), value.shape[::-1], strict=False))
        return self.layer("MemoryData", (), output, value.shape, sizes, [plain(value)])

    def reshaped(self, x: Blob, shape: Shape, output: str) -> Blob:
        """The same numbers in another shape."""
        if x.shape == shape:
            self.blobs[output] = x
            return x
        sizes = [-1 if size is None else size for size in reversed(shape)]
        return self.layer("Reshape", [x], output, shape, dict(zip((0, 1, 2), sizes, strict=False)))

    def permuted(self, x: Blob, order: Sequence[int], output: str) -> Blob:
        """The axes in another order."""
        letters = "chw"[-len(order) :]
        written = "".join(letters[axis] for axis in reversed(order))
        shape = tuple(x.shape[axis] for axis in order)
        return self.layer("Permute", [x], output, shape, {0: _ORDERS[written]})

    def pair(self, kind: int, a: Blob, b: Blob, output: str) -> Blob:
        """An operation on two values; the one of fewer axes is given axes of size 1 in front."""
        rank = max(len(a.shape), len(b.shape))
        sides = []
        for side in (a, b):
            missing = rank - len(side.shape)
            wide: Shape = (1,) * missing + side.shape
            sides.append(self.reshaped(side, wide, f"{output}.of.{side.name}") if missing else side)
        shape = tuple(y if x == 1 else x for x, y in zip(sides[0].shape, sides[1].shape, strict=True))
        return self.layer("BinaryOp", sides, output, shape, {0: kind})

    def scaled(self, x: Blob, kind: int, number: float, output: str) -> Blob:
        """An operation on a value and one number."""
        return self.layer("BinaryOp", [x], output, x.shape, {0: kind, 1: 1, 2: float(number)})

    def reduced(self, x: Blob, kind: int, axes: Sequence[int], output: str, *, keeps: bool) -> Blob:
        """Sums and the like over some axes."""
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        left = tuple(size for axis, size in enumerate(x.shape) if axis not in axes) or (1,)
        options: dict[int, Setting] = {0: kind, 1: 0, _AXES: [len(axes), *axes], 4: int(keeps), 5: 1}
        return self.layer("Reduction", [x], output, kept if keeps else left, options)

    def table(self, weight: Weight, ids: Blob, output: str, start: int = 0) -> Blob:
        """Rows of a table, from row `start` on; of few bits in a byte a code, widened after they are gathered."""
        rows, width = weight.shape
        length = ids.shape[0]
        if not isinstance(weight, Quantized):
            kept = weight[start:]
            options: dict[int, Setting] = {0: width, 1: len(kept), 2: 0, 3: kept.size}
            return self.layer("Embed", [ids], output, (length, width), options, [told(kept)])
        assert start == 0
        stored, zero = signed(weight)
        options = {0: width, 1: rows, 2: 0, 3: stored.size, 18: 1}
        unit = plain(np.ones(1, np.float32))
        x = self.layer("Embed", [ids], f"{output}.codes", (length, width), options, [codes(stored), unit])
        x = self._spread(x, MUL, weight, weight.scale, ids, f"{output}.scale")
        if zero.any():
            x = self._spread(x, SUB, weight, zero.astype(np.float32) * weight.scale, ids, f"{output}.zero")
        self.blobs[output] = x
        return x

    def _spread(self, x: Blob, kind: int, weight: Quantized, value: Array, ids: Blob, name: str) -> Blob:
        """An operation on gathered rows and what their scales or zero points say."""
        rows, width = weight.shape
        if weight.block is None and weight.axis == 1:
            return self.pair(kind, x, self.constant(value, f"{name}.by.feature"), name)
        if weight.axis == 0:
            by_row = value[:, None] if weight.block is None else np.repeat(value, weight.block, 0)[:rows]
            return self.pair(kind, x, self.table(by_row, ids, f"{name}.rows"), name)
        blocks = value.shape[1]
        if width % blocks:
            raise UnsupportedError(
                f"ncnn cannot read {name} in blocks that are not whole.", hint="Use blocks that divide its width."
            )
        parts = self.reshaped(x, (x.shape[0], blocks, width // blocks), f"{name}.parts")
        scales = self.table(value, ids, f"{name}.rows")
        wide = self.reshaped(scales, (x.shape[0], blocks, 1), f"{name}.wide")
        return self.reshaped(self.pair(kind, parts, wide, f"{name}.whole"), x.shape, name)

    def float_product(self, x: Blob, weight: Array, bias: Array | None, output: str) -> Blob:
        """A linear layer in float: weight [out, in]."""
        return self.gemm(x, weight.shape, [told(weight)], bias, output, 0, name=output)

    def gemm(
        self,
        x: Blob,
        size: tuple[int, ...],
        weights: Sequence[bytes],
        bias: Array | None,
        output: str,
        term: int,
        *,
        name: str,
        after: Sequence[bytes] = (),
    ) -> Blob:
        """x · weightᵀ + bias; `term` says how weights are stored. ncnn reads a vector wrongly, so it is made a row."""
        out, width = size
        options: dict[int, Setting] = {3: 1, 5: 1, 6: 1, 8: out, 9: width, 10: -1 if bias is None else 4}
        if term:
            options[18] = term
        parts = [*weights, *([] if bias is None else [told(np.asarray(bias, np.float32))]), *after]
        if len(x.shape) == 2:
            return self.layer("Gemm", [x], output, (x.shape[0], out), options, parts, name=name)
        if len(x.shape) != 1:
            raise UnsupportedError(f"ncnn cannot run {name} on {len(x.shape)} axes.", hint="Choose another engine.")
        row = self.reshaped(x, (1, width), f"{output}.row")
        return self.reshaped(
            self.layer("Gemm", [row], f"{output}.rows", (1, out), options, parts, name=name), (out,), output
        )
