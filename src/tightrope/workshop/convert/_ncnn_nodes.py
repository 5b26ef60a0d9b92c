"""ONNX nodes as ncnn's layers. ncnn's arrays have no batch: the first axis of every value is dropped."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tightrope.device.runtimes.ncnn import POSITIONS
from tightrope.errors import UnsupportedError
from tightrope.workshop.convert._ncnn_file import Setting, plain
from tightrope.workshop.convert._ncnn_layers import ADD, DIV, MAX, MIN, MUL, POW, RDIV, RSUB, SUB, Blob, Layers, Shape
from tightrope.workshop.numerics.quantized import Array, Quantized, Weight, values

_BINARY = {"Add": ADD, "Sub": SUB, "Mul": MUL, "Div": DIV, "Max": MAX, "Min": MIN, "Pow": POW}
_EXCHANGED = {SUB: RSUB, DIV: RDIV}
_UNARY = {"Abs": 0, "Neg": 1, "Floor": 2, "Ceil": 3, "Sqrt": 5, "Exp": 7, "Log": 8, "Reciprocal": 15, "Round": 18}
_SIMPLE = {"Relu": "ReLU", "Tanh": "TanH", "Sigmoid": "Sigmoid", "Erf": "Erf"}
_REDUCTIONS = {"ReduceSum": 0, "ReduceSumSquare": 2, "ReduceMean": 3, "ReduceMax": 4, "ReduceMin": 5, "ReduceL2": 8}
_SAME = ("Identity", "Cast", "Dropout")


class Nodes(Layers):
    """Layers from nodes. `constants` are what nodes take by name and no node gives."""

    def __init__(self, constants: Mapping[str, Weight]) -> None:
        super().__init__()
        self.constants = constants
        self._lengths: set[str] = set()
        self._rules: dict[str, Callable[[onnx.NodeProto, dict[str, Any]], None]] = {
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys((*_UNARY, *_SIMPLE), self._unary),
            **dict.fromkeys(_REDUCTIONS, self._reduce),
            **dict.fromkeys(_SAME, self._same),
            **dict.fromkeys(("Reshape", "Flatten", "Unsqueeze", "Squeeze"), self._reshape),
            **dict.fromkeys(("MaxPool", "AveragePool"), self._pool),
            "BatchNormalization": self._batch_norm,
            "Clip": self._clip,
            "Concat": self._concat,
            "Gather": self._gather,
            "Gelu": self._gelu,
            "GlobalAveragePool": self._global_pool,
            "HardSigmoid": self._hard,
            "HardSwish": self._hard,
            "LayerNormalization": self._layer_norm,
            "MatMul": self._product_of_two,
            "Shape": self._length,
            "Slice": self._slice,
            "Softmax": self._softmax,
            "Transpose": self._transpose,
        }

    def node(self, node: onnx.NodeProto) -> None:
        """One node. Raises `UnsupportedError` with its name if ncnn has no layer for it."""
        if self._lengths.intersection(node.input) and node.op_type in ("Add", "Concat", "Cast"):
            self._lengths.update(node.output)
            return
        rule = self._rules.get(node.op_type)
        if rule is None:
            raise refused(node, f"ncnn has no layer for {node.op_type}")
        rule(node, {item.name: helper.get_attribute_value(item) for item in node.attribute})

    def blob(self, name: str, node: onnx.NodeProto) -> Blob:
        """A value that some layer gives."""
        if name not in self.blobs:
            raise refused(node, f"ncnn cannot take {name} there, which no layer gives")
        return self.blobs[name]

    # Node by node ------------------------------------------------------------------------------------

    def _same(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        self.blobs[node.output[0]] = self.blob(node.input[0], node)

    def _binary(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        kind, output = _BINARY[node.op_type], node.output[0]
        if len(node.input) != 2:
            raise refused(node, f"ncnn takes two sides of {node.op_type}, not {len(node.input)}")
        left, right = (self._value(name) for name in node.input)
        if left is not None and right is not None:
            raise refused(node, "ncnn has no layer for two constants")
        if right is None and left is None:
            self.pair(kind, self.blob(node.input[0], node), self.blob(node.input[1], node), output)
            return
        number = right if left is None else left
        assert number is not None
        x = self.blob(node.input[0 if left is None else 1], node)
        if number.size == 1:
            self.scaled(x, kind if left is None else _EXCHANGED.get(kind, kind), float(number.reshape(())), output)
            return
        fitted = self.constant(_without_batch(number, len(x.shape)), f"{output}.constant")
        sides = (x, fitted) if left is None else (fitted, x)
        self.pair(kind, *sides, output)

    def _value(self, name: str) -> Array | None:
        return values(self.constants[name]) if name in self.constants else None

    def _integers(self, name: str, node: onnx.NodeProto) -> list[int]:
        found = self.constants.get(name)
        if found is None or isinstance(found, Quantized):
            raise refused(node, f"ncnn needs {name} as a constant")
        return [int(number) for number in np.asarray(found).ravel()]

    def _unary(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        if node.op_type in _SIMPLE:
            self.layer(_SIMPLE[node.op_type], [x], node.output[0], x.shape)
        else:
            self.layer("UnaryOp", [x], node.output[0], x.shape, {0: _UNARY[node.op_type]})

    def _gelu(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        self.layer("GELU", [x], node.output[0], x.shape, {0: int(settings.get("approximate") == b"tanh")})

    def _hard(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        is_swish = node.op_type == "HardSwish"
        alpha = 1 / 6 if is_swish else float(settings.get("alpha", 0.2))
        beta = 0.5 if is_swish else float(settings.get("beta", 0.5))
        self.layer(node.op_type, [x], node.output[0], x.shape, {0: alpha, 1: beta})

    def _clip(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        x, settings = self.blob(node.input[0], node), {}
        for place, name in enumerate(node.input[1:]):
            if name:
                limit = self._value(name)
                if limit is None:
                    raise refused(node, "ncnn needs the limits of Clip as constants")
                settings[place] = float(limit.reshape(()))
        self.layer("Clip", [x], node.output[0], x.shape, settings)

    def _softmax(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        self.layer("Softmax", [x], node.output[0], x.shape, {0: self._axis(settings.get("axis", -1), x, node), 1: 1})

    def _axis(self, axis: int, x: Blob, node: onnx.NodeProto) -> int:
        """An axis without the batch."""
        found = axis + len(x.shape) if axis < 0 else axis - 1
        if not 0 <= found < len(x.shape):
            raise refused(node, "ncnn has no axis for the batch")
        return found

    def _layer_norm(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        width = x.shape[-1]
        if settings.get("axis", -1) not in (-1, len(x.shape)) or width is None or len(node.input) != 3:
            raise refused(node, "ncnn normalises the last axis, with a gain and a bias")
        gain, bias = (values(self.constants[name]) for name in node.input[1:])
        options: dict[int, Setting] = {0: width, 1: float(settings.get("epsilon", 1e-5)), 2: 1}
        self.layer("LayerNorm", [x], node.output[0], x.shape, options, [plain(gain), plain(bias)])

    def _reduce(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        listed = self._integers(node.input[1], node) if len(node.input) > 1 else list(settings.get("axes", ()))
        if not listed:
            raise refused(node, "ncnn has no axis for the batch")
        axes = sorted(self._axis(axis, x, node) for axis in listed)
        keeps = int(settings.get("keepdims", 1))
        self.reduced(x, _REDUCTIONS[node.op_type], axes, node.output[0], keeps=bool(keeps))

    def _reshape(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        if node.op_type == "Flatten":
            shape: list[int | None] = [_product(x.shape)]
        elif node.op_type == "Reshape":
            shape = self._target(node, x)
        else:
            listed = self._integers(node.input[1], node) if len(node.input) > 1 else list(settings.get("axes", ()))
            shape = list(x.shape)
            if node.op_type == "Unsqueeze":
                rank = len(x.shape) + 1 + len(listed)
                for axis in sorted(axis % rank for axis in listed):
                    shape.insert(axis - 1, 1)
            else:
                gone = {self._axis(axis, x, node) for axis in listed}
                shape = [size for axis, size in enumerate(x.shape) if axis not in gone]
        self.reshaped(x, tuple(shape), node.output[0])

    def _target(self, node: onnx.NodeProto, x: Blob) -> list[int | None]:
        """What Reshape asks for, without the batch; 0 keeps a size, -1 takes what is left."""
        wanted = self._integers(node.input[1], node)[1:]
        sizes: list[int | None] = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
        if -1 in sizes:
            others = _product(tuple(size for size in sizes if size != -1))
            whole = _product(x.shape)
            rest = None if whole is None or others is None else whole // others
            sizes = [rest if size == -1 else size for size in sizes]
        if sizes.count(None) > 1 or not 1 <= len(sizes) <= 3:
            raise refused(node, "ncnn cannot tell the shape")
        return sizes

    def _transpose(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x, perm = self.blob(node.input[0], node), list(settings["perm"])
        if perm[0] != 0 or not 2 <= len(x.shape) <= 3:
            raise refused(node, "ncnn cannot move the batch")
        self.permuted(x, [axis - 1 for axis in perm[1:]], node.output[0])

    def _concat(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        parts = [self.blob(name, node) for name in node.input]
        axis = self._axis(settings["axis"], parts[0], node)
        shape = list(parts[0].shape)
        sizes = [part.shape[axis] for part in parts]
        shape[axis] = None if None in sizes else sum(size for size in sizes if size is not None)
        self.layer("Concat", parts, node.output[0], tuple(shape), {0: axis})

    def _product_of_two(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        if (weight := self._value(node.input[1])) is not None and weight.ndim == 2:
            self.float_product(self.blob(node.input[0], node), weight.T, None, node.output[0])
            return
        a, b = (self.blob(name, node) for name in node.input)
        self.layer("MatMul", [a, b], node.output[0], (*a.shape[:-1], b.shape[-1]))

    # Tables and positions ----------------------------------------------------------------------------

    def _length(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        """A shape is no value to ncnn; what is made of it is understood where it is used."""
        self._lengths.update(node.output)

    def _slice(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        """The first rows of a table, as many as the text has tokens."""
        table = self._value(node.input[0])
        follows = len(node.input) > 3 and node.input[2] in self._lengths and self._integers(node.input[3], node) == [0]
        if table is None or not follows or POSITIONS not in self.blobs:
            raise refused(node, "ncnn slices a table of positions only")
        start = self._integers(node.input[1], node)[0]
        self.table(self.constants[node.input[0]], self.blobs[POSITIONS], node.output[0], start)

    def _gather(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        axis, output = settings.get("axis", 0), node.output[0]
        if node.input[0] in self.constants and axis == 0:
            self.table(self.constants[node.input[0]], self.blob(node.input[1], node), output)
            return
        x, index = self.blob(node.input[0], node), self._integers(node.input[1], node)
        place = self._axis(axis, x, node)
        if place == len(x.shape) - 1 and np.ndim(self.constants[node.input[1]]) == 1:  # type: ignore[arg-type]
            self._features(x, index, output)
            return
        if len(index) != 1 or np.ndim(self.constants[node.input[1]]) != 0 or index[0] < 0:  # type: ignore[arg-type]
            raise refused(node, "ncnn takes one index of an axis, or features of the last one")
        cut = tuple(1 if axis == place else size for axis, size in enumerate(x.shape))
        options: dict[int, Setting] = {-23309: [1, index[0]], -23310: [1, index[0] + 1], -23311: [1, place]}
        taken = self.layer("Crop", [x], f"{output}.cut", cut, options)
        self.reshaped(taken, tuple(size for axis, size in enumerate(cut) if axis != place), output)

    def _features(self, x: Blob, index: Sequence[int], output: str) -> None:
        """Some features, by a product with ones and zeros."""
        width = x.shape[-1]
        assert width is not None
        chosen = np.zeros((len(index), width), np.float32)
        chosen[np.arange(len(index)), index] = 1
        self.float_product(x, chosen, None, output)

    # Convolutions' company ---------------------------------------------------------------------------

    def _batch_norm(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        gain, bias, mean, variance = (values(self.constants[name]) for name in node.input[1:])
        options: dict[int, Setting] = {0: len(gain), 1: float(settings.get("epsilon", 1e-5))}
        weights = [plain(gain), plain(mean), plain(variance), plain(bias)]
        self.layer("BatchNorm", [x], node.output[0], x.shape, options, weights)

    def _global_pool(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        x, output = self.blob(node.input[0], node), node.output[0]
        flat = self.layer("Pooling", [x], f"{output}.flat", (x.shape[0],), {0: 1, 4: 1})
        self.reshaped(flat, (x.shape[0], 1, 1), output)

    def _pool(self, node: onnx.NodeProto, settings: dict[str, Any]) -> None:
        x = self.blob(node.input[0], node)
        kernel = settings["kernel_shape"]
        strides, pads, dilations = window(settings, node)
        if any(rate != 1 for rate in dilations) or settings.get("ceil_mode", 0):
            raise refused(node, "ncnn pools without dilation, rounding down")
        top, left, bottom, right = pads
        options: dict[int, Setting] = {0: int(node.op_type == "AveragePool"), 1: kernel[1], 11: kernel[0]}
        options |= {2: strides[1], 12: strides[0], 3: left, 13: top, 14: right, 15: bottom, 5: 1}
        options[6] = int(settings.get("count_include_pad", 0))
        sizes = [
            None if size is None else (size + before + behind - reach) // step + 1
            for size, before, behind, reach, step in zip(x.shape[1:], pads[:2], pads[2:], kernel, strides, strict=True)
        ]
        self.layer("Pooling", [x], node.output[0], (x.shape[0], *sizes), options)


def window(settings: Mapping[str, Any], node: onnx.NodeProto) -> tuple[list[int], list[int], list[int]]:
    """Strides, pads (top, left, bottom, right) and dilations of a window on images."""
    if settings.get("auto_pad", b"NOTSET") != b"NOTSET" or len(settings.get("strides", (1, 1))) != 2:
        raise refused(node, "ncnn needs the pads of an image written out")
    return (
        list(settings.get("strides", (1, 1))),
        list(settings.get("pads", (0, 0, 0, 0))),
        list(settings.get("dilations", (1, 1))),
    )


def refused(node: onnx.NodeProto, reason: str) -> UnsupportedError:
    """What cannot be said to ncnn, with the node's name."""
    return UnsupportedError(
        f"{reason} ({node.name or node.output[0]}).", hint="Choose another engine, or take that part out of the model."
    )


def _product(shape: Shape) -> int | None:
    return None if None in shape else math.prod(size for size in shape if size is not None)


def _without_batch(value: Array, rank: int) -> Array:
    """A constant of at most `rank` axes; an axis for the batch, of size 1, is dropped."""
    while value.ndim > rank and value.shape[0] == 1:
        value = value[0]
    return value
