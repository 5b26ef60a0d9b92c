"""The routes of Hugging Face's text-embeddings-inference, as its clients and `huggingface_hub` use them.

These routes have no field for a model: where several are served, `?model=NAME` or `?model=NAME@VERSION` says which one.
Engines here give one vector a text, so vectors of single tokens (`/embed_all`) are refused.
"""

from typing import Any, Literal

import msgspec

from tightrope.device.model import Floats, Scorer
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.http import body, tei_scores, vectors
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import Request, Response, Route, State, json
from tightrope.device.serve.http.tei_options import Options, about_model, cosines, served
from tightrope.device.serve.http.vocabulary import pieces


class Embed(Options, kw_only=True):
    """The body of /embed. Texts that are too long are cut unless `truncate` is false."""

    inputs: vectors.Given
    normalize: bool | None = None
    dimensions: int | None = None
    encoding_format: Literal["float"] | None = None


class Sentences(msgspec.Struct, forbid_unknown_fields=True):
    """A sentence, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class Similarity(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /similarity."""

    inputs: Sentences
    parameters: Options | None = None


class Tokenize(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Token(msgspec.Struct):
    """A token. Where it stands in the text is not known here."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class Info(msgspec.Struct):
    """The answer of /info."""

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    prompts: list[str]
    version: str
    sha: str | None = None
    docker_label: str | None = None


# Vectors --------------------------------------------------------------------------------------------------


async def embed(request: Request) -> Response:
    """A vector for each text."""
    asked = await request.json(Embed)
    inputs = vectors.read(asked.inputs, "inputs")
    if isinstance(inputs, Encoded):  # texts are refused by a model that scores pairs; ids say nothing of themselves
        await about_model(request, "embedding")
    normalize = asked.normalize is not False
    found = await served(request, inputs, asked, prompt=asked.prompt_name, normalize=normalize)
    rows = vectors.shortened(found.answer.rows, asked.dimensions, normalize=normalize)
    return vectors.listed(b"[", rows, _numbers, b"]", vectors.version_of(found))


async def root(request: Request) -> Response:
    """What the model does: /embed, or /predict for one that scores. `huggingface_hub` asks here."""
    if request.state.keys is not None and request.key is None:  # the page at this path is shown without one
        raise Failure("unauthorized", "A key is needed: 'Authorization: Bearer …'.")
    about = await about_model(request)
    assert about.source is not None
    handler = embed if about.source.content.task["name"] == "embedding" else tei_scores.predict
    return await handler(request)


async def embed_all(request: Request) -> Response:
    """A vector for each token, which engines here do not give: refused."""
    raise Failure("unsupported", "Models here give one vector a text, not one a token. Use /embed.")


async def similarity(request: Request) -> Response:
    """The cosine of one sentence's vector and those of others."""
    asked = await request.json(Similarity)
    await about_model(request, "embedding")
    options = asked.parameters or Options()
    texts = [asked.inputs.source_sentence, *asked.inputs.sentences]
    if len(texts) == 1:
        raise Failure("malformed", "There are no sentences to compare with.", param="sentences")
    body.check_texts(texts, "inputs")
    found = await served(request, texts, options, prompt=options.prompt_name)
    return json(cosines(found.answer.rows).tolist())


def _numbers(_: int, row: Floats) -> bytes:
    return msgspec.json.encode(row.tolist())


# About the model ------------------------------------------------------------------------------------------


async def tokenize(request: Request) -> Response:
    """The tokens of each text."""
    asked = await request.json(Tokenize)
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    body.check_texts(texts, "inputs")
    if len(texts) > request.state.limits.inputs:
        raise Failure("too_large", f"{len(texts)} texts are more than {request.state.limits.inputs} in one request.")
    name, _ = vectors.named(request.query.get("model"))
    return json(await request.thread(_tokenized, request.state, name, texts, asked))


def _tokenized(state: State, name: str | None, texts: list[str], asked: Tokenize) -> list[list[Token]]:
    with state.catalogue.opened(name) as model:
        if isinstance(model, Scorer):
            if asked.prompt_name:
                raise Failure("invalid", "The model scores pairs and has no prompts.", param="prompt_name")
            ids = model.tokenizer.encode(texts, types=False).ids
        else:
            ids = model.encode(texts, prompt=asked.prompt_name).ids
        around = model.tokenizer.encode([""], types=False).ids.values.tolist()
        source = model.bundle
    rows = [ids.values[ids.offsets[row] : ids.offsets[row + 1]].tolist() for row in range(len(texts))]
    if not asked.add_special_tokens:
        rows = [_inside(row, around) for row in rows]
    path = source.file(source.content.senses["tokenizer"])
    names = pieces(path, {token for row in rows for token in row}, state.ledger)
    return [[Token(token, *names.get(token, ("", False))) for token in row] for row in rows]


def _inside(row: list[int], around: list[int]) -> list[int]:
    """A text's tokens without those that are put around every text, which are all that an empty one has.

    >>> _inside([101, 7, 8, 102], [101, 102]), _inside([7, 1], [1])
    ([7, 8], [7])
    """
    for before in range(len(around), -1, -1):
        stop = len(row) - (len(around) - before)
        if before <= stop and row[:before] == around[:before] and row[stop:] == around[before:]:
            return row[before:stop]
    return row


async def info(request: Request) -> Response:
    """What the model is, and how much it takes at once."""
    about = await about_model(request)
    assert about.source is not None
    task, senses, limits = about.source.content.task, about.source.content.senses, request.state.limits
    if task["name"] == "embedding":
        kind: dict[str, dict[str, Any]] = {"embedding": {"pooling": task.get("pooling", "")}}
    else:
        labels = {str(place): f"LABEL_{place}" for place in range(task["width"])}
        names = {"id2label": labels, "label2id": {label: int(place) for place, label in labels.items()}}
        kind = {"reranker" if task["width"] == 1 else "classifier": names}
    return json(
        Info(
            model_id=about.name,
            model_sha=about.digest,
            model_dtype=about.source.content.models[0].artefacts[0].precision,
            model_type=kind,
            max_concurrent_requests=limits.queue_requests,
            max_input_length=senses["max_length"],
            max_batch_tokens=limits.batch_tokens,
            max_batch_requests=None,
            max_client_batch_size=limits.inputs,
            auto_truncate=True,
            tokenization_workers=1,
            prompts=list(senses.get("prompts", ())),
            version=request.state.version,
        )
    )


ROUTES = (
    Route("POST", "/", root, api="tei"),
    Route("POST", "/embed", embed, api="tei"),
    Route("POST", "/embed_all", embed_all, api="tei"),
    Route("POST", "/similarity", similarity, api="tei"),
    *tei_scores.ROUTES,
    Route("POST", "/tokenize", tokenize, api="tei"),
    Route("GET", "/info", info, api="tei"),
)
MESSAGES: dict[Any, tuple[Any, Any]] = {
    embed: (Embed, list[list[float]]),
    embed_all: (Embed, None),
    similarity: (Similarity, list[float]),
    **tei_scores.MESSAGES,
    tokenize: (Tokenize, list[list[Token]]),
    info: (None, Info),
}
