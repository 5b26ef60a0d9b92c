"""LiteRT: a flatbuffer with a signature for each of a few lengths, which share their weights.

Its converter takes torch modules with fixed shapes; a length left open it refuses (litert-torch 0.10). So a text is
padded to the next of a few lengths at run time. Integer weights are the model's own codes (`_tflite`); what a layer
takes is rounded by LiteRT's own rule, to 8 bits by token.
"""

import contextlib
import io
import warnings
from dataclasses import replace

import litert_torch
import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

from tightrope.device.runtimes.litert import signature, version
from tightrope.errors import UnsupportedError
from tightrope.ports import Port
from tightrope.workshop.convert import _tflite
from tightrope.workshop.convert._forms import Layer
from tightrope.workshop.convert._torch_form import TorchForm, apart, around_zero, rule
from tightrope.workshop.converted import Converted
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model, text_senses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized, values
from tightrope.workshop.torch_bridge import Bridge
from tightrope.workshop.torch_nodes import Node, Value

SHORTEST = 16
"""The shortest bucket; each is twice as long as the one before, and the last is as long as the longest text."""
WIDENED = "LiteRT is given its values: a convolution's codes are widened when the file is opened"


def convert(model: Model) -> Converted:
    """One file. Raises `UnsupportedError` for what LiteRT's converter refuses."""
    form = _LiteRtForm(lower(model))
    form.convolutions()
    bridge = form.module({"Lookup": _lookup, "Apart": apart, "Mul": _mul})
    lengths = buckets(form.graph)
    data, found = _tflite.stored(_converted(form.graph, bridge, lengths), form.stored)
    if lost := sorted(set(form.stored) - found):
        raise UnsupportedError(
            f"LiteRT's converter changed {lost[0]} on its way, so it could not be stored as it is.",
            hint="Choose another engine, or report it with the model's name.",
        )
    return Converted(
        engine="litert",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("tflite", data)},
        inputs=tuple(map(_narrow, form.graph.inputs)),
        outputs=form.graph.outputs,
        settings={"open": _open_axes(form.graph), "lengths": list(lengths), "delegate": "xnnpack", "batch_tokens": 1},
        floats=form.in_float,
        approximations=form.approximations,
    )


def buckets(graph: Graph) -> tuple[int, ...]:
    """The lengths that the file is made for; none for a model whose shapes are fixed.

    A model whose length is left open reads text.
    """
    if not any(axis for port in graph.inputs for axis in _open(port)):
        return ()
    return doubling(text_senses(graph).max_length)


def doubling(most: int) -> tuple[int, ...]:
    """Lengths up to the longest.

    >>> doubling(100)
    (16, 32, 64, 100)
    """
    found, length = [], SHORTEST
    while length < most:
        found.append(length)
        length *= 2
    return (*found, most)


def _open(port: Port) -> list[int]:
    """The axes whose size is left open: the first is the batch, another the length."""
    axes = [axis for axis, size in enumerate(port.shape) if isinstance(size, str)]
    if axes not in ([], [0], [0, 1], [1]):
        raise UnsupportedError(
            f"{port.name} leaves its axes {axes} open; LiteRT's file has room for a batch and a length.",
            hint="Give a model whose other sizes are fixed.",
        )
    return axes


def _open_axes(graph: Graph) -> dict[str, list[int]]:
    return {port.name: _open(port) for port in (*graph.inputs, *graph.outputs)}


def _narrow(port: Port) -> Port:
    """A port as the file has it: whole numbers of four bytes, which is what phones expect."""
    return replace(port, dtype="int32" if port.dtype == "int64" else port.dtype)


class _Named(nn.Module):  # type: ignore[misc]
    """A bridge that takes its inputs by name and gives its outputs by name, which the file then bears."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def forward(self, **given: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.bridge(*(given[name] for name in self.bridge.inputs))
        return dict(zip(self.bridge.outputs, found if isinstance(found, tuple) else (found,), strict=True))


def _converted(graph: Graph, bridge: Bridge, lengths: tuple[int, ...]) -> bytes:
    """The float file, as LiteRT's own converter writes it."""
    litert_torch.config.show_progress = False
    module, signatures = _Named(bridge).eval(), litert_torch
    for length in lengths or (0,):
        samples = {port.name: _sample(port, length) for port in graph.inputs}
        signatures = signatures.signature(signature(length), module, sample_kwargs=samples)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            made = signatures.convert()
            return bytes(made.model_content())
    except UnsupportedError:
        raise
    except Exception as error:  # torch's exporter and LiteRT's raise whatever they please
        raise UnsupportedError(
            f"LiteRT's converter refuses the model: {(str(error).splitlines() or [type(error).__name__])[0][:300]}",
            hint="Choose another engine, or report it with the model's name.",
        ) from error


def _sample(port: Port, length: int) -> torch.Tensor:
    shape = [(1 if axis == 0 else length) if isinstance(size, str) else size for axis, size in enumerate(port.shape)]
    return torch.ones(shape, dtype=getattr(torch, _narrow(port).dtype))


class _LiteRtForm(TorchForm):
    """Writes each layer in floats, and remembers what its weights are to be stored as."""

    engine = "LiteRT"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.stored: dict[str, tuple[Floats, _tflite.Stored]] = {}

    def integers(self, layer: Layer, x: str, weight: Quantized, bias: str | None) -> str | None:
        """Codes by row, of up to 8 bits; in blocks only those of 4 bits have a kernel."""
        if weight.block is not None and (weight.bits != 4 or weight.block % 32 or weight.shape[1] % weight.block):
            return None
        self.approximations[layer.name] = rule(weight)
        self.count(layer, "wint4" if weight.bits == 4 else "wint8")
        if weight.block is not None:
            weight = replace(weight, scale=_tflite.block_scales(weight.scale).astype(np.float32))
        floats = values(weight)
        self.stored[layer.linear.weight] = floats, weight
        return super().floating(layer, self._apart(layer, x), floats, bias)

    def _apart(self, layer: Layer, x: str) -> str:
        """A layer's input behind what keeps the converter from taking the gains of a norm into the weights."""
        return self.shared("apart", layer, lambda base: self.build.node("Apart", [x], base))

    def convolutions(self) -> None:
        """Convolutions run in float. Codes stay codes in the file, where weights lie with the channels last."""
        for conv in self.graph.convolutions():
            weight = self.graph.weights[conv.weight]
            self.runs["fp32"] += int(np.prod(weight.shape))
            if not isinstance(weight, Quantized):
                continue
            self.in_float[conv.name] = WIDENED
            if weight.axis == 0 and weight.zero_point is None and weight.block is None and len(weight.shape) == 4:
                last = (1, 2, 3, 0) if conv.groups > 1 and weight.shape[1] == 1 else (0, 2, 3, 1)
                turned = replace(weight, codes=np.ascontiguousarray(weight.codes.transpose(last)), axis=last.index(0))
                self.stored[conv.weight] = values(turned), turned

    def floating(self, layer: Layer, x: str, weight: Array, bias: str | None) -> str:
        """Halves stay halves where they lie."""
        original = self.graph.weights[layer.linear.weight]
        if not isinstance(original, Quantized) and original.dtype == np.float16:
            self.stored[layer.linear.weight] = values(weight), weight
            x = self._apart(layer, x)
        return super().floating(layer, x, weight, bias)

    def table(self, node: onnx.NodeProto) -> bool:
        """Rows of a table by LiteRT's own operator, which widens codes by row; blocks become rows of their own."""
        table = self.graph.weights.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.shape) != 2 or any(item.name == "axis" and item.i for item in node.attribute):
            return False
        name, ids, output = node.input[0], node.input[1], node.output[0]
        if not isinstance(table, Quantized):
            if table.dtype == np.float16 and f"{name}.rows" not in self.build.weights:
                self.stored[name] = values(table), table
            return False
        split = by_rows(table)
        if split is None:
            return False
        rows, offset = around_zero(split)
        stored = f"{name}.rows"
        inputs = [ids, stored]
        if stored not in self.build.weights:
            self.build.weight(stored, values(rows))
            self.stored[name] = values(rows), rows
            if offset is not None:
                self.build.weight(f"{name}.offsets", offset[:, None])
        if offset is not None:
            inputs.append(f"{name}.offsets")
        self.build.node("Lookup", inputs, output, blocks=table.shape[1] // rows.shape[1])
        return True


def by_rows(table: Quantized) -> Quantized | None:
    """A table with one scale for each row, its blocks made rows of their own; `None` if blocks do not fill a row."""
    if table.block is None:
        return table if table.axis == 0 else None
    if table.axis == 0 or table.shape[1] % table.block:
        return None
    zero = None if table.zero_point is None else table.zero_point.ravel()
    codes, scale = table.codes.reshape(-1, table.block), table.scale.ravel()
    return replace(table, codes=codes, scale=scale, zero_point=zero, axis=0, block=None)


def _mul(node: Node, x: Value, y: Value) -> Value:
    """A product; by a number it stands apart, for it would be taken into the weights of the layer before."""
    if isinstance(x, torch.Tensor) and not isinstance(y, torch.Tensor):
        x = apart(node, x) if x.is_floating_point() else x
    return x * y


def _lookup(node: Node, ids: Value, rows: Value, offsets: Value = None) -> Value:
    """Rows of a table by their ids; with `blocks`, so many rows side by side are one."""
    blocks = node.attributes["blocks"]
    places = ids if blocks == 1 else ids[..., None] * blocks + torch.arange(blocks, dtype=ids.dtype)
    found = functional.embedding(places, rows)
    found = found if offsets is None else found + functional.embedding(places, offsets)
    return found if blocks == 1 else found.flatten(-2)
