"""Answers to questions that were answered before, and "I don't know" to the rest.

The best entry answers only if it is similar enough. How similar that is depends on model and entries, so the threshold
is not a number of ours: it is calibrated on questions that the index cannot answer, by a conformal quantile, which
bounds how often such a question gets an answer whatever the scores are distributed like.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.device.apps.semantic_search import Model
from tightrope.device.index.codes import Floats
from tightrope.device.index.documents import Hit
from tightrope.device.index.model import for_questions
from tightrope.device.index.opened import Index, Where
from tightrope.errors import DataError

THRESHOLD = "threshold"
"""The setting of an index that holds its threshold."""
WRONG = 0.05
_SAMPLE = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found. `text` is `None` where nothing is similar enough: "I don't know"."""

    text: str | None
    score: float
    """The cosine of the question with the best entry's."""
    threshold: float
    hits: tuple[Hit, ...]
    """The entries that are nearest, whether or not they answer."""


def ask(index: Index, model: Model, question: str, *, k: int = 3, where: Where = None) -> Answer:
    """The answer of the entry whose question is most like this one, if it is similar enough.

    Raises `DataError` if the index has no threshold: see `calibrate`.
    """
    return answered(index, model.embed([question], prompt=for_questions(model))[0], k=k, where=where)


def answered(index: Index, vector: Floats, *, k: int = 3, where: Where = None) -> Answer:
    """The same for a question whose vector is known."""
    threshold = index.about.settings.get(THRESHOLD)
    if not isinstance(threshold, int | float):
        raise DataError(
            f"{index.path.name} has no threshold for answers.", hint="Calibrate it: tightrope index calibrate"
        )
    hits = index.search(vector, k, where)
    score = hits[0].score if hits else -1.0
    text = (hits[0].answer or hits[0].text) if score >= threshold else None
    return Answer(text=text, score=score, threshold=float(threshold), hits=tuple(hits))


def calibrate(index: Index, unanswerable: Floats | None = None, *, wrong: float = WRONG) -> float:
    """Choose the threshold, and write it into the index; returns it.

    `unanswerable` [n, width] are vectors of questions that no entry answers. At most a share `wrong` of such questions
    will be answered, in the mean over calibrations (Vovk et al.: the ceil((n + 1)(1 - wrong))-th smallest score).
    Without them each entry, of 400 at most, is asked of the others: entries that are no duplicates have their answer
    nowhere else. That is on the safe side, as entries of one collection are more alike than strangers' questions.
    Raises `DataError` for too few questions.
    """
    scores = _left_out(index) if unanswerable is None else _best(index, unanswerable)
    threshold = conformal(scores, wrong)
    index.note(**{THRESHOLD: threshold, "threshold_of": len(scores), "threshold_wrong": wrong})
    return threshold


def conformal(scores: Sequence[float], wrong: float) -> float:
    """The least threshold that at most a share `wrong` of scores like these reach.

    >>> round(conformal([0.1, 0.2, 0.3, 0.4], 0.25), 3)
    0.4
    """
    place = math.ceil((len(scores) + 1) * (1 - wrong)) if 0 < wrong < 1 else len(scores) + 1
    if place > len(scores):
        raise DataError(
            f"{len(scores)} questions cannot show a share of {wrong} wrong answers.",
            hint=f"Give at least {math.ceil(1 / wrong) if 0 < wrong < 1 else 20} questions that have no answer.",
        )
    return float(np.nextafter(np.sort(scores)[place - 1], 2))


def _best(index: Index, vectors: Floats) -> list[float]:
    return [hits[0].score for vector in vectors if (hits := index.search(vector, 1))]


def _left_out(index: Index) -> list[float]:
    """The score of the nearest other entry, for a sample of entries."""
    keys = [key for some in index.all_keys() for key in some]
    sample = keys[:: max(1, len(keys) // _SAMPLE)][:_SAMPLE]
    scores = []
    for key, rows in index.vectors(sample).items():
        others = [hit.score for hit in index.search(rows[0], min(len(rows) + 1, 50)) if hit.key != key]
        scores += others[:1]
    return scores
