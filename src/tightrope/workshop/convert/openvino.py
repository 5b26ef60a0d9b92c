"""OpenVINO: quantised layers as Q/DQ pairs, which it runs on integers, in an IR of its own.

A static range becomes a pair around the input and codes behind DequantizeLinear for the weight. Ranges read at run
time are OpenVINO's own affair: it reads one for each group of an input's features where weights alone are on a grid.
What it merges into one pass is given the shape that it knows: the heads of attention, and what a layer normalisation
ends with. The ONNX file is read by the engine's core itself, so its conversion tool, which reports usage over the
network, never runs.
"""

import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import openvino as ov

from tightrope.device.runtimes.openvino import version
from tightrope.device.senses.image import ImageSenses
from tightrope.errors import UnsupportedError
from tightrope.workshop.convert import _attention, _convolutions, _norms, _tables
from tightrope.workshop.convert._attention import Block
from tightrope.workshop.convert._forms import Form, Layer, layers, refuse_bits, signed, static_grid
from tightrope.workshop.convert._norms import Norm
from tightrope.workshop.converted import Converted, file_name
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Quantized

GROUP = 128
"""Features to a range where OpenVINO reads them at run time."""
BATCH_TOKENS = 512
"""Larger batches are no faster; of half the size they were 4 % slower on a corpus, and took 10 MB less."""
LENGTHS = 4
"""Lengths are padded to steps, for kernels are made anew for each and kept; short ones finely, as they feel it most."""
_BATCHING = {"length_multiple": LENGTHS, "batch_tokens": BATCH_TOKENS}


def convert(model: Model) -> Converted:
    """An IR: the structure as .xml, the weights as .bin."""
    graph = lower(model)
    form = _OpenVinoForm(_convolutions.expanded(graph))
    form.runs.update(_convolutions.precisions(graph))
    form.in_float |= _convolutions.in_float(graph)
    proto, weights = form.write()
    xml, data = _to_ir(proto, weights)
    return Converted(
        engine="openvino",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("xml", xml), "weights": ("bin", data)},
        inputs=form.graph.inputs,
        outputs=form.graph.outputs,
        settings={"properties": form.properties} | ({} if isinstance(graph.senses, ImageSenses) else _BATCHING),
        floats=form.in_float,
        approximations=form.approximations,
    )


def _to_ir(proto: bytes, weights: bytes) -> tuple[bytes, bytes]:
    """Read ONNX and write IR, its nameless nodes numbered from the model's start: the engine counts across models."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.xml"
        source.write_bytes(proto)
        (Path(folder) / file_name(weights, "bin")).write_bytes(weights)
        try:
            model = ov.Core().read_model(str(source))
            for index, node in enumerate(model.get_ordered_ops()):
                if re.fullmatch(r"[A-Za-z]+_\d+", node.get_friendly_name()):
                    node.set_friendly_name(f"{node.get_type_name()}_{index}")
            ov.save_model(model, str(target), compress_to_fp16=False)
        except RuntimeError as error:
            raise UnsupportedError(
                f"OpenVINO {version()} cannot read the model: {str(error).splitlines()[-1][:300]}",
                hint="Choose another engine, or report it with the model's name.",
            ) from error
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()


class _OpenVinoForm(Form):
    """Walks the graph and writes what OpenVINO recognises."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}

    def write(self) -> tuple[bytes, bytes]:
        """The whole graph; see `Form.finish`."""
        known = layers(self.graph)
        attention = _attention.blocks(self.graph)
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
        return self.finish({})

    @property
    def properties(self) -> dict[str, str]:
        """What the CPU plug-in is to be told; it computes in bfloat16 only if that is how the weights are stored."""
        hint = {"INFERENCE_PRECISION_HINT": "bf16"} if self.precision == "bf16" else {}
        return hint | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP if self.approximations else 0)}

    # Layers ------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        weight, scheme = self.across(layer), self.scheme(layer)
        refuse_bits(layer, scheme, "OpenVINO")
        if not isinstance(weight, Quantized):
            if scheme.bits is not None:
                self.in_float[layer.name] = "its weights are floats"
            is_bfloat16 = not isinstance(weight, Quantized) and weight.dtype.name == "bfloat16"
            self.count(layer, "bf16" if is_bfloat16 else "fp32")
            self.floats(layer)
            return
        kept, bias = self.kept(layer)
        x, stored = self._input(layer, weight), self._stored(weight, layer.name)
        parts = [self.build.node("MatMul", [x, stored], f"{layer.name}.whole"), None, kept]
        if bias is not None:
            parts[1] = self.build.constant(bias.astype(np.float32), f"{layer.name}.offsets")
        self.add(parts, layer)

    def _input(self, layer: Layer, weight: Quantized) -> str:
        """The layer's input, between Q and DQ if its range is static and the weight allows it."""
        scheme = self.scheme(layer)
        x = self.prepared(layer, without_kept=False)
        if scheme.static is not None and weight.block is None and weight.bits > 4 and not signed(weight)[1].any():
            self.count(layer, "int8")
            return self.shared("rounded", layer, lambda base: self._rounded(layer, x, base))
        rule = f"its input is rounded to 8 bits in groups of {GROUP}, by ranges read at run time"
        self.approximations[layer.name] = rule
        self.count(layer, "wint4" if weight.bits == 4 else "wint8")
        return x

    def _rounded(self, layer: Layer, x: str, base: str) -> str:
        scale, zero = static_grid(self.scheme(layer))
        grid = [self.build.constant(scale, f"{base}.scale"), self.build.constant(zero, f"{base}.zero")]
        codes = self.build.node("QuantizeLinear", [x, *grid], f"{base}.codes")
        return self.build.node("DequantizeLinear", [codes, *grid], base)

    def _stored(self, weight: Quantized, name: str) -> str:
        """A weight [in, out], stored as [out, in], widened and turned in the graph."""
        wide = self.widened(weight.transpose(), f"{name}.wide")
        return self.build.node("Transpose", [wide], f"{name}.turned", perm=[1, 0])

    # Other parts -------------------------------------------------------------------------------------

    def _norm(self, norm: Norm) -> None:
        """A normalisation whose gain and bias are written twice, for the layers behind it and for the sum around them.

        So each is the end of one pass, with the rounding or with the sum; once for both, it is a pass between two.
        """
        build, whole = self.build, norm.node.output[0]
        plain = onnx.NodeProto()
        plain.CopyFrom(norm.node)
        plain.name = plain.output[0] = f"{whole}.plain"
        del plain.input[2:]
        plain.input[1] = build.constant(np.ones_like(norm.gain), f"{whole}.ones")
        build.nodes.append(plain)
        smooth, shift = _norms.factors(norm)
        self._affine(plain.output[0], norm.gain / smooth, (norm.bias - shift) / smooth, f"{whole}.prepared")
        for what in ("prepared", "others"):
            self.share(what, norm.layer, f"{whole}.prepared")
        if norm.is_wanted_whole:
            self._affine(plain.output[0], norm.gain, norm.bias, whole)

    def _affine(self, x: str, gain: Array, bias: Array, name: str) -> None:
        scaled = self.build.node(
            "Mul", [x, self.build.constant(gain.astype(np.float32), f"{name}.gain")], f"{name}.scaled"
        )
        self.build.node("Add", [scaled, self.build.constant(bias.astype(np.float32), f"{name}.bias")], name)

    def _attention(self, block: Block) -> None:
        """The heads of query, key and value turned right before their products, where OpenVINO reads them in place.

        One product for all three is no faster, and has its heads copied. The scale stands behind the query's product,
        which takes it in.
        """
        build, name, query = self.build, block.name, block.query
        if block.scale != 1:
            scale = build.constant(block.scale, f"{name}.scale")
            query = build.node("Mul", [query, scale], f"{name}.query.scaled")
        heads = [self._heads(x, block, part) for x, part in ((query, "q"), (block.key, "k"), (block.value, "v"))]
        key = build.node("Transpose", [heads[1]], f"{name}.k.turned", perm=[0, 1, 3, 2])
        scores = build.node("MatMul", [heads[0], key], f"{name}.scores")
        if block.mask is not None:
            scores = build.node("Add", [scores, block.mask], f"{name}.masked")
        weights = build.node("Softmax", [scores], f"{name}.weights", axis=-1)
        context = build.node("MatMul", [weights, heads[2]], f"{name}.context")
        context = build.node("Transpose", [context], f"{name}.context.turned", perm=[0, 2, 1, 3])
        join = build.constant([0, 0, block.heads * block.size], f"{name}.join")
        build.node("Reshape", [context, join], block.output)

    def _heads(self, x: str, block: Block, part: str) -> str:
        """[batch, length, width] as [batch, heads, length, size]."""
        shape = self.build.constant([0, 0, block.heads, block.size], f"{block.name}.heads.shape")
        split = self.build.node("Reshape", [x, shape], f"{block.name}.{part}.split")
        return self.build.node("Transpose", [split], f"{block.name}.{part}.heads", perm=[0, 2, 1, 3])
