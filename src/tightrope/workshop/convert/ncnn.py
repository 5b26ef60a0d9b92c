"""ncnn: its two files written directly, so that codes and scales are ours; no tool of ncnn's takes part.

Inputs that are rounded by token and symmetrically run on integers as they are annotated: a Gemm whose codes have the
scale 1, and its outputs' scales behind it. Other ranges become ranges by token. Weights alone are codes in blocks.
Texts come one by one, without padding, so there is no mask where attention would need one.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tightrope.device.runtimes.ncnn import POSITIONS, version
from tightrope.errors import UnsupportedError
from tightrope.ports import listed
from tightrope.workshop.convert import _attention
from tightrope.workshop.convert._attention import Block
from tightrope.workshop.convert._forms import Form, Layer, is_text, layers, ragged_ports, refuse_bits, signed
from tightrope.workshop.convert._ncnn_file import codes, files, packed, plain, told
from tightrope.workshop.convert._ncnn_layers import ADD, MUL, SUB, Blob, Shape
from tightrope.workshop.convert._ncnn_nodes import Nodes, refused, window
from tightrope.workshop.converted import Converted
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.hadamard import hadamard
from tightrope.workshop.numerics.quantized import Array, Quantized, Scheme, values

OWN = "tightrope"
"""The domain of nodes that are no ONNX, between the two walks."""
BLOCKS = {32: 0, 64: 1, 128: 2}
"""How Gemm calls the lengths of blocks that it knows."""
ROWS = 2
"""What Gemm is told for codes of a byte, its input rounded by rows."""
BY_TOKEN = "its input is rounded to 8 bits by token, by ranges read at run time"
IN_BLOCKS = "its input is rounded to 8 bits in its blocks, by ranges read at run time"
IN_FLOAT = "its input stays in float"
BY_RANGE = "its input is rounded on a grid around zero as wide as the range"


def convert(model: Model) -> Converted:
    """The structure as .param, the weights as .bin."""
    graph = lower(model)
    form = _NcnnForm(graph)
    structure, weights = form.write()
    inputs, outputs = ragged_ports(graph)
    return Converted(
        engine="ncnn",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("param", structure), "weights": ("bin", weights)},
        inputs=inputs,
        outputs=outputs,
        settings={
            "inputs": listed(inputs),
            "outputs": listed(outputs),
            "weights_bytes": len(weights),
            "attention_width": form.attention_width,
            "places": form.nodes.places,
        },
        floats=form.in_float,
        approximations=form.approximations,
    )


class _NcnnForm(Form):
    """Walks the graph twice: to nodes that are nearly ONNX, with layers prepared, and from these to ncnn's layers."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}
        self.attention_width = 0
        self._layers: dict[str, tuple[Layer, Array | None]] = {}
        """By the name of a product's node: the layer, and its bias."""
        self.nodes = Nodes(self.build.weights)

    def write(self) -> tuple[bytes, bytes]:
        """The two files."""
        known = layers(self.graph)
        attention = _attention.blocks(self.graph) if is_text(self.graph) else {}
        done = {name for block in attention.values() for name in block.inner} - set(attention)
        done |= {layer.output for layer in known.values() if layer.add is not None}
        for node in self.graph.proto.graph.node:
            output = node.output[0]
            if output in known:
                self._layer(known[output])
            elif output in attention:
                block = attention[output]
                self.build.node("Attention", [block.query, block.key, block.value], output, domain=OWN)
            elif node.op_type == "Cast" and node.input[0] in self.graph.weights:
                self.build.weights[output] = self.graph.weights[node.input[0]]
            elif output not in done:
                self.copy(node)
        self._inputs()
        for node in self.build.nodes:
            if node.domain != OWN:
                self._plain(node)
            elif node.op_type == "Attention":
                self._attention(attention[node.output[0]], node)
            elif node.op_type == "Rotate":
                self._rotate(node)
            else:
                self._product(node)
        ends = [port.name for port in self.graph.outputs]
        for name in ends:
            if self.nodes.blobs[name].name != name:
                self.nodes.layer("Noop", [self.nodes.blobs[name]], name, self.nodes.blobs[name].shape)
        return files(self.nodes.layers, ends)

    def _inputs(self) -> None:
        for port in self.graph.inputs:
            sizes: Shape = tuple(size if isinstance(size, int) else None for size in port.shape[1:])
            self.nodes.input(port.name, sizes)
        if is_text(self.graph):
            self.nodes.input(POSITIONS, (None,))

    def _plain(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Conv":
            self._convolution(node)
        else:
            self.nodes.node(node)

    # From the graph to prepared layers ---------------------------------------------------------------

    def _copy_weight(self, name: str) -> None:
        """As it is: what a table or a convolution makes of it is seen later."""
        self.build.weights[name] = self.graph.weights[name]

    def _layer(self, layer: Layer) -> None:
        refuse_bits(layer, self.scheme(layer), "ncnn")
        kept, bias = self.kept(layer)
        without = isinstance(self.across(layer), Quantized) and self.scheme(layer).is_dynamic
        x = self.prepared(layer, without_kept=without)
        name = f"{layer.name}.whole"
        self._layers[name] = layer, bias
        self.add([self.build.node("Product", [x], name, domain=OWN), kept], layer)

    def _rotated(self, current: str, length: int, name: str) -> str:
        return self.build.node("Rotate", [current], f"{name}.rotated", domain=OWN, length=length)

    # From prepared layers to ncnn's ------------------------------------------------------------------

    def _product(self, node: onnx.NodeProto) -> None:
        """A layer in the form that its annotation asks for, or the nearest."""
        layer, bias = self._layers[node.name]
        weight, scheme, output = self.across(layer), self.scheme(layer), node.output[0]
        x = self.nodes.blob(node.input[0], node)
        if not isinstance(weight, Quantized) or (weight.block is None and weight.axis == 0):
            if scheme.bits is not None or isinstance(weight, Quantized):
                is_code = isinstance(weight, Quantized)
                self.in_float[layer.name] = (
                    "its scales belong to input features" if is_code else "its weights are floats"
                )
            self.count(layer, "fp32")
            turned = values(weight).T if isinstance(weight, Quantized) else weight.T
            self.nodes.float_product(x, turned, bias, output)
        elif scheme.bits is not None and weight.block is None and weight.bits > 4 and _fits_rows(weight):
            self._by_rows(layer, x, weight.transpose(), bias, output)
        else:
            self._in_blocks(layer, x, weight.transpose(), bias, output)

    def _by_rows(self, layer: Layer, x: Blob, weight: Quantized, bias: Array | None, output: str) -> None:
        """Integers on both sides: codes with the scale 1, and behind them the scales of the outputs."""
        scheme, nodes = self.scheme(layer), self.nodes
        is_exact = scheme.is_dynamic and scheme.granularity == "token" and scheme.symmetric
        precision = "int8" if is_exact else "wint8"
        if not is_exact:
            self.approximations[layer.name] = BY_TOKEN
        self.count(layer, precision)
        unit, name = plain(np.ones(1, np.float32)), f"{layer.name}.{precision}"
        y = nodes.gemm(x, weight.shape, [codes(weight.codes)], None, f"{output}.codes", ROWS, name=name, after=[unit])
        last = output if bias is None else f"{output}.scaled"
        y = nodes.pair(MUL, y, nodes.constant(weight.scale, f"{output}.scales"), last)
        if bias is not None:
            nodes.pair(ADD, y, nodes.constant(bias.astype(np.float32), f"{output}.bias"), output)

    def _in_blocks(self, layer: Layer, x: Blob, weight: Quantized, bias: Array | None, output: str) -> None:
        """Weights [out, in] alone as integers; ncnn rounds the input by blocks where they have 8 bits."""
        out, width = weight.shape
        block = weight.block or 128
        if block not in BLOCKS:
            raise UnsupportedError(
                f"ncnn cannot run {layer.name} with blocks of {block} weights.", hint="Use 32, 64 or 128."
            )
        bits = 4 if weight.bits <= 4 else 8
        precision = f"wint{bits}"
        self.count(layer, precision)
        if bits == 8:
            self.approximations[layer.name] = IN_BLOCKS
        elif self.scheme(layer).bits is not None:
            self.approximations[layer.name] = IN_FLOAT
        stored, zero = _centred(weight)
        count = -(-width // block)
        shape = (out, count)
        scale = weight.scale if weight.block else np.broadcast_to(weight.scale[:, None], shape)
        points = zero if weight.block else np.broadcast_to(zero[:, None], shape)
        term = bits * 100 + BLOCKS[block]
        last = f"{output}.product" if points.any() else output
        y = self.nodes.gemm(
            x,
            weight.shape,
            [packed(stored, bits)],
            bias,
            last,
            term,
            name=f"{layer.name}.{precision}",
            after=[plain(np.divide(1, scale, out=np.ones(shape, np.float32), where=scale != 0))],
        )
        if points.any():
            self._without_zero(x, y, points.astype(np.float32) * scale, count, output, output)

    def _without_zero(self, x: Blob, y: Blob, lowest: Array, count: int, name: str, output: str) -> Blob:
        """y less what zero points add: the sum of the input's features in each block, times `lowest` [out, blocks]."""
        nodes, width = self.nodes, x.shape[-1]
        assert width is not None
        last = len(x.shape) - 1
        if count == 1:
            sums = nodes.reduced(x, 0, [last], f"{name}.sums", keeps=True)
        elif width % count == 0:
            parts = nodes.reshaped(x, (*x.shape[:-1], count, width // count), f"{name}.parts")
            sums = nodes.reduced(parts, 0, [last + 1], f"{name}.sums", keeps=False)
        else:
            one = np.zeros((count, width), np.float32)
            size = -(-width // count)
            one[np.arange(width) // size, np.arange(width)] = 1
            sums = nodes.float_product(x, one, None, f"{name}.sums")
        return nodes.pair(SUB, y, nodes.float_product(sums, lowest, None, f"{name}.zeros"), output)

    def _rotate(self, node: onnx.NodeProto) -> None:
        """Each block of features times the Hadamard matrix."""
        x, length, output = self.nodes.blob(node.input[0], node), node.attribute[0].i, node.output[0]
        width = x.shape[-1]
        assert width is not None
        rows = None if x.shape[0] is None or len(x.shape) == 1 else x.shape[0] * width // length
        blocks: Shape = (width // length if len(x.shape) == 1 else rows, length)
        parts = self.nodes.reshaped(x, blocks, f"{output}.blocks")
        turned = self.nodes.float_product(parts, hadamard(length).T, None, f"{output}.turned")
        self.nodes.places[turned.name] = width // length
        self.nodes.reshaped(turned, x.shape, output)

    def _attention(self, block: Block, node: onnx.NodeProto) -> None:
        """One layer on heads; each of a text's tokens sees all others."""
        self.attention_width = block.heads * block.size
        nodes, heads = self.nodes, []
        for source, part in ((block.query, "q"), (block.key, "k"), (block.value, "v")):
            x = nodes.blob(source, node)
            split = nodes.reshaped(x, (x.shape[0], block.heads, block.size), f"{block.output}.{part}.split")
            heads.append(nodes.permuted(split, (1, 0, 2), f"{block.output}.{part}"))
        context = nodes.layer("SDPA", heads, f"{block.output}.heads", heads[0].shape, {6: float(block.scale)})
        turned = nodes.permuted(context, (1, 0, 2), f"{block.output}.tokens")
        nodes.reshaped(turned, (turned.shape[0], block.heads * block.size), block.output)

    # Convolutions ------------------------------------------------------------------------------------

    def _convolution(self, node: onnx.NodeProto) -> None:
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        x, weight = self.nodes.blob(node.input[0], node), self.build.weights.get(node.input[1])
        if weight is None or len(weight.shape) != 4 or len(x.shape) != 3:
            raise refused(node, "ncnn needs a convolution of images with constant weights")
        out, _, high, wide = weight.shape
        strides, (top, left, bottom, right), dilations = window(settings, node)
        group = int(settings.get("group", 1))
        sizes = [
            None if size is None else (size + pads - rate * (reach - 1) - 1) // step + 1
            for size, pads, rate, reach, step in zip(
                x.shape[1:], (top + bottom, left + right), dilations, (high, wide), strides, strict=True
            )
        ]
        options: dict[int, Any] = {0: out, 1: wide, 11: high, 2: dilations[1], 12: dilations[0]}
        options |= {3: strides[1], 13: strides[0], 4: left, 14: top, 15: right, 16: bottom}
        options |= {5: int(len(node.input) > 2), 6: int(np.prod(weight.shape))}
        if group > 1:
            options[7] = group
        stored, after = self._kernels(node, weight, group)
        options |= {8: 1} if after else {}
        bias = [plain(values(self.build.weights[node.input[2]]))] if len(node.input) > 2 else []
        kind = "Convolution" if group == 1 else "ConvolutionDepthWise"
        name = node.name or node.output[0]
        places = [size for size in sizes if size is not None]
        self.nodes.places["_".join(name.split())] = int(np.prod(places))
        self.nodes.layer(kind, [x], node.output[0], (out, *sizes), options, [stored, *bias, *after], name=name)

    def _kernels(self, node: onnx.NodeProto, weight: Array | Quantized, group: int) -> tuple[bytes, list[bytes]]:
        """A convolution's weights, and the scales behind them where it runs on integers."""
        name, amount = node.name or node.output[0], int(np.prod(weight.shape))
        scheme = self.graph.schemes.get(node.input[1], Scheme())
        if isinstance(weight, Quantized):
            reason = None
            if scheme.static is None:
                reason = "its input has no range"
            elif weight.axis != 0 or weight.block is not None or not _fits_rows(weight):
                reason = "its codes are not those of outputs around zero"
            elif group not in (1, weight.shape[0]):
                reason = "its scales belong to outputs, ncnn's to groups"
            if reason is None and scheme.static is not None:
                self.runs["int8"] += amount
                self.approximations[name] = BY_RANGE
                reach = max(*map(abs, scheme.static), 1e-12)
                scales = [plain(1 / weight.scale), plain(np.array([127 / reach], np.float32))]
                return codes(weight.codes), scales
            self.in_float[name] = str(reason)
        self.runs["fp32"] += amount
        return told(weight), []


def _fits_rows(weight: Quantized) -> bool:
    """Whether codes lie around zero; -128 is multiplied wrongly on x86 (seen in 1.0.20261020)."""
    return weight.zero_point is None and weight.codes.dtype == np.int8 and bool(weight.codes.min() > -128)


def _centred(weight: Quantized) -> tuple[Array, Array]:
    """Codes and zero points as int8, around the middle of their range."""
    stored, zero = signed(weight)
    if weight.codes.dtype == np.uint8 and weight.bits < 8:
        middle = np.int8(2 ** (weight.bits - 1))
        return stored - middle, zero - middle
    return stored, zero
