"""Scores as text-embeddings-inference gives them: texts ranked, pairs classified.

`/rerank` works with an embedder too: texts are ranked by the cosine of their vectors and the query's.
"""

from typing import Any, Literal

import msgspec
import numpy as np

from tightrope.device.model import Floats
from tightrope.device.serve.http import body
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import Request, Response, Route, json
from tightrope.device.serve.http.tei_options import Side, about_model, cosines, served


class Rerank(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /rerank."""

    query: str
    texts: list[str]
    truncate: bool | None = None
    truncation_direction: Side | None = None
    raw_scores: bool = False
    return_text: bool = False


class Classifying(msgspec.Struct, forbid_unknown_fields=True):
    """How `huggingface_hub` asks for classes."""

    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None
    top_k: int | None = None


class Predict(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /predict: a pair of texts, or a list of pairs."""

    inputs: str | list[str | list[str]]
    truncate: bool | None = None
    truncation_direction: Side | None = None
    raw_scores: bool = False
    parameters: Classifying | None = None


class Rank(msgspec.Struct, omit_defaults=True):
    """A text's place in the list that came, and its score."""

    index: int
    score: float
    text: str | None = None


class Prediction(msgspec.Struct):
    """A label and its score."""

    label: str
    score: float


async def rerank(request: Request) -> Response:
    """Texts by how well they answer a query, the best first: a cross-encoder's scores, or an embedder's cosines."""
    asked = await request.json(Rerank)
    if not asked.texts:
        raise Failure("malformed", "There are no texts to rank.", param="texts")
    body.check_texts([asked.query, *asked.texts], "texts")
    about = await about_model(request)
    if about.source is None or about.source.content.task["name"] == "embedding":
        scores = cosines((await served(request, [asked.query, *asked.texts], asked)).answer.rows)
    else:
        task = about.source.content.task
        if task["width"] != 1:
            raise Failure("unsupported", f"{about.name} has {task['width']} labels and ranks nothing. Use /predict.")
        found = await served(request, [(asked.query, text) for text in asked.texts], asked)
        scores = _scores(found.answer.rows, task, "none" if asked.raw_scores else None)[:, 0]
    order = np.argsort(-scores, kind="stable").tolist()
    ranks = [Rank(place, float(scores[place]), asked.texts[place] if asked.return_text else None) for place in order]
    return json(ranks)


async def predict(request: Request) -> Response:
    """Labels and their scores for pairs of texts, the likeliest first."""
    asked = await request.json(Predict)
    alone, pairs = _pairs(asked.inputs)
    about = await about_model(request, "scoring")
    assert about.source is not None
    wanted = asked.parameters or Classifying()
    if wanted.top_k is not None and wanted.top_k < 1:
        raise Failure("invalid", f"The {wanted.top_k} likeliest cannot be given. Ask for 1 or more.", param="top_k")
    found = await served(request, pairs, asked)
    function = "none" if asked.raw_scores else wanted.function_to_apply
    rows = _scores(found.answer.rows, about.source.content.task, function)
    labelled = [_predicted(row, wanted.top_k) for row in rows]
    return json(labelled[0] if alone else labelled)


def _pairs(inputs: str | list[str | list[str]]) -> tuple[bool, list[tuple[str, str]]]:
    """Whether one pair came alone, and the pairs. Raises `Failure` (invalid) for anything but pairs."""
    alone = isinstance(inputs, list) and all(isinstance(item, str) for item in inputs)
    given = [inputs] if alone or isinstance(inputs, str) else inputs
    pairs = []
    for item in given:
        if not isinstance(item, list) or len(item) != 2:
            raise Failure("invalid", "Models here score pairs: [text, text], or a list of those.", param="inputs")
        first, second = item
        assert isinstance(first, str) and isinstance(second, str)
        pairs.append((first, second))
    body.check_texts([text for pair in pairs for text in pair], "inputs")
    return alone, pairs


def _scores(rows: Floats, task: Any, function: str | None) -> Floats:
    """Scores [n, labels] through a function: a sigmoid for one, softmax for several, unless told."""
    done = task.get("activation", "identity")
    wanted = function or ("sigmoid" if rows.shape[1] == 1 else "softmax")
    if done != "identity":
        if wanted != done:
            raise Failure("unsupported", f"The model gives its scores through {done}; {wanted} cannot be had.")
        return rows
    if wanted == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * rows)), np.float32)
    if wanted == "softmax":
        powers = np.exp(rows - rows.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)
    return rows


def _predicted(row: Floats, most: int | None) -> list[Prediction]:
    order = np.argsort(-row, kind="stable")[:most].tolist()
    return [Prediction(label=f"LABEL_{place}", score=float(row[place])) for place in order]


ROUTES = (
    Route("POST", "/rerank", rerank, api="tei"),
    Route("POST", "/predict", predict, api="tei"),
)
MESSAGES: dict[Any, tuple[Any, Any]] = {
    rerank: (Rerank, list[Rank]),
    predict: (Predict, list[Prediction | list[Prediction]]),
}
