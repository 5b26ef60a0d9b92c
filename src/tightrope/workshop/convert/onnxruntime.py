"""ONNX Runtime: integer products as its own operators, which name what they do and need no guessing by its optimiser.

Layers with integer weights and inputs become MatMulIntegerToFloat: the input is quantised once for all layers that
share it. Weights alone on a grid become MatMulNBits, which rounds its input to 8 bits in blocks of its own. Attention
is one operator, layer normalisation and the sum before it are two: fused into one they were a fifth slower (1.31).
Convolutions are the exception: they are written between Q and DQ, and its optimiser makes QLinearConv of them.
"""

from typing import Any

import numpy as np
import onnx

from tightrope.device.runtimes.onnxruntime import version
from tightrope.device.senses.image import ImageSenses
from tightrope.errors import UnsupportedError
from tightrope.workshop.convert import _attention, _convolutions, _norms, _tables
from tightrope.workshop.convert._attention import Block
from tightrope.workshop.convert._forms import CONTRIB, Form, Layer, layers, refuse_bits, signed, static_grid
from tightrope.workshop.convert._norms import Norm
from tightrope.workshop.converted import Converted
from tightrope.workshop.graph import OPSET, Graph
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.pairs import is_paired
from tightrope.workshop.numerics.quantized import Array, Quantized

ATTENTION_OPSET = 23
BLOCK = 128
"""Codes to a scale where a weight has one scale a feature; MatMulNBits knows blocks only."""
BATCH_TOKENS = 256
"""Beyond this a larger batch is no faster, and takes more memory for what lies between two layers."""
_LEAST = 1e-12


def convert(model: Model) -> Converted:
    """An ONNX file and the file of its weights."""
    graph = lower(model)
    form = _OnnxRuntimeForm(_convolutions.expanded(graph))
    form.runs.update(_convolutions.precisions(graph))
    form.in_float |= _convolutions.in_float(graph)
    proto, weights = form.write()
    return Converted(
        engine="onnxruntime",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("onnx", proto), "weights": ("bin", weights)},
        inputs=form.graph.inputs,
        outputs=form.graph.outputs,
        settings=_settings(graph, form),
        floats=form.in_float,
        approximations=form.approximations,
    )


def _settings(graph: Graph, form: "_OnnxRuntimeForm") -> dict[str, Any]:
    """How to open it. Weights of convolutions on a grid without one for the input are widened once, when it is opened.

    By default the engine keeps their DequantizeLinear for a pattern that does not come, and runs it for every image.
    """
    if not isinstance(graph.senses, ImageSenses):
        return {"batch_tokens": BATCH_TOKENS} | ({"saturating_layers": form.wide} if form.wide else {})
    return {"session": {"session.disable_quant_qdq": "1"}} if form.runs["wint8"] and not form.runs["int8"] else {}


class _OnnxRuntimeForm(Form):
    """Walks the graph and writes each part in the engine's best form."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}
        self.wide = 0
        """Layers of integers whose products may saturate where 16 bits hold two of them."""
        self._spread: set[str] = set()
        self._opset = next((item.version for item in graph.proto.opset_import if not item.domain), OPSET)

    def write(self) -> tuple[bytes, bytes]:
        """The whole graph; see `Form.finish`."""
        known = layers(self.graph)
        attention = _attention.blocks(self.graph) if self._opset >= OPSET else {}
        prepared = _norms.norms(self.graph, known)
        done = {name for block in attention.values() for name in block.inner} - set(attention)
        done |= {layer.output for layer in known.values() if layer.add is not None}
        for node in self.graph.proto.graph.node:
            output = node.output[0]
            if output in known:
                self._layer(known[output])
            elif output in attention:
                self._attention(attention[output])
            elif output in prepared:
                self._norm(prepared[output])
            elif output not in done and not _tables.gather(self.build, node, self.graph.weights):
                self.copy(node)
        imports = {CONTRIB: 1} | ({"": max(ATTENTION_OPSET, self._opset)} if attention else {})
        return self.finish(imports)

    # Layers ------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        weight, scheme, name = self.across(layer), self.scheme(layer), layer.name
        refuse_bits(layer, scheme, "ONNX Runtime")
        if not isinstance(weight, Quantized):
            if scheme.bits is not None:
                self.in_float[name] = "its weights are floats"
            self._floats(layer)
        elif weight.block is None and weight.axis == 0:
            self.in_float[name] = "its scales belong to input features"
            self._floats(layer)
        elif weight.block is None and weight.bits > 4 and scheme.bits is not None:
            self._integers(layer, weight)
        else:
            self._blocks(layer, weight)

    def _floats(self, layer: Layer) -> None:
        self.count(layer, "fp32")
        self.floats(layer)

    def _integers(self, layer: Layer, weight: Quantized) -> None:
        """Input and weights as integers, by the granularity of the scheme."""
        self.count(layer, "int8")
        scheme, name, build = self.scheme(layer), layer.name, self.build
        kept, bias = self.kept(layer)
        codes, zero = signed(weight)
        self.wide += not is_paired(codes.T)
        stored = build.weight(f"{name}.codes", codes)
        scales, zeros = build.weight(f"{name}.scales", weight.scale), build.weight(f"{name}.zeros", zero)

        def product(x: str, x_scale: str, x_zero: str, bias: str | None) -> str:
            inputs = [x, stored, x_scale, scales, x_zero, zeros] + ([bias] if bias else [])
            return build.node("MatMulIntegerToFloat", inputs, f"{name}.int8", domain=CONTRIB)

        added = None if bias is None else build.constant(bias.astype(np.float32), f"{name}.offsets")
        if scheme.static is not None or scheme.granularity == "tensor":
            x = self.shared("codes", layer, lambda base: self._codes(layer, base))
            self.add([product(x, f"{x}.scale", f"{x}.zero", added), kept], layer)
            return
        x = self.shared("codes", layer, lambda base: self._codes_by_token(layer, base))
        scale, zero_point = self._unit(symmetric=scheme.symmetric)
        y = product(x, scale, zero_point, None)
        if not scheme.symmetric:
            columns = (codes.astype(np.float32) - zero.astype(np.float32)).sum(0) * weight.scale
            sums = build.constant(columns.astype(np.float32), f"{name}.columns")
            y = build.node("Sub", [y, build.node("Mul", [f"{x}.zero", sums], f"{name}.centre")], f"{name}.centred")
        y = build.node("Mul", [y, f"{x}.scale"], f"{name}.scaled")
        self.add([y, added, kept], layer)

    def _codes(self, layer: Layer, base: str) -> str:
        """The input on one grid; `<base>.scale` and `<base>.zero` say which."""
        scheme, build = self.scheme(layer), self.build
        x = self.prepared(layer, without_kept=scheme.is_dynamic)
        if scheme.static is None and not scheme.symmetric:
            outputs = [base, f"{base}.scale", f"{base}.zero"]
            return build.split("DynamicQuantizeLinear", [x], outputs)[0]
        if scheme.static is not None:
            scale, zero = static_grid(scheme)
            build.constant(scale, f"{base}.scale")
            build.constant(zero, f"{base}.zero")
        else:
            sizes = build.node("Abs", [x], f"{base}.sizes")
            most = build.node("ReduceMax", [sizes], f"{base}.most", keepdims=0)
            least = build.node("Max", [most, build.constant(_LEAST, "least")], f"{base}.range")
            build.node("Div", [least, build.constant(127.0, "levels.127")], f"{base}.scale")
            build.constant(np.array(128, np.uint8), f"{base}.zero")
        return build.node("QuantizeLinear", [x, f"{base}.scale", f"{base}.zero"], base)

    def _codes_by_token(self, layer: Layer, base: str) -> str:
        """Each token on its own grid: its codes, and `<base>.scale`, `<base>.zero` for each of them [..., 1].

        The codes belong to the input divided by the token's own scale; `_unit` is the grid they are on.
        """
        build = self.build
        x = self.prepared(layer, without_kept=True)
        last = build.constant([-1], "axis.last")
        high = build.node("ReduceMax", [x, last], f"{base}.high", keepdims=1)
        low = build.node("ReduceMin", [x, last], f"{base}.low", keepdims=1)
        least = build.constant(_LEAST, "least")
        if self.scheme(layer).symmetric:
            most = build.node("Max", [high, build.node("Neg", [low], f"{base}.minus_low"), least], f"{base}.scale")
            divided = build.node("Mul", [x, build.node("Reciprocal", [most], f"{base}.factor")], f"{base}.divided")
        else:
            nought = build.constant(0.0, "nought")
            low = build.node("Min", [low, nought], f"{base}.low.nought")
            high = build.node("Max", [high, nought], f"{base}.high.nought")
            span = build.node("Max", [build.node("Sub", [high, low], f"{base}.span"), least], f"{base}.range")
            scale = build.node("Div", [span, build.constant(255.0, "levels.255")], f"{base}.scale")
            steps = build.node("Div", [build.node("Neg", [low], f"{base}.minus_low"), scale], f"{base}.zero.exact")
            zero = build.node("Round", [steps], f"{base}.zero")
            divided = build.node("Add", [build.node("Div", [x, scale], f"{base}.steps"), zero], f"{base}.divided")
        return build.node("QuantizeLinear", [divided, *self._unit(symmetric=self.scheme(layer).symmetric)], base)

    def _unit(self, *, symmetric: bool) -> tuple[str, str]:
        """The grid of inputs from -1 to 1, or of whole numbers from zero up."""
        if symmetric:
            scale = self.build.constant(1 / 127, "unit.scale")
            return scale, self.build.constant(np.array(128, np.uint8), "unit.zero")
        return self.build.constant(1.0, "whole.scale"), self.build.constant(np.array(0, np.uint8), "whole.zero")

    def _blocks(self, layer: Layer, weight: Quantized) -> None:
        """Weights alone as integers, by blocks of input features."""
        name, build = layer.name, self.build
        block = weight.block or (BLOCK if weight.shape[0] >= BLOCK else 32)
        if block < 16 or block & (block - 1):
            raise UnsupportedError(
                f"ONNX Runtime cannot run {name} with blocks of {block} weights.", hint="Use 16, 32, 64, 128 or 256."
            )
        bits = 4 if weight.bits <= 4 else 8
        codes, scales, zeros = packed_blocks(weight, bits=bits, block=block)
        kept, bias = self.kept(layer)
        inputs = [self.prepared(layer, without_kept=False), build.weight(f"{name}.packed", codes)]
        inputs.append(build.weight(f"{name}.scales", scales))
        inputs.append("" if zeros is None else build.weight(f"{name}.zeros", zeros))
        if bias is not None:
            inputs += ["", build.constant(bias.astype(np.float32), f"{name}.offsets")]
        sizes = {"K": weight.shape[0], "N": weight.shape[1], "bits": bits, "block_size": block}
        while inputs[-1] == "":
            inputs.pop()
        y = build.node("MatMulNBits", inputs, f"{name}.int{bits}", domain=CONTRIB, accuracy_level=4, **sizes)
        self.count(layer, f"wint{bits}")
        self.approximations[name] = f"its input is rounded to 8 bits in blocks of {block}, by ranges read at run time"
        self.add([y, kept], layer)

    # Other parts -------------------------------------------------------------------------------------

    def _norm(self, norm: Norm) -> None:
        """A normalisation that gives the layers behind it what they want to quantise."""
        build, whole = self.build, norm.node.output[0]
        smooth, shift = _norms.factors(norm)
        name = f"{whole}.prepared"
        gain = build.constant((norm.gain / smooth).astype(np.float32), f"{name}.gain")
        bias = build.constant(((norm.bias - shift) / smooth).astype(np.float32), f"{name}.bias")
        node = onnx.NodeProto()
        node.CopyFrom(norm.node)
        node.name, node.output[0], node.input[1], node.input[2] = name, name, gain, bias
        build.nodes.append(node)
        for what in ("prepared", "others"):
            self.share(what, norm.layer, name)
        if not norm.is_wanted_whole:
            return
        parts = [build.node("Mul", [name, build.constant(smooth, f"{name}.smooth")], f"{whole}.unshifted")]
        if norm.carrier is not None:
            self.carried[norm.carrier] = shift
        elif norm.scheme.shift is not None:
            parts = [build.node("Add", [*parts, build.constant(shift, f"{name}.shift")], whole)]
        build.nodes[-1].output[0] = whole

    def _attention(self, block: Block) -> None:
        """One operator; it wants the mask spread over all queries, which is done once for all blocks."""
        inputs = [block.query, block.key, block.value]
        if block.mask is not None:
            inputs.append(self._spread_mask(block.mask, block.query))
        heads: dict[str, Any] = {"q_num_heads": block.heads, "kv_num_heads": block.heads}
        self.build.node("Attention", inputs, block.output, scale=block.scale, **heads)

    def _spread_mask(self, mask: str, query: str) -> str:
        spread = f"{mask}.spread"
        if spread not in self._spread:
            one = self.build.constant([1], "one.size")
            length = self.build.node("Shape", [query], f"{spread}.length", start=1, end=2)
            shape = self.build.node("Concat", [one, one, length, one], f"{spread}.shape", axis=0)
            self._spread.add(self.build.node("Expand", [mask, shape], spread))
        return spread


def packed_blocks(weight: Quantized, *, bits: int, block: int) -> tuple[Array, Array, Array | None]:
    """A weight [in, out] as MatMulNBits stores it: codes [out, blocks, bytes], scales [out, blocks], zero points.

    Codes count from zero up, two of 4 bits to a byte, and the last block is filled up. Without zero points the
    middle of the range is zero.
    """
    width, out = weight.shape
    count = -(-width // block)
    middle = 0 if weight.codes.dtype == np.uint8 else 2 ** (bits - 1)
    flat = np.full((out, count * block), middle, np.uint8)
    flat[:, :width] = (weight.codes.T.astype(np.int16) + middle).astype(np.uint8)
    codes: Array = flat.reshape(out, count, block)

    def by_block(parameter: Array) -> Array:
        whole = parameter.T if weight.block else np.broadcast_to(parameter[:, None], (out, count))
        return np.ascontiguousarray(whole)

    zeros: Array | None = None
    if weight.zero_point is not None or middle == 0:
        points = np.zeros(weight.scale.shape, np.uint8) if weight.zero_point is None else weight.zero_point
        zeros = (by_block(points).astype(np.int16) + middle).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
        if zeros is not None:
            even = np.pad(zeros, ((0, 0), (0, count % 2)))
            zeros = even[:, 0::2] | (even[:, 1::2] << 4)
    return codes, by_block(weight.scale), zeros
