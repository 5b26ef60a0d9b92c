"""TensorRT: ONNX with its integers between pairs of QuantizeLinear and DequantizeLinear, as its parser takes them.

Symmetric throughout: zero points must be zero. An engine is built where it runs, from this file and the profile of
shapes in the settings, by the runtime or by `trtexec` (`tightrope export --tensorrt`). What can be checked without a
GPU is checked: every node against the operators that the parser documents.
"""

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from tightrope.device.runtimes.tensorrt import version
from tightrope.workshop.convert import _convolutions, _tensorrt_check
from tightrope.workshop.convert._forms import Layer, static_grid
from tightrope.workshop.convert._pairs import PairsForm, centred
from tightrope.workshop.converted import Converted, file_name
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Quantized, Scheme, values

BATCH, USUAL_BATCH, USUAL_LENGTH = 32, 8, 64
"""The most texts of a batch, and the shape that an engine is tuned for."""
SYMMETRIC_RULE = "its input's range is made symmetric: TensorRT has no zero points"


def convert(model: Model) -> Converted:
    """An ONNX file and the file of its weights. Raises `UnsupportedError` for what the parser does not document."""
    graph = lower(model)
    form = _TensorRtForm(_convolutions.expanded(_symmetric(graph)))
    form.runs.update(_convolutions.precisions(graph))
    form.in_float |= _convolutions.in_float(graph)
    form.fill()
    form.drop_zeros()
    proto, weights = form.finish({})
    _tensorrt_check.check(onnx.load_from_string(proto))
    return Converted(
        engine="tensorrt",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("onnx", proto), "weights": ("bin", weights)},
        inputs=graph.inputs,
        outputs=graph.outputs,
        settings={"weights_name": file_name(weights, "bin"), "profile": profile(graph)} | _batches(graph),
        floats=form.in_float,
        approximations=form.approximations | _widened_ranges(graph),
    )


def profile(graph: Graph) -> dict[str, dict[str, list[int]]]:
    """For each input the least, the usual and the greatest shape that an engine is built for."""
    longest = graph.senses.max_length if isinstance(graph.senses, TextSenses) else 1
    places = {"least": (1, 1), "usual": (USUAL_BATCH, min(USUAL_LENGTH, longest)), "most": (BATCH, longest)}
    return {
        port.name: {
            place: [
                size if isinstance(size, int) else open_sizes[0 if axis == 0 else 1]
                for axis, size in enumerate(port.shape)
            ]
            for place, open_sizes in places.items()
        }
        for port in graph.inputs
    }


def _batches(graph: Graph) -> dict[str, int]:
    return {"batch_tokens": BATCH * USUAL_LENGTH} if isinstance(graph.senses, TextSenses) else {}


def _symmetric(graph: Graph) -> Graph:
    """The graph with the static ranges of its convolutions and values around zero; layers are seen to one by one."""
    layers = {linear.weight for linear in graph.linears()}
    return graph.rewrite(
        schemes={name: _around_zero(scheme) for name, scheme in graph.schemes.items() if name not in layers}
    )


def _around_zero(scheme: Scheme) -> Scheme:
    return scheme if scheme.static is None else replace(scheme, symmetric=True)


def _widened_ranges(graph: Graph) -> dict[str, str]:
    """The convolutions whose range is not the annotated one."""
    schemes = {conv.name: graph.schemes.get(conv.weight) for conv in graph.convolutions()}
    return {name: SYMMETRIC_RULE for name, scheme in schemes.items() if scheme is not None and not scheme.symmetric}


class _TensorRtForm(PairsForm):
    """Signed codes around zero: 8 bits by row, 4 bits in blocks."""

    engine = "TensorRT"
    unrounded = "its input stays in float: TensorRT's parser has no ranges read at run time for integers"

    def grid(self, layer: Layer) -> tuple[Array, Array] | None:
        scheme = self.scheme(layer)
        if scheme.bits is None or scheme.static is None:
            return None
        return static_grid(scheme)[0], np.array(0, np.int8)

    def centre(self, layer: Layer) -> float:
        """The middle of an asymmetric range: the input less the middle has the same codes around zero."""
        scheme = self.scheme(layer)
        if self.grid(layer) is None or scheme.symmetric:
            return 0.0
        scale, zero = static_grid(scheme)
        return float(scale) * (128 - int(zero))

    def float_layer(self, layer: Layer) -> None:
        """A layer whose weights are halves multiplies halves."""
        weight = self.across(layer)
        if isinstance(weight, Quantized) or weight.dtype != np.float16:
            super().float_layer(layer)
            return
        self.count(layer, "fp16")
        kept, bias = self.kept(layer)
        x = self.prepared(layer, without_kept=False)
        halves = self.shared("halves", layer, lambda name: self.build.node("Cast", [x], name, to=TensorProto.FLOAT16))
        stored = self.build.weight(f"{layer.name}.halves", weight)
        product = self.build.node("MatMul", [halves, stored], f"{layer.name}.whole")
        parts = [self.build.node("Cast", [product], f"{layer.name}.wide", to=TensorProto.FLOAT), kept]
        if bias is not None:
            parts.append(self.build.constant(bias.astype(np.float32), f"{layer.name}.offsets"))
        self.add(parts, layer)

    def why_float(self, weight: Quantized) -> str | None:
        weight = centred(weight)
        if weight.zero_point is not None or weight.codes.dtype != np.int8:
            return "its weights have zero points, which TensorRT has not"
        if weight.block is not None and weight.bits != 4:
            return f"its blocks are of {weight.bits} bits, and TensorRT has blocks of 4 only"
        if weight.block is None and weight.bits == 4:
            return "its weights of 4 bits are not in blocks"
        return None

    def _other(self, node: onnx.NodeProto) -> None:
        """A bias in units of its layer's products is given as floats: the parser widens no int32."""
        codes = self.graph.weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or isinstance(codes, Quantized) or codes.dtype != np.int32:
            super()._other(node)
            return
        self.build.weight(node.output[0], (codes * values(self.graph.weights[node.input[1]])).astype(np.float32))

    def drop_zeros(self) -> None:
        """Write pairs on unsigned bytes, whose zero is in the middle, as the same ones on signed bytes."""
        for node in self.build.nodes:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
                continue
            zero = self.build.weights[node.input[2]]
            if not isinstance(zero, Quantized) and zero.dtype == np.uint8 and (zero == 128).all():
                self.build.weights[node.input[2]] = np.zeros_like(zero, np.int8)
