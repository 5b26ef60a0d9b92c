"""Observe: what the inputs of a model's linear layers look like on calibration texts.

Always the float model as it was before any step is observed, so that what a pass sees does not depend on which
recipe was tried before. Prepared inputs (shifted, smoothed) follow from the raw ones by `numerics.quantized.prepared`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from onnx import helper

from tightrope.device.senses.text import Encoded, Tokenizer, batches
from tightrope.errors import DataError
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.hadamard import rotated
from tightrope.workshop.numerics.quantized import Array, Floats, Scheme, prepared
from tightrope.workshop.reference import opened, reference

TOKENS_PER_RUN = 1024
SAMPLED_ROWS = 1024
"""Rows kept of each input, evenly spread over all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """The rows that entered a linear layer: `count` tokens of `in` features, all float32.

    `low`, `high`, `mean`: [in]. `gram`: XᵀX / count, [in, in]. `rows`: a fixed sample, [≤ SAMPLED_ROWS, in].
    """

    count: int
    low: Floats
    high: Floats
    mean: Floats
    gram: Floats
    rows: Floats

    def prepared(self, scheme: Scheme | None) -> "Inputs":
        """The same tokens as a scheme prepares them: shifted, smoothed, rotated."""
        if scheme is None or (scheme.shift is None and scheme.smooth is None and scheme.rotation is None):
            return self
        shift = np.zeros_like(self.mean) if scheme.shift is None else scheme.shift
        smooth = np.ones_like(self.mean) if scheme.smooth is None else scheme.smooth
        cross = np.outer(self.mean, shift)
        gram = (self.gram - cross - cross.T + np.outer(shift, shift)) / np.outer(smooth, smooth)
        rows = prepared(self.rows, scheme)
        low, high = prepared(self.low, scheme), prepared(self.high, scheme)
        if scheme.rotation is not None:
            gram = rotated(rotated(gram, scheme.rotation).T, scheme.rotation)
            low, high = rows.min(0), rows.max(0)  # a rotated range is not the range of what is rotated
        return Inputs(count=self.count, low=low, high=high, mean=prepared(self.mean, scheme), gram=gram, rows=rows)


class Observer:
    """Observes one model on given texts, once, when first asked."""

    def __init__(self, model: Model, texts: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> None:
        self._model = model
        self._inputs: list[Any] = list(pairs) or list(texts)
        self.texts = tuple(texts)
        """The calibration texts."""
        self.pairs = tuple(pairs)
        """Pairs of texts, for a model that scores them; they are observed instead of the texts."""
        self.digest = hashlib.sha256("\0".join(map(str, self._inputs)).encode("utf-8", "surrogatepass")).hexdigest()
        """Identifies the texts."""
        self.memo: dict[str, Any] = {}
        """Costly results of passes that follow from what was observed, for recipes that share them; by digest."""

    @cached_property
    def inputs(self) -> Mapping[str, Inputs]:
        """What entered each linear layer, keyed by the name of the layer's weight."""
        if not self._inputs:
            raise DataError("There are no calibration texts.", hint="Give at least a few texts with --data.")
        graph = lower(self._model)
        sources = {linear.weight: linear.source for linear in graph.linears()}
        wanted = sorted(set(sources.values()))
        encoded = Tokenizer(graph.senses.tokenizer, graph.senses.max_length).encode(graph.senses.met(self._inputs))
        gathered: dict[str, _Gathered] = {}
        for mask, outputs in _runs(graph, encoded, wanted):
            for name, values in zip(wanted, outputs, strict=True):
                rows = _rows(values, mask)
                if name not in gathered:  # a layer after the pooling sees one row a text, the others one a token
                    total = len(self._inputs) if len(rows) == len(mask) else len(encoded.ids.values)
                    gathered[name] = _Gathered(every=max(1, total // SAMPLED_ROWS))
                gathered[name].add(rows)
        finished = {name: item.finish() for name, item in gathered.items()}
        return {weight: finished[source] for weight, source in sources.items()}


class _Gathered:
    """Running sums over rows."""

    def __init__(self, *, every: int) -> None:
        self._every, self._count = every, 0
        self._rows: list[Floats] = []
        self._low = self._high = self._total = self._gram = np.zeros(0, np.float32)

    def add(self, rows: Floats) -> None:
        if not self._count:
            width = rows.shape[1]
            self._low, self._high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
            self._total, self._gram = np.zeros(width, np.float64), np.zeros((width, width), np.float32)
        start = -self._count % self._every
        self._rows.append(rows[start :: self._every].copy())
        self._count += len(rows)
        np.minimum(self._low, rows.min(0), out=self._low)
        np.maximum(self._high, rows.max(0), out=self._high)
        self._total += rows.sum(0, dtype=np.float64)
        self._gram += rows.T @ rows

    def finish(self) -> Inputs:
        return Inputs(
            count=self._count,
            low=self._low,
            high=self._high,
            mean=(self._total / self._count).astype(np.float32),
            gram=self._gram / np.float32(self._count),
            rows=np.concatenate(self._rows)[:SAMPLED_ROWS],
        )


def _rows(values: Array, mask: Array) -> Floats:
    """Rows [n, features] of what a layer takes, those of padding left out; `mask` is [batch, length]."""
    rows: Floats = values.reshape(-1, values.shape[-1])
    return rows[mask.ravel()] if len(rows) == mask.size else rows


def _runs(graph: Graph, encoded: Encoded, wanted: Sequence[str]) -> Iterator[tuple[Array, list[Floats]]]:
    """Run all texts in batches; yields the boolean token mask [batch, length] and the wanted tensors."""
    proto = reference(graph)
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in wanted)
    session = opened(proto)
    takes = {item.name for item in session.get_inputs()}
    for batch in batches(encoded.ids.lengths, TOKENS_PER_RUN):
        ids, mask = encoded.ids.take(batch).padded()
        types = encoded.types.take(batch).padded()[0]
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        yield (
            mask.astype(bool),
            session.run(list(wanted), {name: value for name, value in feeds.items() if name in takes}),
        )
