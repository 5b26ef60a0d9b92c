"""The post-norm transformer encoder that BERT, DistilBERT and RoBERTa share (Vaswani et al. 2017; Devlin et al. 2019).

A family file gives a `Layout`: what its checkpoint calls each part. Everything else is here: which weights are
layers and tables, and how the whole is lowered to ONNX. `verbs` makes of a layout what a family file has to offer.

The lowered graph is made for edge engines: an additive float mask of four dimensions instead of boolean logic,
positions by slicing, pooling and normalising inside, dynamic batch and length. Nodes are named after the weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tightrope.errors import UnsupportedError
from tightrope.ports import Port
from tightrope.workshop import pooling
from tightrope.workshop.graph import Builder, Graph, is_float, is_half, widen
from tightrope.workshop.layouts import Layout
from tightrope.workshop.model import Linear, Table, Task
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Quantized, Scheme, kept_name, values

Verbs = tuple[
    Callable[[Network], tuple[Linear, ...]], Callable[[Network], tuple[Table, ...]], Callable[[Network], Graph]
]


def verbs(layout: Callable[[Mapping[str, Any]], Layout]) -> Verbs:
    """A family's `linears`, `tables` and `lower`, by the layout that its configuration gives."""
    return (
        lambda network: linears(layout(network.config), network.task),
        lambda network: tables(layout(network.config)),
        lambda network: lower(network, layout(network.config)),
    )


def linears(layout: Layout, task: Task) -> tuple[Linear, ...]:
    """The linear layers in running order; query, key and value share their input."""

    def linear(name: str, source: str) -> Linear:
        return Linear(name=name, weight=f"{name}.weight", bias=f"{name}.bias", source=source, out_axis=0)

    found = []
    for index in range(layout.layers):
        before = layout.part(index - 1, layout.output_norm) if index else layout.embedding_norm
        found += [linear(layout.part(index, name), before) for name in (layout.query, layout.key, layout.value)]
        found.append(linear(layout.part(index, layout.attention_output), layout.part(index, "context")))
        found.append(linear(layout.part(index, layout.up), layout.part(index, layout.attention_norm)))
        found.append(linear(layout.part(index, layout.down), layout.part(index, "activation")))
    source = "first_token"
    for name, activation in layout.head if task.name == "scoring" else ():
        found.append(linear(name, source))
        source = f"{name}.{activation}"
    for index, activation in enumerate(task.dense):
        found.append(linear(f"dense.{index}", "pooled" if index == 0 else f"dense.{index - 1}.{activation}"))
    return tuple(found)


def tables(layout: Layout) -> tuple[Table, ...]:
    """The vocabulary and the positions."""
    return (
        Table(weight=layout.word_table, is_vocabulary=True),
        Table(weight=layout.position_table, is_vocabulary=False),
    )


def lower(network: Network, layout: Layout) -> Graph:
    """The network as a Graph. Linear weights are transposed to [in, out]; annotations go along."""
    return _Lowering(network, layout).run()


class _Lowering:
    """Builds one graph, part by part in running order."""

    def __init__(self, network: Network, layout: Layout) -> None:
        self.network, self.layout, self.build = network, layout, Builder()
        self.schemes: dict[str, Scheme] = {}
        types = 0 if layout.type_table is None else network.weights[layout.type_table].shape[0]
        self.pairs = network.task.name == "scoring" and types > 1  # RoBERTa has one type: nothing to tell apart

    def run(self) -> Graph:
        ids, mask = (
            Port("input_ids", "int64", ("batch", "length")),
            Port("attention_mask", "int64", ("batch", "length")),
        )
        inputs = [ids, mask] + ([Port("token_type_ids", "int64", ("batch", "length"))] if self.pairs else [])
        hidden, additive = self._embeddings(), self._mask()
        for index in range(self.layout.layers):
            hidden = self._layer(index, hidden, additive)
        output = self._scores(hidden) if self.network.task.name == "scoring" else self._embedding(hidden)
        name = "scores" if self.network.task.name == "scoring" else "embedding"
        self.build.node("Identity", [output], name)
        proto = self.build.proto(
            self.network.family, tuple(inputs), (Port(name, "float32", ("batch", self.network.task.width)),)
        )
        return Graph(
            proto=widen(proto, [name for name, weight in self.build.weights.items() if is_half(weight)]),
            weights=self.build.weights,
            schemes=self.schemes,
            senses=self.network.senses,
            task=self.network.task,
            origin=self.network.origin,
            digest=self.network.digest,
        )

    # Parts -------------------------------------------------------------------------------------------

    def _embeddings(self) -> str:
        layout, build = self.layout, self.build
        words = build.node("Gather", [self._weight(layout.word_table), "input_ids"], "embeddings.words")
        shape = build.node("Shape", ["input_ids"], "length", start=1, end=2)
        first = build.constant([layout.first_position], "first_position")
        end = build.node("Add", [shape, first], "end_position")
        axis = build.constant([0], "axis_0")
        positions = build.node("Slice", [self._position_table(), first, end, axis], "embeddings.positions")
        total = build.node("Add", [words, positions], "embeddings.sum")
        if self.pairs:
            assert layout.type_table is not None
            types = build.node("Gather", [self._weight(layout.type_table), "token_type_ids"], "embeddings.types")
            total = build.node("Add", [total, types], "embeddings.sum_of_three")
        return self._norm(total, layout.embedding_norm)

    def _position_table(self) -> str:
        """The positions that a text can reach; the first token type is added where no other can occur."""
        layout, name = self.layout, self.layout.position_table
        table = self.network.weights[name]
        if isinstance(table, Quantized) or not is_float(table):
            raise UnsupportedError(f"{name} is quantised, but it is added to.", hint="Quantise the vocabulary only.")
        reached = values(table)[: layout.first_position + self.network.senses.max_length]
        if not self.pairs and layout.type_table is not None:
            reached = reached + values(self.network.weights[layout.type_table])[0]
        return self.build.weight(name, reached.astype(table.dtype))

    def _mask(self) -> str:
        pooling.masks(self.build)
        axes = self.build.constant([1, 2], "axes_1_2")
        return self.build.node("Unsqueeze", [pooling.ADDITIVE_MASK, axes], "mask.additive")

    def _layer(self, index: int, hidden: str, mask: str) -> str:
        layout, build = self.layout, self.build

        def part(name: str) -> str:
            return layout.part(index, name)

        width = self.network.weights[f"{part(layout.query)}.bias"].shape[0]
        size = layout.hidden // layout.heads
        split = build.constant([0, 0, width // size, size], f"heads.{width // size}")
        query, key, value = (self._linear(hidden, part(name)) for name in (layout.query, layout.key, layout.value))
        query = build.node("Reshape", [query, split], part("query.split"))
        key = build.node("Reshape", [key, split], part("key.split"))
        value = build.node("Reshape", [value, split], part("value.split"))
        query = build.node("Transpose", [query], part("query.heads"), perm=[0, 2, 1, 3])
        key = build.node("Transpose", [key], part("key.heads"), perm=[0, 2, 3, 1])
        value = build.node("Transpose", [value], part("value.heads"), perm=[0, 2, 1, 3])
        query = build.node("Mul", [query, build.constant(size**-0.5, f"scale.{size}")], part("query.scaled"))
        scores = build.node("MatMul", [query, key], part("scores"))
        scores = build.node("Add", [scores, mask], part("scores.masked"))
        weights = build.node("Softmax", [scores], part("probabilities"), axis=-1)
        context = build.node("MatMul", [weights, value], part("context.heads"))
        context = build.node("Transpose", [context], part("context.tokens"), perm=[0, 2, 1, 3])
        join = build.constant([0, 0, width], f"join.{width}")
        context = build.node("Reshape", [context, join], part("context"))
        output = self._linear(context, part(layout.attention_output))
        hidden = self._norm(build.node("Add", [output, hidden], part("attention.sum")), part(layout.attention_norm))
        inner = pooling.activation(
            self.build, self._linear(hidden, part(layout.up)), part("activation"), layout.activation
        )
        output = self._linear(inner, part(layout.down))
        return self._norm(build.node("Add", [output, hidden], part("output.sum")), part(layout.output_norm))

    def _scores(self, hidden: str) -> str:
        first = self.build.constant(np.array(0, np.int64), "first_token_index")
        current = self.build.node("Gather", [hidden, first], "first_token", axis=1)
        for name, activation in self.layout.head:
            current = pooling.activation(self.build, self._linear(current, name), f"{name}.{activation}", activation)
        return pooling.activation(self.build, current, "scores.activated", self.network.task.activation)

    def _embedding(self, hidden: str) -> str:
        task = self.network.task
        pooled = pooling.pool(self.build, hidden, task.pooling)
        for index, activation in enumerate(task.dense):
            linear = self._linear(pooled, f"dense.{index}")
            pooled = pooling.activation(self.build, linear, f"dense.{index}.{activation}", activation)
        return pooling.normalize(self.build, pooled) if task.normalize else pooled

    # Elements ----------------------------------------------------------------------------------------

    def _weight(self, name: str) -> str:
        return self.build.weight(name, self.network.weights[name])

    def _linear(self, source: str, name: str) -> str:
        weight = self.network.weights[f"{name}.weight"]
        across = weight.transpose() if isinstance(weight, Quantized) else np.ascontiguousarray(weight.T)
        stored = self.build.weight(f"{name}.weight", across)
        if f"{name}.weight" in self.network.schemes:
            self.schemes[f"{name}.weight"] = self.network.schemes[f"{name}.weight"]
        if kept_name(f"{name}.weight") in self.network.weights:
            self._weight(kept_name(f"{name}.weight"))
        product = self.build.node("MatMul", [source, stored], f"{name}.product")
        return self.build.node("Add", [product, self._weight(f"{name}.bias")], name)

    def _norm(self, source: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self.build.node("LayerNormalization", [source, scale, bias], name, axis=-1, epsilon=self.layout.epsilon)
