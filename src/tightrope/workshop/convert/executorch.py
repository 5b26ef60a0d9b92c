"""ExecuTorch: a program whose layers XNNPACK runs, for one text at a time of any length.

Layers with integer weights are written as the operators that XNNPACK's partitioner knows, around the model's own codes:
nothing is observed and nothing rounded anew. What a layer takes is rounded by XNNPACK's rule, to 8 bits by token.
"""

import contextlib
import io
import logging
import warnings
from typing import Any

import ml_dtypes
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what they import and will have to import otherwise
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from torch.ao.quantization.fx import _decomposed  # noqa: F401  # declares the operators below

import torch  # behind the engine: who lacks both is told of the engine
from torch.nn import functional

from tightrope.device.runtimes.executorch import version
from tightrope.errors import UnsupportedError
from tightrope.ports import Port
from tightrope.workshop.convert import _executorch_work
from tightrope.workshop.convert._forms import Layer
from tightrope.workshop.convert._torch_form import TorchForm, rule
from tightrope.workshop.converted import Converted
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model, text_senses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized
from tightrope.workshop.torch_bridge import Bridge
from tightrope.workshop.torch_nodes import Node, Value, tensor

SHORTEST = 2
"""What is left open is at least so long: an exporter makes of a size that may be one a case of its own."""
WIDENED = "it is stored and run in float: a program with integer convolutions did not load (ExecuTorch 1.5.1)"


def convert(model: Model) -> Converted:
    """One file. Raises `UnsupportedError` for what the exporter refuses."""
    form = _ExecuTorchForm(lower(model))
    form.convolutions()
    bridge = form.module({"IntegerLinear": _integer_linear})
    data, work = _program(form.graph, bridge)
    return Converted(
        engine="executorch",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("pte", data)},
        inputs=form.graph.inputs,
        outputs=form.graph.outputs,
        settings={
            "ports": _ports(form.graph),
            "shortest": SHORTEST,
            "delegate": "xnnpack",
            "work": work,
            "batch_tokens": 1,
        },
        floats=form.in_float,
        approximations=form.approximations,
    )


class _ExecuTorchForm(TorchForm):
    """Writes layers with integer weights as nodes of their own, which hold their codes."""

    engine = "ExecuTorch"

    def integers(self, layer: Layer, x: str, weight: Quantized, bias: str | None) -> str | None:
        """Codes by row, of up to 8 bits; in blocks only those of 4 bits have a kernel."""
        if weight.block is not None and (weight.bits != 4 or weight.block % 32 or weight.shape[1] % weight.block):
            return None
        self.approximations[layer.name] = rule(weight)
        self.count(layer, "wint4" if weight.bits == 4 else "wint8")
        name = layer.linear.weight
        if f"{name}.codes" not in self.build.weights:
            scale = weight.scale if weight.block is None else weight.scale.astype(ml_dtypes.bfloat16)
            self.build.weight(f"{name}.codes", weight.codes)
            self.build.weight(f"{name}.scale", scale.astype(np.float32))
            self.build.weight(f"{name}.zero", np.zeros(scale.shape, np.int8 if weight.block else np.int64))
        inputs = [x, *(f"{name}.{part}" for part in ("codes", "scale", "zero")), *([bias] if bias else [])]
        bits = 4 if weight.bits == 4 else 8
        return self.build.node("IntegerLinear", inputs, f"{layer.name}.whole", bits=bits, block=weight.block or 0)

    def convolutions(self) -> None:
        """Convolutions run in float, on the values of their codes."""
        for conv in self.graph.convolutions():
            self.runs["fp32"] += int(np.prod(self.graph.weights[conv.weight].shape))
            if isinstance(self.graph.weights[conv.weight], Quantized):
                self.in_float[conv.name] = WIDENED


def _integer_linear(node: Node, x: Value, codes: Value, scale: Value, zero: Value, bias: Value = None) -> Value:
    """A linear layer as XNNPACK's partitioner recognises it: rounded inputs, and codes with what makes them values."""
    operators: Any = torch.ops.quantized_decomposed
    x, bits, block = tensor(x), node.attributes["bits"], node.attributes["block"]
    grid = operators.choose_qparams_per_token_asymmetric(x, torch.int8)
    rounded = operators.quantize_per_token(x, *grid, -128, 127, torch.int8)
    restored = operators.dequantize_per_token(rounded, *grid, -128, 127, torch.int8, torch.float32)
    low, high = (-8, 7) if bits == 4 else (-128, 127)
    if block:
        weight = operators.dequantize_per_channel_group(codes, scale, zero, low, high, torch.int8, block, torch.float32)
    else:
        weight = operators.dequantize_per_channel(codes, scale, zero, 0, low, high, torch.int8)
    return functional.linear(restored, weight, None if bias is None else tensor(bias))


def _ports(graph: Graph) -> dict[str, Any]:
    """What the file does not say of its inputs and outputs: names and shapes, with the names of what is left open."""
    sides = {"inputs": graph.inputs, "outputs": graph.outputs}
    return {side: [[port.name, port.dtype, list(port.shape)] for port in ports] for side, ports in sides.items()}


def _program(graph: Graph, bridge: Bridge) -> tuple[bytes, list[list[Any]]]:
    """The program as the runtime reads it, and what it multiplies."""
    samples = tuple(_sample(port, graph) for port in graph.inputs)
    is_long = any(1 in _open(port) for port in graph.inputs)
    length = torch.export.Dim("length", min=SHORTEST, max=_longest(graph)) if is_long else None
    shapes = tuple({1: length} if 1 in _open(port) else {} for port in graph.inputs)
    try:
        with _quietly():
            exported = torch.export.export(bridge, samples, dynamic_shapes=(shapes,) if any(shapes) else None)
            edge = to_edge_transform_and_lower(
                exported, partitioner=[XnnpackPartitioner()], compile_config=EdgeCompileConfig(_check_ir_validity=False)
            )
            lowered = edge.exported_program()
            data = bytes(edge.to_executorch().buffer)
    except UnsupportedError:
        raise
    except Exception as error:  # torch's exporter and ExecuTorch's passes raise whatever they please
        raise UnsupportedError(
            f"ExecuTorch's exporter refuses the model: {(str(error).splitlines() or [type(error).__name__])[0][:300]}",
            hint="Choose another engine, or report it with the model's name.",
        ) from error
    return data, _executorch_work.work(lowered)


def _longest(graph: Graph) -> int:
    return text_senses(graph).max_length


def _open(port: Port) -> list[int]:
    """The axes whose size is left open: the first is the batch, which becomes one, the second the length."""
    axes = [axis for axis, size in enumerate(port.shape) if isinstance(size, str)]
    if axes not in ([], [0], [0, 1], [1]):
        raise UnsupportedError(
            f"{port.name} leaves its axes {axes} open; ExecuTorch's form has room for a batch and a length.",
            hint="Give a model whose other sizes are fixed.",
        )
    return axes


def _sample(port: Port, graph: Graph) -> torch.Tensor:
    """An input in the middle of what is left open."""
    middle = max(SHORTEST + 1, _longest(graph) // 2) if 1 in _open(port) else 0
    shape = [(1 if axis == 0 else middle) if isinstance(size, str) else size for axis, size in enumerate(port.shape)]
    return torch.ones(shape, dtype=getattr(torch, port.dtype))


@contextlib.contextmanager
def _quietly() -> Any:
    """The exporter's running commentary, left out."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
