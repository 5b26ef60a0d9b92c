"""Attention in a graph: the nodes between query, key and value and the context, found by their shape.

Engines have one operator for all of them; which one, and whether it pays, is a converter's affair.
"""

from dataclasses import dataclass

import onnx

from tightrope.workshop.convert._forms import consumers
from tightrope.workshop.graph import Graph
from tightrope.workshop.numerics.quantized import Quantized

_HEADS_FIRST, _KEYS_LAST = [0, 2, 1, 3], [0, 2, 3, 1]
_Part = tuple[str, int, int]
"""A value before it is cut into heads, how many there are, and their size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """softmax(query · keyᵀ · scale + mask) · value, by head: query, key, value and output are [batch, length, width].

    `inner`: the outputs of all nodes that the block consists of.
    """

    name: str
    query: str
    key: str
    value: str
    mask: str | None
    scale: float
    heads: int
    size: int
    output: str
    inner: frozenset[str]


def blocks(graph: Graph) -> dict[str, Block]:
    """All attention blocks by their output. One whose inner values are used elsewhere is left alone."""
    finder = _Finder(graph)
    found = (finder.block(node) for node in graph.proto.graph.node if node.op_type == "Softmax")
    return {block.output: block for block in found if block is not None}


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self._weights = graph.weights
        self._users = consumers(graph)
        self._makers = {name: node for node in graph.proto.graph.node for name in node.output}
        self._outputs = {item.name for item in graph.proto.graph.output}

    def block(self, softmax: onnx.NodeProto) -> Block | None:
        inner: list[str] = [softmax.output[0]]
        scores, mask, after = self._scores(softmax, inner)
        context = self._only_user(softmax.output[0], "MatMul")
        if scores is None or context is None:
            return None
        query, before = self._scaled(scores.input[0], inner)
        key, also_before = self._scaled(scores.input[1], inner)
        parts = (self._split(query, inner), self._key(key, inner), self._split(context.input[1], inner))
        joined = self._joined(context, inner)
        if joined is None or any(part is None for part in parts) or context.input[0] != softmax.output[0]:
            return None
        (q, heads, size), (k, *key_shape), (v, *value_shape) = (part for part in parts if part is not None)
        if not [heads, size] == key_shape == value_shape or not self._is_private(inner, joined):
            return None
        return Block(
            name=softmax.name or joined,
            query=q,
            key=k,
            value=v,
            mask=mask,
            scale=before * also_before * after,
            heads=heads,
            size=size,
            output=joined,
            inner=frozenset((*inner, joined)),
        )

    def _scores(self, softmax: onnx.NodeProto, inner: list[str]) -> tuple[onnx.NodeProto | None, str | None, float]:
        """The product of query and key, the mask that is added to it, and a factor put between."""
        axis = next((item.i for item in softmax.attribute if item.name == "axis"), -1)
        node, mask = self._makers.get(softmax.input[0]), None
        if node is not None and node.op_type == "Add":
            inner.append(node.output[0])
            sides = list(node.input)
            product = next((name for name in sides if self._is_product(name)), None)
            if product is None:
                return None, None, 1.0
            mask = sides[1 - sides.index(product)]
            node = self._makers[product]
        factor = 1.0
        if node is not None and node.op_type in ("Mul", "Div"):
            source, factor = self._scaled(node.output[0], inner)
            node = self._makers.get(source)
        if node is None or node.op_type != "MatMul" or axis not in (-1, 3):
            return None, None, 1.0
        inner.append(node.output[0])
        return node, mask, factor

    def _is_product(self, name: str) -> bool:
        node = self._makers.get(name)
        if node is not None and node.op_type in ("Mul", "Div"):
            node = self._makers.get(node.input[0])
        return node is not None and node.op_type == "MatMul"

    def _scaled(self, name: str, inner: list[str]) -> tuple[str, float]:
        """What is multiplied with one number, and the number."""
        node = self._makers.get(name)
        if node is None or node.op_type not in ("Mul", "Div"):
            return name, 1.0
        factor = self._weights.get(node.input[1])
        if factor is None or isinstance(factor, Quantized) or factor.size != 1:
            return name, 1.0
        inner.append(name)
        number = float(factor.reshape(()))
        return node.input[0], number if node.op_type == "Mul" else 1 / number

    def _split(self, name: str, inner: list[str], order: tuple[list[int], ...] = (_HEADS_FIRST,)) -> _Part | None:
        """[batch, heads, length, size] back to [batch, length, width]: the source, heads and size."""
        turned = self._makers.get(name)
        if turned is None or turned.op_type != "Transpose" or list(turned.attribute[0].ints) not in order:
            return None
        reshaped = self._makers.get(turned.input[0])
        shape = self._shape(reshaped)
        if reshaped is None or len(shape) != 4 or shape[:2] != [0, 0] or min(shape[2:]) < 1:
            return None
        inner += [name, turned.input[0]]
        return reshaped.input[0], shape[2], shape[3]

    def _key(self, name: str, inner: list[str]) -> _Part | None:
        """The key, whose last two axes are exchanged, in one step or two."""
        node = self._makers.get(name)
        if node is not None and node.op_type == "Transpose" and list(node.attribute[0].ints) == [0, 1, 3, 2]:
            inner.append(name)
            return self._split(node.input[0], inner)
        return self._split(name, inner, (_KEYS_LAST,))

    def _joined(self, context: onnx.NodeProto, inner: list[str]) -> str | None:
        """The heads' contexts side by side."""
        turned = self._only_user(context.output[0], "Transpose")
        if turned is None or list(turned.attribute[0].ints) != _HEADS_FIRST:
            return None
        reshaped = self._only_user(turned.output[0], "Reshape")
        if reshaped is None or len(self._shape(reshaped)) != 3 or self._shape(reshaped)[:2] != [0, 0]:
            return None
        inner += [context.output[0], turned.output[0]]
        return str(reshaped.output[0])

    def _shape(self, node: onnx.NodeProto | None) -> list[int]:
        shape = self._weights.get(node.input[1]) if node is not None and node.op_type == "Reshape" else None
        return [] if shape is None or isinstance(shape, Quantized) else [int(size) for size in shape]

    def _only_user(self, name: str, op_type: str) -> onnx.NodeProto | None:
        users = self._users.get(name, [])
        return users[0] if len(users) == 1 and users[0].op_type == op_type else None

    def _is_private(self, inner: list[str], output: str) -> bool:
        """Whether nothing outside takes an inner value."""
        names = {*inner, output}
        return all(
            name not in self._outputs and all(user.output[0] in names for user in self._users.get(name, []))
            for name in inner
        )
