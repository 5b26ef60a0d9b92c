"""Observe: what the inputs of a model's layers look like on calibration texts or images.

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

from tightrope.device.senses.image import ImageSenses
from tightrope.device.senses.text import Encoded, Tokenizer, batches
from tightrope.errors import DataError
from tightrope.workshop.graph import Graph, between
from tightrope.workshop.model import Convolution, Linear, Model, image_senses, text_senses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.hadamard import rotated
from tightrope.workshop.numerics.quantized import Array, Floats, Scheme, prepared
from tightrope.workshop.reference import opened, reference

TOKENS_PER_RUN = 1024
SAMPLED_ROWS = 1024
"""Rows kept of each input, evenly spread over all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """The rows that entered a layer: `count` tokens (or pixels) of `in` features, all float32.

    `low`, `high`, `mean`: [in]. `gram`: XᵀX / count, [in, in]; of a convolution's pixels it is empty, as nothing asks
    for it. `rows`: a fixed sample, [≤ SAMPLED_ROWS, in].
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
    """Observes one model on given texts, pairs or images, once, when first asked."""

    def __init__(
        self,
        model: Model,
        texts: Sequence[str],
        pairs: Sequence[tuple[str, str]] = (),
        images: Sequence[bytes] = (),
    ) -> None:
        self._model = model
        self._inputs: list[Any] = list(pairs) or list(texts)
        self._images = images
        self.texts = tuple(texts)
        """The calibration texts."""
        self.pairs = tuple(pairs)
        """Pairs of texts, for a model that scores them; they are observed instead of the texts."""
        names = [hashlib.sha256(image).hexdigest() for image in images] or map(str, self._inputs)
        self.digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
        """Identifies the texts or images."""
        self.memo: dict[str, Any] = {}
        """Costly results of passes that follow from what was observed, for recipes that share them; by digest."""

    @cached_property
    def inputs(self) -> Mapping[str, Inputs]:
        """What entered each layer, keyed by the name of the layer's weight."""
        if isinstance(self._model.senses, ImageSenses):
            layers: tuple[Linear | Convolution, ...] = (*self._graph.linears(), *self._graph.convolutions())
            return {layer.weight: self.values[layer.source] for layer in layers}
        if not self._inputs:
            raise DataError("There are no calibration texts.", hint="Give at least a few texts with --data.")
        graph, senses = self._graph, text_senses(self._model)
        sources = {linear.weight: linear.source for linear in graph.linears()}
        wanted = sorted(set(sources.values()))
        encoded = Tokenizer(senses.tokenizer, senses.max_length).encode(senses.met(self._inputs))
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

    @cached_property
    def values(self) -> Mapping[str, Inputs]:
        """Of a model of images: what its layers take, and what convolutions hand on, by the value's name."""
        if not self._images:
            raise DataError("There are no calibration images.", hint="Give at least a few images with --images.")
        graph, senses = self._graph, image_senses(self._model)
        layers: tuple[Linear | Convolution, ...] = (*graph.linears(), *graph.convolutions())
        sources = [layer.source for layer in layers]
        entry = graph.inputs[0].name
        wanted = [name for name in dict.fromkeys((*sources, *between(graph))) if name != entry]
        session = _session(graph, wanted)
        gathered: dict[str, _Gathered] = {}
        for image in self._images:
            prepared_image = senses.prepare(image)
            outputs = session.run(wanted, {entry: prepared_image})
            for name, values in zip([entry, *wanted], [prepared_image, *outputs], strict=True):
                rows = _pixels(values)
                if name not in gathered:
                    every = max(1, len(self._images) * len(rows) // SAMPLED_ROWS)
                    gathered[name] = _Gathered(every=every, gram=values.ndim == 2)
                gathered[name].add(rows)
        return {name: item.finish() for name, item in gathered.items()}

    @cached_property
    def _graph(self) -> Graph:
        return lower(self._model)


class _Gathered:
    """Running sums over rows."""

    def __init__(self, *, every: int, gram: bool = True) -> None:
        self._every, self._count, self._wants_gram = every, 0, gram
        self._rows: list[Floats] = []
        self._low = self._high = self._total = self._gram = np.zeros(0, np.float32)

    def add(self, rows: Floats) -> None:
        if not self._count:
            width = rows.shape[1]
            self._low, self._high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
            side = width if self._wants_gram else 0
            self._total, self._gram = np.zeros(width, np.float64), np.zeros((side, side), np.float32)
        start = -self._count % self._every
        self._rows.append(rows[start :: self._every].copy())
        self._count += len(rows)
        np.minimum(self._low, rows.min(0), out=self._low)
        np.maximum(self._high, rows.max(0), out=self._high)
        self._total += rows.sum(0, dtype=np.float64)
        if self._wants_gram:
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


def _pixels(values: Array) -> Floats:
    """Rows [n, channels] of what is [batch, channels, height, width], or the rows of a matrix."""
    spread: Floats = values if values.ndim == 2 else np.moveaxis(values, 1, -1)
    return np.ascontiguousarray(spread.reshape(-1, spread.shape[-1]))


def _session(graph: Graph, wanted: Sequence[str]) -> Any:
    """The reference, with these tensors as its outputs."""
    proto = reference(graph)
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in wanted)
    return opened(proto)


def _runs(graph: Graph, encoded: Encoded, wanted: Sequence[str]) -> Iterator[tuple[Array, list[Floats]]]:
    """Run all texts in batches; yields the boolean token mask [batch, length] and the wanted tensors."""
    session = _session(graph, wanted)
    takes = {item.name for item in session.get_inputs()}
    for batch in batches(encoded.ids.lengths, TOKENS_PER_RUN):
        ids, mask = encoded.ids.take(batch).padded()
        types = encoded.types.take(batch).padded()[0]
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        yield (
            mask.astype(bool),
            session.run(list(wanted), {name: value for name, value in feeds.items() if name in takes}),
        )
