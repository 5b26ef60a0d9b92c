"""OpenAI's own client, against a real server."""

import base64
import json
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

import tightrope
from tightrope.bundle import Bundle
from tightrope.device.model import Embedder
from tightrope.device.serve.server import Server

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.engine
TEXTS = ["the cat sat", "a mat", "naïve café 🐈", ""]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator["openai.OpenAI"]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Iterator[Embedder]:
    with tightrope.open(bundle.path) as found:
        yield found


def vectors(answer) -> np.ndarray:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], np.float32)


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_vectors_are_the_models_own_to_the_last_bit(client, model, form):
    named = {} if form is None else {"encoding_format": form}
    answer = client.embeddings.create(model="tiny", input=TEXTS, **named)
    if form == "base64":
        rows = np.stack([np.frombuffer(base64.b64decode(item.embedding), "<f4") for item in answer.data])
    else:
        rows = vectors(answer)
    assert np.array_equal(rows, model.embed(TEXTS))
    tokens = len(model.encode(TEXTS).ids.values)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (tokens, tokens, "tiny")


def test_one_text_and_token_ids(client, model):
    assert np.array_equal(vectors(client.embeddings.create(model="tiny", input="the cat")), model.embed(["the cat"]))
    ids = model.encode(["the cat", "sat on a mat"]).ids
    rows = [ids.values[start:stop].tolist() for start, stop in zip(ids.offsets, ids.offsets[1:], strict=False)]
    assert np.array_equal(
        vectors(client.embeddings.create(model="tiny", input=rows)), model.embed(["the cat", "sat on a mat"])
    )
    assert np.array_equal(vectors(client.embeddings.create(model="tiny", input=rows[0])), model.embed(["the cat"]))


def test_fewer_dimensions_have_unit_length(client, model):
    rows = vectors(client.embeddings.create(model="tiny", input=TEXTS, dimensions=8))
    cut = model.embed(TEXTS)[:, :8]
    np.testing.assert_allclose(rows, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)


def test_a_long_answer_comes_whole(client, model):
    texts = [f"{'cat ' * (number % 5)} {number}" for number in range(1100)]
    assert np.array_equal(vectors(client.embeddings.create(model="tiny", input=texts)), model.embed(texts))


def test_models(client, bundle):
    (found,) = client.models.list().data
    assert (found.id, found.digest, client.models.retrieve("tiny").id) == ("tiny", bundle.digest, "tiny")
    assert client.models.retrieve(f"tiny@{found.version}").digest == bundle.digest
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("tiny@none")


def test_versions_by_name(many, models):
    with (
        openai.OpenAI(base_url=f"{many.url}/v1", api_key="none", max_retries=0) as client,
        tightrope.open(models / "tiny" / "1.bundle") as first,
        tightrope.open(models / "tiny" / "2.bundle") as second,
    ):
        assert {item.id for item in client.models.list().data} == {"tiny", "ranks", "labels"}
        for version, model in (("1", first), ("2", second)):
            raw = client.embeddings.with_raw_response.create(model=f"tiny@{version}", input=TEXTS)
            assert raw.headers["x-model-version"] == f"tiny@{version}"
            assert np.array_equal(vectors(raw.parse()), model.embed(TEXTS))
        with pytest.raises(openai.UnprocessableEntityError, match="pair"):
            client.embeddings.create(model="ranks", input="the cat")
        with pytest.raises(openai.UnprocessableEntityError, match="scores pairs"):
            client.embeddings.create(model="ranks", input=[[2, 5, 3]])


@pytest.mark.parametrize(
    ("given", "error", "code"),
    [
        ({"model": "other", "input": "x"}, "NotFoundError", "unknown_model"),
        ({"model": "../tiny", "input": "x"}, "NotFoundError", "unknown_model"),
        ({"model": "tiny@9", "input": "x"}, "NotFoundError", "unknown_model"),
        ({"input": []}, "UnprocessableEntityError", "invalid"),
        ({"input": [[]]}, "UnprocessableEntityError", "invalid"),
        ({"input": ["x", 1]}, "UnprocessableEntityError", "invalid"),
        ({"input": ["x", None]}, "UnprocessableEntityError", "invalid"),
        ({"input": {"x": 1}}, "UnprocessableEntityError", "invalid"),
        ({"input": "a\0b"}, "UnprocessableEntityError", "invalid"),
        ({"input": [[-1]]}, "UnprocessableEntityError", "invalid"),
        ({"input": [[2**40]]}, "UnprocessableEntityError", "invalid"),
        ({"input": [[2**80]]}, "UnprocessableEntityError", "invalid"),
        ({"input": [[59999]]}, "UnprocessableEntityError", "invalid"),
        ({"input": [[2] * 65]}, "UnprocessableEntityError", "invalid"),
        ({"input": ["x"] * 2049}, "APIStatusError", "too_large"),
        ({"input": "x", "dimensions": 0}, "UnprocessableEntityError", "invalid"),
        ({"input": "x", "dimensions": 33}, "UnprocessableEntityError", "invalid"),
        ({"input": "x", "dimensions": 2**70}, "UnprocessableEntityError", "invalid"),
        ({"input": "x", "encoding_format": "int8"}, "UnprocessableEntityError", "invalid"),
        ({"input": "x", "extra_body": {"surprise": 1}}, "UnprocessableEntityError", "invalid"),
    ],
    ids=str,
)
def test_bad_input_is_the_clients_fault_in_openais_envelope(client, given, error, code):
    with pytest.raises(getattr(openai, error)) as caught:
        client.embeddings.create(**({"model": "tiny"} | given))
    body = caught.value.body
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    assert (body["code"], body["type"], caught.value.status_code < 500) == (code, "invalid_request_error", True)


def test_the_document_describes_every_route_and_refers_to_nothing_that_is_missing(server):
    with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=10) as answer:
        document = json.load(answer)
    from tightrope.device.serve.http.app import ROUTES

    wanted = {(route.path, route.method.lower()) for route in ROUTES if route.method != "WEBSOCKET"}
    assert wanted == {(path, method) for path, methods in document["paths"].items() for method in methods}
    text, schemas = json.dumps(document), document["components"]["schemas"]
    refs = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert refs <= set(schemas)
    names = [item["operationId"] for methods in document["paths"].values() for item in methods.values()]
    assert len(names) == len(set(names))
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schemas[body["$ref"].rpartition("/")[2]]["properties"]) == {
        "input", "model", "encoding_format", "dimensions", "user",
    }  # fmt: skip
