"""A bundle that answers on a bench: in a process of its own, here or wherever the bench's command leads."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.run import Place, Plan
from tightrope.device.model import Floats
from tightrope.device.senses.text import Tokenizer
from tightrope.samples import TextPair

INPUTS_PER_REQUEST = 256
CHARACTERS_PER_REQUEST = 1_000_000
"""A character may take six bytes of a message, and a message is limited."""

LIMIT_S = 120.0
"""So many answers at once may take longer than the plan's single measurement."""


def open_on_bench(
    made: Bundle, place: Place, plan: Plan, limit_s: float = LIMIT_S
) -> "BenchEmbedder | BenchScorer | BenchClassifier":
    """Open a bundle on a bench for answering; `limit_s` is how long one request may take.

    Raises `BenchError` if the bench fails, or the worker's own error.
    """
    if made.content.task["name"] == "classification":
        return BenchClassifier(made, place, plan, limit_s)
    return (BenchScorer if made.content.task["name"] == "scoring" else BenchEmbedder)(made, place, plan, limit_s)


class _OnBench:
    """A bench with one open bundle. A context manager."""

    def __init__(self, made: Bundle, place: Place, plan: Plan, limit_s: float) -> None:
        senses = made.content.senses
        self._prompts: dict[str, str] = dict(senses.get("prompts", {}))
        reads = senses["kind"] == "text"
        self._tokenizer = Tokenizer(made.file(senses["tokenizer"]), int(senses["max_length"])) if reads else None
        self._bench = Bench(place.command, limit_s=limit_s)
        self.truncated = 0
        """How many texts so far were longer than the model's limit, and were cut."""
        try:
            wanted = {"path": self._bench.bring(made), "threads": plan.threads, "cores": None}
            self._bench.request("open", wanted)
        except BaseException:
            self._bench.close(gently=False)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bench.close()

    def executed(self, example: Any) -> tuple[dict[str, float] | None, dict[str, str]]:
        """The share of multiply-adds by precision for one input, and the precision of each layer.

        As the engine tells them: `None` and nothing if it cannot.
        """
        answer = self._bench.request("executed", {"inputs": [example]})[0]
        share, layers = answer.get("share"), answer.get("layers") or {}
        named = {str(layer): str(precision) for layer, precision in layers.items()}
        return None if share is None else {str(name): float(value) for name, value in share.items()}, named

    def _answers(self, inputs: Sequence[Any], prompt: str | None = None) -> Floats:
        if self._tokenizer is not None:
            self.truncated += self._tokenizer.encode(inputs).truncated
        return np.concatenate([self._bench.answers(part, prompt)[0] for part in _parts(inputs)])


def _parts(inputs: Sequence[Any]) -> Iterator[list[Any]]:
    """The inputs cut into requests of a bounded size."""
    part: list[Any] = []
    room = CHARACTERS_PER_REQUEST
    for item in inputs:
        size = len(item) if isinstance(item, str | bytes) else sum(map(len, item))
        if part and (len(part) == INPUTS_PER_REQUEST or size > room):
            yield part
            part, room = [], CHARACTERS_PER_REQUEST
        part.append(item)
        room -= size
    if part:
        yield part


class BenchEmbedder(_OnBench):
    """Texts to vectors, on a bench."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The names of the model's prompts."""
        return tuple(self._prompts)

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Floats:
        """Vectors of the texts, float32 [n, width], of unit length; the model's default prompt if none is named."""
        return self._answers(texts, prompt)


class BenchScorer(_OnBench):
    """Pairs of texts to scores, on a bench."""

    def score(self, pairs: Sequence[TextPair]) -> Floats:
        """Scores of the pairs, float32 [n], or [n, labels]."""
        rows = self._answers(list(pairs))
        return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows


class BenchClassifier(_OnBench):
    """Images to logits, on a bench."""

    def logits(self, images: Sequence[bytes]) -> Floats:
        """Logits of the images, float32 [n, classes]."""
        return self._answers(images)
