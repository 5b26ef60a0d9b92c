"""A bundle that answers on a bench: in a process of its own, here or wherever the bench's command leads."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.run import Place, Plan
from tightrope.device.model import Floats
from tightrope.device.senses.text import Tokenizer
from tightrope.samples import TextPair

INPUTS_PER_REQUEST = 256
LEAST_LIMIT_S = 120.0
"""So many answers at once may take longer than the plan's single measurement."""


def open_on_bench(made: Bundle, place: Place, plan: Plan) -> "BenchEmbedder | BenchScorer":
    """Open a bundle on a bench for answering. Raises `BenchError` if the bench fails, or the worker's own error."""
    return (BenchScorer if made.content.task["name"] == "scoring" else BenchEmbedder)(made, place, plan)


class _OnBench:
    """A bench with one open bundle. A context manager."""

    def __init__(self, made: Bundle, place: Place, plan: Plan) -> None:
        senses = made.content.senses
        self._prompts: dict[str, str] = dict(senses["prompts"])
        self._tokenizer = Tokenizer(made.file(senses["tokenizer"]), int(senses["max_length"]))
        self._bench = Bench(place.command, limit_s=max(plan.limit_s, LEAST_LIMIT_S))
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

    def _answers(self, inputs: Sequence[Any]) -> Floats:
        self.truncated += self._tokenizer.encode(inputs).truncated
        starts = range(0, len(inputs), INPUTS_PER_REQUEST)
        return np.concatenate([self._bench.answers(inputs[start : start + INPUTS_PER_REQUEST])[0] for start in starts])


class BenchEmbedder(_OnBench):
    """Texts to vectors, on a bench."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The names of the model's prompts."""
        return tuple(self._prompts)

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Floats:
        """Vectors of the texts, float32 [n, width], of unit length; the model's default prompt if none is named."""
        before = self._prompts[prompt] if prompt else ""
        return self._answers([before + text for text in texts])


class BenchScorer(_OnBench):
    """Pairs of texts to scores, on a bench."""

    def score(self, pairs: Sequence[TextPair]) -> Floats:
        """Scores of the pairs, float32 [n], or [n, labels]."""
        rows = self._answers(list(pairs))
        return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
