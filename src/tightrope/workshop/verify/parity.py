"""Parity: are the numbers the same? And if they are not: which layer is the first to differ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.measurement import Parity
from tightrope.samples import TextPair
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.network import lower
from tightrope.workshop.verify.plain import Plain

Floats = NDArray[np.float32]

SAME = 1e-4
"""A relative error up to this is arithmetic in another order, not a difference."""

SHARE_OF_RISE = 0.5


def parity(answers: Floats, original: Floats) -> Parity:
    """Answers against the original's, row by row: vectors [n, width], or scores [n].

    Scores have no direction of their own, so all scores together are one vector, and its cosine about the mean
    (Pearson's correlation) stands in all three fields; the largest difference says more. Both must be finite
    (`Answers` checks that) and of one shape.
    """
    assert answers.shape == original.shape and len(answers), (answers.shape, original.shape)
    first, second = answers.astype(np.float64), original.astype(np.float64)
    if first.ndim == 1 or first.shape[1] == 1:
        rows, rows_before = (np.atleast_2d(side.ravel() - side.mean()) for side in (first, second))
    else:
        rows, rows_before = first, second
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(rows_before, axis=1)
    cosines = np.einsum("ij,ij->i", rows, rows_before) / np.where(lengths > 0, lengths, 1.0)
    same = (rows == rows_before).all(axis=1)  # nothing but zeros twice is the same, though it has no direction
    cosines = np.where(same, 1.0, np.clip(cosines, -1.0, 1.0))
    return Parity(
        n=len(answers),
        cosine_min=float(cosines.min()),
        cosine_p1=float(np.quantile(cosines, 0.01)),
        cosine_mean=float(cosines.mean()),
        largest_difference=float(np.abs(first - second).max()),
    )


def first_divergence(
    model: Model, original: Model, inputs: Sequence[str] | Sequence[TextPair] | Sequence[bytes]
) -> str | None:
    """The first layer whose own error matters, or `None` if the two models agree.

    Both references run on the same inputs, and after every table, linear layer and norm, in running order, the error
    relative to the original's output is taken over all tokens: ‖a - b‖ / ‖b‖. A layer's rise is its error less the
    largest error before it, for an error that was there already is not its own. Named is the first layer whose rise is
    at least half of the largest rise. Where a layer's output has changed its shape (pruning), it is passed over.
    """
    errors = layer_errors(model, original, inputs)
    rises, most = [], 0.0
    for error in errors.values():
        rises.append(error - most)
        most = max(most, error)
    if most <= SAME:
        return None
    wanted = SHARE_OF_RISE * max(rises)
    return next(name for name, rise in zip(errors, rises, strict=True) if rise >= wanted)


def layer_errors(
    model: Model, original: Model, inputs: Sequence[str] | Sequence[TextPair] | Sequence[bytes]
) -> dict[str, float]:
    """The relative error after each layer that both models have, in running order; see `first_divergence`."""
    graph, graph_before = lower(model), lower(original)
    layers, layers_before = _layers(graph), _layers(graph_before)
    shared = [name for name in layers_before if name in layers]
    sums = {name: _Sums() for name in shared}
    senses = original.senses
    met = senses.met(inputs) if isinstance(senses, TextSenses) else inputs
    after = Plain(graph, wanted=[layers[name] for name in shared]).run(met)
    before = Plain(graph_before, wanted=[layers_before[name] for name in shared]).run(met)
    for (_, mask, values), (_, _, expected) in zip(after, before, strict=True):
        for name, value, other in zip(shared, values, expected, strict=True):
            sums[name].add(value, other, mask)
    return {name: item.error for name, item in sums.items() if item.comparable}


class _Sums:
    """Squares of the difference and of the original, over all batches."""

    def __init__(self) -> None:
        self.comparable = True
        self._difference = self._original = 0.0

    def add(self, values: Floats, expected: Floats, mask: NDArray[np.bool_]) -> None:
        """Count one batch; padding is left out where the tensor is one row for each token."""
        self.comparable &= values.shape == expected.shape
        if not self.comparable:
            return
        if expected.ndim == 3 and expected.shape[:2] == mask.shape:
            values, expected = values[mask], expected[mask]
        self._difference += float(np.square(values - expected, dtype=np.float64).sum())
        self._original += float(np.square(expected, dtype=np.float64).sum())

    @property
    def error(self) -> float:
        """‖a - b‖ / ‖b‖."""
        return float(np.sqrt(self._difference / max(self._original, 1e-30)))


def _layers(graph: Graph) -> dict[str, str]:
    """Layers in running order, by name, with the tensor that they give.

    Tables, linear layers (with bias), convolutions and norms.
    """
    linear = {item.weight: item for item in graph.linears()}
    convolutions = {item.weight: item for item in graph.convolutions()}
    tables = {item.weight for item in graph.tables()}
    found: dict[str, str] = {}
    bias_of: dict[str, tuple[str, str]] = {}
    for node in graph.proto.graph.node:
        output = node.output[0]
        if (node.op_type == "Gather" and node.input[0] in tables) or (
            node.op_type == "Slice" and node.input[0] in graph.weights  # positions
        ):
            found[node.input[0]] = output
        elif node.op_type == "Conv" and node.input[1] in convolutions:
            found[convolutions[node.input[1]].name] = output
        elif node.op_type in ("MatMul", "Gemm") and node.input[1] in linear:
            layer = linear[node.input[1]]
            name = layer.name.removesuffix(".product")
            found[name] = output
            if node.op_type == "MatMul" and layer.bias:
                bias_of[output] = (name, layer.bias)
        elif node.op_type == "Add":
            product = next((name for name in node.input if name in bias_of), None)
            if product and bias_of[product][1] in node.input:
                found[bias_of[product][0]] = output
        elif node.op_type == "LayerNormalization":
            found[node.name or output] = output
    return found
