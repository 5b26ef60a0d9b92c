"""Our own engine: one file, mapped and used as it lies.

It takes the annotated Network and never guesses patterns. A layer whose weights and inputs are on eight bits, the
inputs by token and symmetric, runs on integers; everything else runs in float arithmetic on whatever the weights are
stored as. What it cannot express is refused with the layer's name and the way to an engine that can.
"""

import struct
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tightrope import plugins
from tightrope.device.runtimes.native import version
from tightrope.errors import UnsupportedError
from tightrope.ports import Port
from tightrope.workshop.convert import _wordpiece
from tightrope.workshop.convert._artefact import (
    INT4,
    INT6,
    INT8,
    PANEL,
    Section,
    array,
    file,
    float_panels,
    integer_panels,
    nibbles,
    packed_rows,
    padded,
    round_up,
)
from tightrope.workshop.converted import Converted
from tightrope.workshop.layouts import Layout
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.pairs import is_paired
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized, Scheme, Weight, values

ACTIVATIONS = {
    "identity": 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "relu": 3,
    "tanh": 4,
    "sigmoid": 5,
}
TAKES = Network
POOLINGS = {"mean": 0, "cls": 1, "max": 2, "mean_sqrt_len": 3}
LEAST_HALF = 2.0**-14
"""Below it float16 loses bits."""
_OTHER_ENGINE = "Use `-> onnxruntime` for this model."


def convert(model: Model) -> Converted:
    """One file with weights, tables and, where it runs natively, the tokenizer.

    Raises `UnsupportedError` for a Graph, and for what the engine cannot express.
    """
    if not isinstance(model, Network):
        raise UnsupportedError("The native engine takes models of a known family, not ONNX files.", hint=_OTHER_ENGINE)
    form = _NativeForm(model)
    sections = form.write()
    ids = [Port("input_ids", "int32", ("tokens",)), Port("offsets", "int64", ("texts",))]
    types = [Port("token_type_ids", "int32", ("tokens",))] if form.types else []
    output = Port("scores" if model.task.name == "scoring" else "embedding", "float32", ("texts", model.task.width))
    return Converted(
        engine="native",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("tightrope", file(sections))},
        inputs=(*ids, *types),
        outputs=(output,),
        floats=form.in_float,
        tokenizer="model" if "wordpiece" in sections else None,
    )


def packed_tokenizer(tokenizer: bytes) -> bytes | None:
    """A file with nothing but a tokenizer, from a tokenizer.json; `None` for one that does not run natively."""
    packed = _packed(tokenizer)
    return None if packed is None else file({"wordpiece": Section(packed)})


@lru_cache(maxsize=4)
def _packed(tokenizer: bytes) -> bytes | None:
    try:
        return _wordpiece.pack(tokenizer)
    except UnsupportedError:
        return None


class _NativeForm:
    """Collects the sections, part by part in running order."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.layout: Layout = plugins.load("families", network.family.replace("-", "_")).layout(network.config)
        self.linears = {linear.name: linear for linear in network.linears()}
        self.sections: dict[str, Section] = {}
        self.in_float: dict[str, str] = {}
        self._runs: Counter[str] = Counter()
        types = 0 if self.layout.type_table is None else network.weights[self.layout.type_table].shape[0]
        self.types = types if network.task.name == "scoring" and types > 1 else 0

    @property
    def precision(self) -> str:
        """The precision of most multiply-adds."""
        return self._runs.most_common(1)[0][0] if self._runs else "fp32"

    def write(self) -> dict[str, Section]:
        """All sections."""
        layout, task = self.layout, self.network.task
        if layout.activation not in ACTIVATIONS:
            raise UnsupportedError(
                f"The native engine has no activation {layout.activation!r}.", hint=f"Known: {', '.join(ACTIVATIONS)}."
            )
        tail = self._tail()
        scores = task.name == "scoring"
        numbers = (
            layout.hidden,
            layout.layers,
            layout.hidden // layout.heads,
            self.network.weights[layout.word_table].shape[0],
            self.network.senses.max_length,
            self.types,
            scores,
            POOLINGS["cls" if scores else task.pooling],
            not scores and task.normalize,
            len(tail),
            task.width,
        )
        self.sections["config"] = Section(struct.pack("<11If16x", *numbers, layout.epsilon))
        self._embeddings()
        for index in range(layout.layers):
            self._layer(index)
        for index, (name, activation) in enumerate(tail):
            self._linear(f"tail.{index}", [name], activation)
        if (packed := _packed(self.network.senses.tokenizer)) is not None:
            self.sections["wordpiece"] = Section(packed)
        return self.sections

    # Parts -------------------------------------------------------------------------------------------

    def _embeddings(self) -> None:
        layout, weights = self.layout, self.network.weights
        table = weights[layout.word_table]
        if isinstance(table, Quantized):
            self._integer_table(table)
        else:
            self.sections["words"] = array(_stored(table, layout.word_table))
        first = layout.first_position
        positions = weights[layout.position_table]
        if isinstance(positions, Quantized):
            raise UnsupportedError(
                f"{layout.position_table} is quantised, but it is added to.", hint="Quantise the vocabulary only."
            )
        reached = values(positions)[first : first + self.network.senses.max_length]
        if layout.type_table is not None:
            types = values(weights[layout.type_table])
            if self.types:
                self.sections["types"] = array(types)
            else:
                reached = reached + types[0]
        self.sections["positions"] = array(reached.astype(np.float32))
        self._norm("embedding_norm", layout.embedding_norm)

    def _integer_table(self, table: Quantized) -> None:
        """Codes of 8, 6 or 4 bits; scales in float16 where it holds them exactly."""
        codes, zero = _signed(table)
        rows, width = codes.shape
        if table.bits == 8:
            self.sections["words"] = Section(codes.tobytes(), INT8)
        elif width % 32 == 0:
            kind = {6: INT6, 4: INT4}[table.bits]
            self.sections["words"] = Section(packed_rows(codes, table.bits), kind)
        else:
            self.sections["words"] = Section(codes.tobytes(), INT8)
        group = table.block or width
        if width % group or table.axis != (1 if table.block else 0):
            raise UnsupportedError(f"The vocabulary's blocks of {group} do not divide its {width}.", hint=_OTHER_ENGINE)
        scales = table.scale.reshape(rows, -1)
        halves = scales.astype(np.float16)
        exact = bool((halves == scales).all() and (scales >= LEAST_HALF).all())
        self.sections["words.table"] = Section(struct.pack("<II", group, exact))
        self.sections["words.scale"] = array(halves if exact else scales)
        if zero is not None:
            self.sections["words.zero"] = array(zero.reshape(rows, -1))

    def _layer(self, index: int) -> None:
        layout = self.layout

        def part(name: str) -> str:
            return layout.part(index, name)

        trio = [part(name) for name in (layout.query, layout.key, layout.value)]
        width = self._shape(trio[0])[0]
        self.sections[f"{index}.layer"] = Section(
            struct.pack("<II", width // (layout.hidden // layout.heads), self._shape(part(layout.up))[0])
        )
        if len({self._kind(name) for name in trio}) == 1:
            self._linear(f"{index}.qkv", trio)
        else:
            for short, name in zip(("query", "key", "value"), trio, strict=True):
                self._linear(f"{index}.{short}", [name])
        self._linear(f"{index}.output", [part(layout.attention_output)])
        self._norm(f"{index}.attention_norm", part(layout.attention_norm))
        self._linear(f"{index}.up", [part(layout.up)], layout.activation)
        self._linear(f"{index}.down", [part(layout.down)])
        self._norm(f"{index}.output_norm", part(layout.output_norm))

    def _tail(self) -> list[tuple[str, str]]:
        """The layers after the pooling, each with what follows it; a score's own activation ends the last one."""
        task = self.network.task
        if task.name != "scoring":
            return [(f"dense.{index}", activation) for index, activation in enumerate(task.dense)]
        head = list(self.layout.head)
        if task.activation != "identity":
            name, activation = head[-1]
            assert activation == "identity", activation
            head[-1] = (name, task.activation)
        return head

    def _norm(self, short: str, name: str) -> None:
        for suffix, source in (("gain", "weight"), ("bias", "bias")):
            self.sections[f"{short}.{suffix}"] = array(values(self.network.weights[f"{name}.{source}"]))

    # Layers ------------------------------------------------------------------------------------------

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.network.weights[self.linears[name].weight].shape

    def _scheme(self, name: str) -> Scheme:
        return self.network.schemes.get(self.linears[name].weight, Scheme())

    def _kind(self, name: str) -> tuple[object, ...]:
        """What layers must have in common to be one."""
        weight, scheme = self.network.weights[self.linears[name].weight], self._scheme(name)
        stored: tuple[object, ...] = (
            (str(weight.dtype),)
            if not isinstance(weight, Quantized)
            else (
                weight.bits,
                weight.block,
                weight.zero_point is None,
            )
        )
        arrays = tuple(None if item is None else item.tobytes() for item in (scheme.smooth, scheme.shift))
        return (*stored, scheme.bits, scheme.rotation, *arrays)

    def _linear(self, short: str, names: Sequence[str], activation: str = "identity") -> None:
        """Layers with the same input and kind, side by side as one."""
        scheme = self._scheme(names[0])
        self._check(names[0], scheme)
        weights = [self._rows(self.linears[name]) for name in names]
        out, width = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
        biases = [self._bias(self.linears[name], weight.shape[0]) for name, weight in zip(names, weights, strict=True)]
        integers = scheme.bits is not None and all(_is_plain(weight) for weight in weights)
        group, paired = 0, False
        if integers:
            paired = self._integers(short, weights)
        else:
            group = self._floats(short, weights)
        self._count(names, weights, integers, scheme)
        self.sections[f"{short}.bias"] = array(padded(np.concatenate(biases), (round_up(out, PANEL),)))
        factor = None if scheme.smooth is None else (1 / scheme.smooth).astype(np.float32)
        if factor is not None:
            self.sections[f"{short}.factor"] = array(factor)
        if scheme.shift is not None:
            offset = -scheme.shift if factor is None else -scheme.shift * factor
            self.sections[f"{short}.offset"] = array(offset.astype(np.float32))
        rounded = scheme.bits is not None
        record = (width, out, integers, rounded, scheme.rotation or 0, group, ACTIVATIONS[activation], paired)
        self.sections[f"{short}.linear"] = Section(struct.pack("<8I", *record))

    def _check(self, name: str, scheme: Scheme) -> None:
        """Refuse an annotation that the engine cannot follow to the letter."""
        if scheme.kept is not None:
            raise UnsupportedError(
                f"{name} keeps outliers in float, which the native engine does not do.",
                hint="Use rotate in place of outliers.",
            )
        if scheme.bits is None:
            return
        if scheme.bits != 8 or scheme.static is not None or scheme.granularity != "token" or not scheme.symmetric:
            raise UnsupportedError(
                f"{name} rounds its input otherwise than by token, symmetric, to 8 bits.",
                hint="Use int8(granularity=token), or `-> onnxruntime`.",
            )

    def _rows(self, linear: Linear) -> Weight:
        """The weight as [out, in]."""
        weight = self.network.weights[linear.weight]
        if not np.isfinite(values(weight)).all():
            raise UnsupportedError(f"{linear.weight} holds values that are not finite.", hint="Give a whole model.")
        if linear.out_axis == 0:
            return weight
        return weight.transpose() if isinstance(weight, Quantized) else np.ascontiguousarray(weight.T)

    def _bias(self, linear: Linear, out: int) -> Floats:
        return np.zeros(out, np.float32) if linear.bias is None else values(self.network.weights[linear.bias])

    def _integers(self, short: str, weights: Sequence[Weight]) -> bool:
        """Codes by codes, a scale for each output; returns whether the codes keep to what pairs may add up to."""
        quantized = [weight for weight in weights if isinstance(weight, Quantized)]
        codes = np.concatenate([weight.codes for weight in quantized])
        out = round_up(len(codes), PANEL)
        self.sections[f"{short}.weight"] = array(integer_panels(codes))
        scales = np.concatenate([weight.scale for weight in quantized])
        self.sections[f"{short}.scale"] = array(padded(scales, (out,)))
        self.sections[f"{short}.sums"] = array(padded(codes.astype(np.int32).sum(1, dtype=np.int32), (out,)))
        return is_paired(codes)

    def _floats(self, short: str, weights: Sequence[Weight]) -> int:
        """Weights as they are stored, for float arithmetic; returns how many inputs share a scale, 0 for floats."""
        if not all(isinstance(weight, Quantized) for weight in weights):
            stored = np.concatenate([_stored(weight, short) for weight in weights])
            self.sections[f"{short}.weight"] = array(float_panels(stored))
            return 0
        quantized = [weight for weight in weights if isinstance(weight, Quantized)]
        first, width = quantized[0], quantized[0].shape[1]
        group = first.block or width
        if width % group or first.axis != (1 if first.block else 0):
            raise UnsupportedError(f"The blocks of {short} do not divide its {width} inputs.", hint=_OTHER_ENGINE)
        signed = [_signed(weight) for weight in quantized]
        panels = float_panels(np.concatenate([codes for codes, _ in signed]))
        element = INT4 if first.bits == 4 else INT8
        data = nibbles(np.ascontiguousarray(panels)) if element == INT4 else panels.tobytes()
        self.sections[f"{short}.weight"] = Section(data, element)
        scales = np.concatenate([weight.scale.reshape(len(weight.codes), -1) for weight in quantized])
        self.sections[f"{short}.scale"] = array(float_panels(scales.astype(np.float32)))
        if first.zero_point is not None:
            zeros = np.concatenate([zero.reshape(len(codes), -1) for codes, zero in signed if zero is not None])
            self.sections[f"{short}.zero"] = array(float_panels(zeros.astype(np.float32)))
        return int(group)

    def _count(self, names: Sequence[str], weights: Sequence[Weight], integers: bool, scheme: Scheme) -> None:
        """Note what the layers run in, and which were meant for integers and do not."""
        for name, weight in zip(names, weights, strict=True):
            bits = f"wint{4 if weight.bits == 4 else 8}" if isinstance(weight, Quantized) else "fp32"
            self._runs["int8" if integers else bits] += int(np.prod(weight.shape))
            if scheme.bits is not None and not integers:
                self.in_float[name] = "its weights are not on one 8-bit grid for each output"


def _is_plain(weight: Weight) -> bool:
    """Eight bits or fewer on one symmetric grid for each output."""
    if not isinstance(weight, Quantized):
        return False
    return weight.block is None and weight.axis == 0 and weight.zero_point is None and weight.codes.dtype == np.int8


def _signed(weight: Quantized) -> tuple[Array, Array | None]:
    """Codes and zero points as int8, unsigned ones moved down by half their range."""
    if weight.codes.dtype == np.int8:
        return weight.codes, None if weight.zero_point is None else weight.zero_point.astype(np.int8)
    middle = 2 ** (weight.bits - 1)
    zero: Any = np.zeros(weight.scale.shape, np.int16) if weight.zero_point is None else weight.zero_point
    return (weight.codes.astype(np.int16) - middle).astype(np.int8), (zero.astype(np.int16) - middle).astype(np.int8)


def _stored(weight: Weight, name: str) -> Array:
    """Floats as the engine stores them: float32, or float16 where they are; bfloat16 is widened."""
    if isinstance(weight, Quantized):
        return values(weight)
    if weight.dtype == np.float16:
        return weight
    found = values(weight)
    if not np.isfinite(found).all():
        raise UnsupportedError(f"{name} holds values that are not finite.", hint="Give a model that is whole.")
    return found
