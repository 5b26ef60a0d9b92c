"""ONNX nodes as operations of Core ML's intermediate language (MIL), one after another.

A value is an array as long as it is constant, codes on a grid as long as nobody asked for their values, and a MIL
variable from then on. Which operation becomes what is a table, in `_mil_ops`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tightrope.device.runtimes import coreml  # noqa: F401  # keeps coremltools quiet
from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.quantized import Array

# isort: split
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types

Value = Any
"""An array, a `Grid`, or a MIL variable."""

_CODES = {TensorProto.INT4: types.int4, TensorProto.UINT4: types.uint4}


@dataclass(eq=False)
class Grid:
    """A constant as codes: real = (codes - zero) * scale; scale and zero have the codes' rank, as MIL wants it."""

    codes: Array
    scale: Array
    zero: Array | None
    name: str
    _made: dict[bool, Any] = field(default_factory=dict)

    def variable(self, *, turned: bool = False) -> Any:
        """The values, or those of the transposed matrix: widened from the codes when the model is loaded or run."""
        if turned not in self._made:
            parts = {"data": self.codes, "scale": self.scale} | ({} if self.zero is None else {"offset": self.zero})
            given = {key: np.ascontiguousarray(value.T if turned else value) for key, value in parts.items()}
            self._made[turned] = Builder.constexpr_blockwise_shift_scale(**given, name=readable(self.name))
        return self._made[turned]


def readable(name: str) -> str:
    """A name that MIL takes: letters, digits and underscores.

    >>> readable("encoder.layer.0")
    'encoder_layer_0'
    """
    plain = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return plain if not plain[:1].isdigit() else f"_{plain}"


class Translator:
    """Holds the values met so far. `halves`: weights that are stored in half precision, by name."""

    def __init__(self, weights: Mapping[str, Array], kinds: Mapping[str, int], inputs: Mapping[str, Any]) -> None:
        self.values: dict[str, Value] = {}
        for name, weight in weights.items():
            self.values[name] = weight.astype(np.float32) if weight.dtype.name in ("bfloat16", "float16") else weight
        self.kinds = kinds
        self.values |= inputs

    def run(self, nodes: Sequence[onnx.NodeProto], table: Mapping[str, "Rule"]) -> None:
        """Translate all nodes. Raises `UnsupportedError` with a node's name for what the table lacks."""
        for node in nodes:
            taken = [self.values[name] if name else None for name in node.input]
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "DequantizeLinear" and all(item is None or _constant(item) for item in taken):
                results: Any = self._grid(node, taken, attributes)
            elif taken and all(item is None or _constant(item) for item in taken):
                results = _folded(node, taken)
            elif node.op_type in table:
                results = self._apply(table[node.op_type], node, taken, attributes)
            else:
                raise _lacking(node)
            outputs = results if isinstance(results, list | tuple) else [results]
            self.values.update(zip(node.output, outputs, strict=False))

    def _apply(self, rule: "Rule", node: onnx.NodeProto, taken: list[Value], attributes: Mapping[str, Any]) -> Any:
        call = Call(node, taken, attributes)
        try:
            return rule(call)
        except UnsupportedError:
            raise
        except Exception as error:  # what is wrong with a shape or type, coremltools says by exceptions of all kinds
            raise UnsupportedError(
                f"Core ML cannot express {call.label}: {str(error).splitlines()[0] if str(error) else error!r:.300}",
                hint="Choose another engine for this model.",
            ) from error

    def _grid(self, node: onnx.NodeProto, taken: list[Value], attributes: Mapping[str, Any]) -> Any:
        codes, scale = taken[:2]
        zero = taken[2] if len(taken) > 2 else None
        axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
        if not block and scale.ndim:
            shape = [1] * codes.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
        elif not block:
            shape = [1] * codes.ndim
            scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
        if codes.dtype == np.int32:  # a bias in units of its layer's products, which MIL has as floats only
            return (codes * scale).astype(np.float32)
        kind = self.kinds.get(node.input[0])
        if kind is not None:
            dtype = types.nptype_from_builtin(_CODES[kind])
            codes, zero = codes.astype(dtype), None if zero is None else zero.astype(dtype)
        return Grid(codes, scale, zero, node.output[0])


def _constant(value: Value) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _folded(node: onnx.NodeProto, taken: Sequence[Array | None]) -> Any:
    """What a node makes of constants alone, by ONNX's own reference."""
    if node.op_type == "Cast":
        to = next(item.i for item in node.attribute if item.name == "to")
        assert taken[0] is not None
        return taken[0].astype(helper.tensor_dtype_to_np_dtype(to))
    given = {name: value for name, value in zip(node.input, taken, strict=True) if name}
    return ReferenceEvaluator(node).run(None, given)


def _lacking(node: onnx.NodeProto) -> UnsupportedError:
    return UnsupportedError(
        f"Core ML has no {node.op_type}, as {node.name or node.output[0]} is.",
        hint="Choose another engine for this model.",
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One node and what it takes; a rule makes MIL of it."""

    node: onnx.NodeProto
    taken: Sequence[Value]
    attributes: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What people know the node by."""
        return f"{self.node.op_type} {self.node.name or self.node.output[0]}"

    @property
    def name(self) -> str:
        """The name of the operation that gives the first output."""
        return readable(self.node.output[0])

    def variable(self, index: int = 0) -> Any:
        """An input as MIL takes it: whole numbers have 32 bits there."""
        value = self.taken[index]
        if isinstance(value, Grid):
            return value.variable()
        return narrow(value) if _constant(value) else value

    def constant(self, index: int, default: Any = None) -> Any:
        """An input that must be known before the model runs."""
        value = self.taken[index] if index < len(self.taken) else None
        if value is None:
            return default
        if not _constant(value):
            raise UnsupportedError(
                f"{self.label} reads its {self.node.input[index]} at run time, which Core ML must know before.",
                hint="Export the model with it as a constant.",
            )
        return value

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.taken) and self.taken[index] is not None

    def refuse_unless(self, met: bool, what: str) -> None:
        """Raise `UnsupportedError` for a node that asks for what Core ML does not do."""
        if not met:
            raise UnsupportedError(
                f"Core ML cannot express {self.label}: {what}.", hint="Choose another engine for this model."
            )


Rule = Callable[[Call], Any]


def narrow(value: Array) -> Array:
    """A constant with the widths that MIL has."""
    array: Array = np.asarray(value)
    if array.dtype == np.int64:
        return np.clip(array, -(2**31), 2**31 - 1).astype(np.int32)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def shape_of(variable: Any) -> list[int | None]:
    """The sizes of a variable's axes; `None` for one that is known at run time only."""
    return [int(size) if str(size).isdigit() else None for size in variable.shape]
