"""A probe: how far the model's answers move when some of its weights are replaced.

The weights of the linear layers are inputs of one ONNX Runtime session, so trying a weight costs a run and no session.
A few dozen short texts suffice to rank layers: what differs between layers is far larger than between texts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tightrope.device.senses.text import Tokenizer, batches
from tightrope.errors import DataError
from tightrope.workshop.model import Linear, Model, TextSenses, text_senses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Floats, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.reference import opened, reference

TEXTS = 24
TOKENS = 32
TOKENS_PER_RUN = 256


class Probe:
    """One model, a few of the observer's texts, cut at 32 tokens behind the prompt, and the answers as they are now."""

    def __init__(self, model: Model, linears: Sequence[Linear], observer: Observer) -> None:
        # In float32 all, whatever they are stored as: the session's inputs have one type for every width tried.
        self._now = {item.weight: values(model.weights[item.weight]) for item in linears}
        graph = lower(model.rewrite(weights=self._now))
        layouts = {item.weight: item.out_axis for item in graph.linears()}
        self._turned = {item.weight: layouts[item.weight] != item.out_axis for item in linears}
        self._session = _session(graph, self._now)
        self._feeds = _feeds(model, observer, {item.name for item in self._session.get_inputs()})
        self._as_one_vector = model.task.name == "scoring"
        self._current = {name: self._laid_out(name, weight) for name, weight in self._now.items()}
        self._answers = self._run({})

    def loss(self, weights: Mapping[str, Floats]) -> float:
        """1 - mean cosine of the answers with these weights (as the model stores them) in place of its own.

        The scores of a cross-encoder are one vector over all texts, less its mean: 1 - their correlation.
        """
        answers = self._run({name: self._laid_out(name, weight) for name, weight in weights.items()})
        products = (answers * self._answers).sum(-1)
        lengths = np.linalg.norm(answers, axis=-1) * np.linalg.norm(self._answers, axis=-1)
        return float(1 - (products / np.maximum(lengths, 1e-12)).mean())

    def _laid_out(self, name: str, weight: Floats) -> Floats:
        return np.ascontiguousarray(weight.T if self._turned[name] else weight)

    def _run(self, changed: Mapping[str, Floats]) -> Array:
        feeds = {**self._current, **changed}
        answers: Array = np.concatenate([self._session.run(None, {**feeds, **texts})[0] for texts in self._feeds])
        answers = answers.astype(np.float64)  # a loss of 1e-6 is told apart from rounding
        if self._as_one_vector:
            answers = (answers - answers.mean(0)).T
        return answers


def _session(graph: Any, names: Mapping[str, Floats]) -> Any:
    """The reference with the named weights as inputs instead of initialisers."""
    proto = reference(graph)
    kept = [item for item in proto.graph.initializer if item.name not in names]
    given = [item for item in proto.graph.initializer if item.name in names]
    proto.graph.input.extend(helper.make_tensor_value_info(item.name, TensorProto.FLOAT, item.dims) for item in given)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return opened(proto, threads=1)


def _feeds(model: Model, observer: Observer, takes: set[str]) -> list[dict[str, Array]]:
    """The probe's texts, evenly spread over the observer's, in batches of similar length."""
    senses, samples = text_senses(model), observer.pairs or observer.texts
    if not samples:
        raise DataError("There are no calibration texts.", hint="Give at least a few texts with --data.")
    every = max(1, len(samples) // TEXTS)
    chosen = samples[::every][:TEXTS]
    longest = min(TOKENS + _prompt_tokens(senses), senses.max_length)
    encoded = Tokenizer(senses.tokenizer, longest).encode(senses.met(chosen))
    feeds = []
    for batch in batches(encoded.ids.lengths, TOKENS_PER_RUN):
        ids, mask = encoded.ids.take(batch).padded()
        named = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": encoded.types.take(batch).padded()[0],
        }
        feeds.append({name: value for name, value in named.items() if name in takes})
    return feeds


def _prompt_tokens(senses: TextSenses) -> int:
    """How many tokens the default prompt takes: with nothing behind a long one, all texts would be the same."""
    prompted, bare = (
        Tokenizer(senses.tokenizer, senses.max_length).encode(texts).ids for texts in (senses.met([""]), [""])
    )
    return len(prompted.values) - len(bare.values)
