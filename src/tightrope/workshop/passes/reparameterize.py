"""Parallel convolutions of one input, and the input itself, become one convolution with the same answers.

Structural re-parameterisation (RepVGG: Ding et al. 2021, arXiv:2101.03697). A network is trained with a 3x3, a 1x1 and
an identity branch, each behind a batch normalisation, because that trains better; since all of them are linear, their
sum is one 3x3 convolution. Any kernels do whose windows one window covers; the sums are worked out in float64.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np
import onnx
from onnx import helper

from tightrope.errors import RecipeError, UnsupportedError
from tightrope.workshop.folding import fold_batch_norms
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.batch_norm import affine
from tightrope.workshop.numerics.quantized import Array, Quantized, Weight
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """There is nothing to choose: what can be merged without a change of answers is merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One linear way from a source to a sum: weight [out, in / groups, height, width] in float64 and bias [out].

    `before`, `behind`: rows and columns of zeros around the source. `conv` is its node, or `None` for the input itself.
    """

    weight: Array
    bias: Array
    before: tuple[int, int]
    behind: tuple[int, int]
    strides: tuple[int, int]
    groups: int
    conv: onnx.NodeProto | None


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with every sum of parallel branches as one convolution; without such sums it stays as it is.

    Raises `UnsupportedError` for a model that is no Graph, `RecipeError` after a step that annotated convolutions.
    """
    if not isinstance(model, Graph):
        raise UnsupportedError("reparameterize is for models that convolve.", hint="Leave it out.")
    if any(isinstance(model.weights[conv.weight], Quantized) for conv in model.convolutions()):
        raise RecipeError("reparameterize stands after the weights were rounded.", hint="Put it first.")
    return cast(M, merged(model))


def applies(model: Model) -> bool:
    """Whether there is anything to merge."""
    return isinstance(model, Graph) and len(merged(model).convolutions()) < len(model.convolutions())


def merged(graph: Graph) -> Graph:
    """The graph with its branches merged, values keeping their names."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    weights: dict[str, Weight] = dict(graph.weights)
    arrays = {name: value for name, value in weights.items() if not isinstance(value, Quantized)}
    fold_batch_norms(proto.graph, arrays)
    weights |= arrays
    walk = _Walk(proto.graph, arrays)
    for node in list(proto.graph.node):
        if node.op_type == "Add" and node.output[0] not in walk.inner:
            walk.merge(node)
    weights |= walk.made
    taken = {name for node in proto.graph.node for name in node.input}
    kept = {name: value for name, value in weights.items() if name in taken or name in graph.schemes}
    return replace(graph, proto=proto, weights=kept)


class _Walk:
    """Merges one sum after the other, in place."""

    def __init__(self, graph: onnx.GraphProto, weights: Mapping[str, Array]) -> None:
        self._graph, self._weights = graph, weights
        self._makers = {name: node for node in graph.node for name in node.output}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(item.name for item in graph.output)
        self.made: dict[str, Array] = {}
        self.inner = {
            name
            for node in graph.node
            if node.op_type == "Add"
            for name in node.input
            if self._uses[name] == 1 and name in self._makers and self._makers[name].op_type == "Add"
        }
        """Sums that are part of a larger one."""

    def merge(self, total: onnx.NodeProto) -> None:
        """Replace a sum and its branches by one convolution, if they allow it."""
        leaves, sums = self._leaves(total)
        for source in dict.fromkeys(name for leaf in leaves for name in self._sources(leaf)):
            branches = [self._branch(leaf, source) for leaf in leaves]
            whole = _joined([branch for branch in branches if branch is not None])
            if whole is None or None in branches:
                continue
            assert whole.conv is not None
            gone = [self._makers[leaf] for leaf in leaves if leaf != source] + [
                node for node in sums if node is not total
            ]
            self._write(total, whole, source)
            for node in gone:
                self._graph.node.remove(node)
            return

    def _leaves(self, total: onnx.NodeProto) -> tuple[list[str], list[onnx.NodeProto]]:
        """What is added up, through sums that nobody else takes, and those sums."""
        leaves, sums, waiting = [], [total], list(total.input)
        while waiting:
            name = waiting.pop(0)
            if name in self.inner:
                sums.append(self._makers[name])
                waiting += self._makers[name].input
            else:
                leaves.append(name)
        return leaves, sums

    def _sources(self, leaf: str) -> list[str]:
        maker = self._makers.get(leaf)
        is_linear = maker is not None and maker.op_type in ("Conv", "BatchNormalization")
        return [maker.input[0]] if maker is not None and is_linear else []

    def _branch(self, leaf: str, source: str) -> Branch | None:
        """The way from the source to a leaf, or `None` if it is none that can be merged."""
        maker = self._makers.get(leaf)
        if leaf == source:
            return self._identity(source, None)
        if maker is None or maker.input[0] != source or self._uses[leaf] != 1:
            return None
        if any(name not in self._weights for name in maker.input[1:]):
            return None
        if maker.op_type == "BatchNormalization":
            return self._identity(source, maker)
        return self._convolution(maker) if maker.op_type == "Conv" else None

    def _identity(self, source: str, norm: onnx.NodeProto | None) -> Branch | None:
        """The input itself, scaled by a batch normalisation if there is one; `groups` 0 fits any."""
        factor, offset = np.ones(1, np.float32), np.zeros(1, np.float32)  # as wide as what it is added to
        if norm is not None:
            gain, shift, mean, variance = (self._weights[name] for name in norm.input[1:5])
            epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), 1e-5)
            factor, offset = affine(gain, shift, mean, variance, epsilon)
        return Branch(
            weight=factor.astype(np.float64),
            bias=offset.astype(np.float64),
            before=(0, 0),
            behind=(0, 0),
            strides=(1, 1),
            groups=0,
            conv=None,
        )

    def _convolution(self, node: onnx.NodeProto) -> Branch | None:
        weight = self._weights[node.input[1]].astype(np.float64)
        settings = {item.name: item for item in node.attribute}
        auto = settings["auto_pad"].s if "auto_pad" in settings else b"NOTSET"
        if weight.ndim != 4 or auto != b"NOTSET":
            return None
        if "dilations" in settings and any(
            step != 1 and side != 1 for step, side in zip(settings["dilations"].ints, weight.shape[2:], strict=True)
        ):
            return None
        pads = list(settings["pads"].ints) if "pads" in settings else [0, 0, 0, 0]
        strides = list(settings["strides"].ints) if "strides" in settings else [1, 1]
        bias = self._weights[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight))
        return Branch(
            weight=weight,
            bias=bias.astype(np.float64),
            before=(pads[0], pads[1]),
            behind=(pads[2], pads[3]),
            strides=(strides[0], strides[1]),
            groups=settings["group"].i if "group" in settings else 1,
            conv=node,
        )

    def _write(self, total: onnx.NodeProto, whole: Branch, source: str) -> None:
        """The convolution in the place of the sum, under the names of the largest that went into it."""
        assert whole.conv is not None
        weight, bias = whole.conv.input[1], f"{whole.conv.input[1]}.bias"
        self.made |= {weight: whole.weight.astype(np.float32), bias: whole.bias.astype(np.float32)}
        node = helper.make_node(
            "Conv",
            [source, weight, bias],
            [total.output[0]],
            name=whole.conv.name or weight,
            group=whole.groups,
            kernel_shape=list(whole.weight.shape[2:]),
            pads=[*whole.before, *whole.behind],
            strides=list(whole.strides),
        )
        total.CopyFrom(node)
        self._makers[total.output[0]] = total


def _joined(branches: Sequence[Branch]) -> Branch | None:
    """Branches of one source as one, or `None` if they do not add up to a convolution."""
    convolutions = [branch for branch in branches if branch.conv is not None]
    if len(branches) < 2 or not convolutions:
        return None
    largest = max(convolutions, key=lambda branch: branch.weight.shape[2] * branch.weight.shape[3])
    out, inner = largest.weight.shape[:2]
    for branch in branches:
        if branch.strides != largest.strides or branch.groups not in (0, largest.groups):
            return None
        if branch.conv is not None and branch.weight.shape[:2] != (out, inner):
            return None
        if branch.conv is None and (inner * largest.groups != out or len(branch.weight) not in (1, out)):
            return None
    before, sides, behind = [], [], []
    for axis in (0, 1):
        parts = [(_side(branch, axis), branch.before[axis], branch.behind[axis]) for branch in branches]
        first = max(start for _, start, _ in parts)
        side = max(first - start + size for size, start, _ in parts)
        before.append(first)
        sides.append(side)
        behind.append(max(start + end - size for size, start, end in parts) - first + side)
    weight, bias = np.zeros((out, inner, *sides)), np.zeros(out)
    for branch in branches:
        top, left = (before[axis] - branch.before[axis] for axis in (0, 1))
        height, width = _side(branch, 0), _side(branch, 1)
        weight[:, :, top : top + height, left : left + width] += _whole(branch, out, inner)
        bias += branch.bias
    return replace(largest, weight=weight, bias=bias, before=(before[0], before[1]), behind=(behind[0], behind[1]))


def _side(branch: Branch, axis: int) -> int:
    return 1 if branch.conv is None else int(branch.weight.shape[2 + axis])


def _whole(branch: Branch, out: int, inner: int) -> Array:
    """The branch's weight; of the input itself, one tap from each channel to itself."""
    if branch.conv is not None:
        return branch.weight
    taps = np.zeros((out, inner, 1, 1))
    taps[np.arange(out), np.arange(out) % inner, 0, 0] = branch.weight
    return taps
