"""OpenVINO: quantised layers as Q/DQ pairs, which it runs on integers, in an IR of its own.

A static range becomes a pair around the input and codes behind DequantizeLinear for the weight. Ranges read at run
time are OpenVINO's own affair: it reads one for each group of an input's features where weights alone are on a grid.
Query, key and value are one product. The ONNX file is read by the engine's core itself, so its conversion tool, which
reports usage over the network, never runs.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov

from tightrope.device.runtimes.openvino import version
from tightrope.errors import UnsupportedError
from tightrope.workshop.convert import _attention, _tables
from tightrope.workshop.convert._attention import Block
from tightrope.workshop.convert._forms import Form, Layer, identity, layers, refuse_bits, signed, static_grid
from tightrope.workshop.converted import Converted, file_name
from tightrope.workshop.graph import Graph, is_half
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Quantized, values

GROUP = 128
"""Features to a range where OpenVINO reads them at run time."""
LENGTHS = 8


def convert(model: Model) -> Converted:
    """An IR: the structure as .xml, the weights as .bin."""
    form = _OpenVinoForm(lower(model))
    proto, weights = form.write()
    xml, data = _to_ir(proto, weights)
    return Converted(
        engine="openvino",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("xml", xml), "weights": ("bin", data)},
        inputs=form.graph.inputs,
        outputs=form.graph.outputs,
        settings={"properties": form.properties, "length_multiple": length_multiple(model.senses.max_length)},
        floats=form.in_float,
        approximations=form.approximations,
    )


def length_multiple(longest: int) -> int:
    """Lengths are padded to multiples, for kernels are made anew for each; the longest input must remain possible."""
    return LENGTHS if longest % LENGTHS == 0 else 1


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
        fused = {}
        for block in _attention.blocks(self.graph).values():
            trio = self._trio(block, known)
            if trio is not None:
                fused[block.output] = (block, trio)
        done = {name for block, _ in fused.values() for name in block.inner}
        done |= {layer.output for layer in known.values() if layer.add is not None}
        done |= {layer.product.output[0] for _, trio in fused.values() for layer in trio}
        for node in self.graph.proto.graph.node:
            output = node.output[0]
            if output in fused:
                self._attention(*fused[output])
            elif output in done:
                continue
            elif output in known:
                self._layer(known[output])
            elif not _tables.gather(self.build, node, self.graph.weights):
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
            self._count_floats(layer)
            self.floats(layer)
            return
        kept, bias = self.kept(layer)
        x, stored = self._input([layer], weight), self._stored(weight, layer.name)
        parts = [self.build.node("MatMul", [x, stored], f"{layer.name}.whole"), None, kept]
        if bias is not None:
            parts[1] = self.build.constant(bias.astype(np.float32), f"{layer.name}.offsets")
        self.add(parts, layer)

    def _count_floats(self, layer: Layer) -> None:
        weight = self.graph.weights[layer.linear.weight]
        is_bfloat16 = not isinstance(weight, Quantized) and weight.dtype.name == "bfloat16"
        self.count(layer, "bf16" if is_bfloat16 else "fp32")

    def _input(self, together: Sequence[Layer], weight: Quantized) -> str:
        """The input that layers share, between Q and DQ if its range is static and the weight allows it."""
        scheme = self.scheme(together[0])
        x = self.prepared(together[0], without_kept=False)
        if scheme.static is not None and weight.block is None and weight.bits > 4 and not _zeros(weight).any():
            for layer in together:
                self.count(layer, "int8")
            return self.shared("rounded", together[0], lambda base: self._rounded(together[0], x, base))
        rule = f"its input is rounded to 8 bits in groups of {GROUP}, by ranges read at run time"
        for layer in together:
            self.approximations[layer.name] = rule
            self.count(layer, "wint4" if weight.bits == 4 else "wint8")
        return x

    def _rounded(self, layer: Layer, x: str, base: str) -> str:
        scale, zero = static_grid(self.scheme(layer))
        grid = [self.build.constant(scale, f"{base}.scale"), self.build.constant(zero, f"{base}.zero")]
        codes = self.build.node("QuantizeLinear", [x, *grid], f"{base}.codes")
        return self.build.node("DequantizeLinear", [codes, *grid], base)

    def _stored(self, weight: Array | Quantized, name: str) -> str:
        """A weight [in, out]; one of codes is stored as [out, in], widened and turned in the graph."""
        if not isinstance(weight, Quantized):
            return self.build.weight(f"{name}.across", values(weight))
        wide = self.widened(weight.transpose(), f"{name}.wide")
        return self.build.node("Transpose", [wide], f"{name}.turned", perm=[1, 0])

    # Attention ---------------------------------------------------------------------------------------

    def _trio(self, block: Block, known: Mapping[str, Layer]) -> tuple[Layer, Layer, Layer] | None:
        """The layers of query, key and value, if they can be one: the same input, prepared alike, stored alike."""
        by_output = {layer.output: layer for layer in known.values()}
        found = [by_output.get(name) for name in (block.query, block.key, block.value)]
        trio = [layer for layer in found if layer is not None and layer.linear.bias is not None]
        if len(trio) < 3:
            return None
        inputs = {(layer.linear.source, identity(self.scheme(layer))) for layer in trio}
        kinds = {_kind(self.across(layer)) for layer in trio}
        halves = any(is_half(self.graph.weights[layer.linear.weight]) for layer in trio)  # scaled, they would grow
        if len(inputs) > 1 or len(kinds) > 1 or self.scheme(trio[0]).kept is not None or halves:
            return None
        return trio[0], trio[1], trio[2]

    def _attention(self, block: Block, trio: tuple[Layer, Layer, Layer]) -> None:
        """Query, key and value as one product, with the scale of the scores in the query's weights."""
        build, name = self.build, block.name
        refuse_bits(trio[0], self.scheme(trio[0]), "OpenVINO")
        scales = (block.scale, 1.0, 1.0)
        weight = _beside([_times(self.across(layer), scale) for layer, scale in zip(trio, scales, strict=True)])
        biases = [self.kept(layer)[1] for layer in trio]
        whole = np.concatenate([bias * scale for bias, scale in zip(biases, scales, strict=True) if bias is not None])
        if isinstance(weight, Quantized):
            x = self._input(trio, weight)
        else:
            x = self.prepared(trio[0], without_kept=False)
            for layer in trio:
                self._count_floats(layer)
            if self.scheme(trio[0]).bits is not None:
                self.in_float |= {layer.name: "its weights are floats" for layer in trio}
        together = build.node("MatMul", [x, self._stored(weight, f"{name}.qkv")], f"{name}.qkv.product")
        offsets = build.constant(whole.astype(np.float32), f"{name}.qkv.offsets")
        together = build.node("Add", [together, offsets], f"{name}.qkv")
        shape = build.constant([0, 0, 3, block.heads, block.size], f"{name}.qkv.shape")
        together = build.node("Reshape", [together, shape], f"{name}.qkv.heads")
        together = build.node("Transpose", [together], f"{name}.qkv.turned", perm=[2, 0, 3, 1, 4])
        parts = build.split("Split", [together], [f"{name}.{part}" for part in "qkv"], axis=0, num_outputs=3)
        first = build.constant([0], "axis.first")
        query, key, value = (build.node("Squeeze", [part, first], f"{part}.heads") for part in parts)
        key = build.node("Transpose", [key], f"{name}.k.turned", perm=[0, 1, 3, 2])
        scores = build.node("MatMul", [query, key], f"{name}.scores")
        if block.mask is not None:
            scores = build.node("Add", [scores, block.mask], f"{name}.masked")
        weights = build.node("Softmax", [scores], f"{name}.weights", axis=-1)
        context = build.node("MatMul", [weights, value], f"{name}.context")
        context = build.node("Transpose", [context], f"{name}.context.turned", perm=[0, 2, 1, 3])
        join = build.constant([0, 0, block.heads * block.size], f"{name}.join")
        build.node("Reshape", [context, join], block.output)


def _zeros(weight: Quantized) -> Array:
    return signed(weight)[1]


def _kind(weight: Array | Quantized) -> object:
    """What weights must have in common to be stored as one."""
    if not isinstance(weight, Quantized):
        return "floats"
    return weight.codes.dtype, weight.zero_point is None, weight.axis, weight.block, weight.bits


def _times(weight: Array | Quantized, factor: float) -> Array | Quantized:
    if isinstance(weight, Quantized):
        return replace(weight, scale=(weight.scale * factor).astype(np.float32))
    return (values(weight) * factor).astype(np.float32)


def _beside(weights: Sequence[Array | Quantized]) -> Array | Quantized:
    """Weights [in, out] of one kind as one [in, out + out + …]."""
    parts = [weight for weight in weights if isinstance(weight, Quantized)]
    if not parts:
        return np.concatenate([values(weight) for weight in weights], 1)
    if parts[0].block is None and parts[0].axis == 0:
        return np.concatenate([part.dequantize() for part in parts], 1)
    zeros = [part.zero_point for part in parts if part.zero_point is not None]
    return replace(
        parts[0],
        codes=np.concatenate([part.codes for part in parts], 1),
        scale=np.concatenate([part.scale for part in parts], -1),
        zero_point=np.concatenate(zeros, -1) if zeros else None,
    )
