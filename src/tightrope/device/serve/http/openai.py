"""Embeddings and models as OpenAI's clients ask for them.

`model` is a name, `NAME@VERSION` for one version, or left out where there is only one. Ids of tokens are taken as they
are: no prompt is put before them.
"""

import base64
from contextlib import suppress
from typing import Any, Literal

import msgspec
import numpy as np

from tightrope.device.model import Floats
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.catalogue import Catalogue, ModelState
from tightrope.device.serve.http import vectors
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import Request, Response, Route, json
from tightrope.manifest import MANIFEST


class Embeddings(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /v1/embeddings. `dimensions` cuts vectors and scales them to unit length; `user` is not looked at."""

    input: vectors.Given
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or the base64 of little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class Usage(msgspec.Struct):
    """Tokens that were read, special ones among them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    """The answer of /v1/embeddings."""

    data: list[Embedding]
    model: str
    usage: Usage
    object: Literal["list"] = "list"


class Model(msgspec.Struct):
    """A model: its current version, and that one's digest. `created` is when its bundle was written, in seconds."""

    id: str
    created: int
    version: str | None
    digest: str
    owned_by: str = "tightrope"
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct):
    """The answer of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"


async def embeddings(request: Request) -> Response:
    """Vectors of texts, or of token ids."""
    asked = await request.json(Embeddings)
    inputs = vectors.read(asked.input, "input")
    if isinstance(inputs, Encoded):
        await _check_embeds(request, asked.model)
    served = await vectors.ask(request, asked.model, inputs)
    rows = vectors.shortened(served.answer.rows, asked.dimensions)
    tail = msgspec.json.encode(
        {
            "model": asked.model or served.name,
            "usage": Usage(prompt_tokens=served.answer.tokens, total_tokens=served.answer.tokens),
        }
    )
    one = _base64 if asked.encoding_format == "base64" else _numbers
    return vectors.listed(b'{"object":"list","data":[', rows, one, b"]," + tail[1:], vectors.version_of(served))


async def models(request: Request) -> Response:
    """The models that are served."""
    catalogue = request.state.catalogue
    return json(ModelList(data=await request.thread(lambda: [_model(item) for item in catalogue.models()])))


async def model(request: Request) -> Response:
    """One model, or one version of it."""
    return json(await request.thread(_found, request.state.catalogue, request.params["model"]))


async def _check_embeds(request: Request, asked: str | None) -> None:
    """Texts are refused by a model that scores pairs; ids say nothing of themselves."""
    about = await request.thread(request.state.catalogue.about, vectors.named(asked)[0])
    if about.source is not None and about.source.content.task["name"] != "embedding":
        raise Failure("unsupported", f"{about.name} scores pairs of texts and has no embeddings.", param="model")


def _numbers(index: int, row: Floats) -> bytes:
    return msgspec.json.encode(Embedding(index=index, embedding=row.tolist()))


def _base64(index: int, row: Floats) -> bytes:
    text = base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode()
    return msgspec.json.encode(Embedding(index=index, embedding=text))


def _model(state: ModelState) -> Model:
    created = 0
    if state.source is not None:
        with suppress(OSError):  # somebody took the folder away; what is open goes on
            created = int((state.source.path / MANIFEST).stat().st_mtime)
    return Model(id=state.name, created=created, version=state.current, digest=state.digest)


def _found(catalogue: Catalogue, asked: str) -> Model:
    name, version = vectors.named(asked)
    state = catalogue.about(name)
    found = _model(state)
    if version is None:
        return found
    for item in state.versions:
        if item.version == version:
            return Model(id=asked, created=found.created, version=version, digest=item.digest)
    there = ", ".join(item.version for item in state.versions)
    raise Failure("unknown_model", f"There is no version {version!a:.60}. There is: {there}.", param="model")


ROUTES = (
    Route("POST", "/v1/embeddings", embeddings, api="openai"),
    Route("GET", "/v1/models", models, api="openai"),
    Route("GET", "/v1/models/{model}", model, api="openai"),
)
MESSAGES: dict[Any, tuple[Any, Any]] = {
    embeddings: (Embeddings, EmbeddingList),
    models: (None, ModelList),
    model: (None, Model),
}
"""What a handler takes and gives, for the document that describes the API."""
