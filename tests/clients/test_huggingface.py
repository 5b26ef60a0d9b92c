"""`huggingface_hub`'s client against a real server: the routes of text-embeddings-inference."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

import tightrope
from tightrope.bundle import Bundle
from tightrope.device.model import Embedder
from tightrope.device.serve import keys

hub = pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.engine
TEXTS = ["the cat sat", "naïve café 🐈", ""]
LONG = "cat " * 100


@pytest.fixture(scope="module")
def client() -> "hub.InferenceClient":
    return hub.InferenceClient(token="none")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Iterator[Embedder]:
    with tightrope.open(bundle.path) as found:
        yield found


def ask(server, path, value=None):
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"{server.url}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def refused(server, path, value):
    status, answer = ask(server, path, value)
    assert 400 <= status < 500
    assert set(answer) == {"error", "error_type", "code"}
    return status, answer["code"]


def test_feature_extraction_gives_the_models_vectors_to_the_last_bit(client, server, model):
    url = f"{server.url}/embed"
    assert np.array_equal(client.feature_extraction(TEXTS, model=url), model.embed(TEXTS))
    assert np.array_equal(client.feature_extraction("the cat", model=url), model.embed(["the cat"]))
    plain = client.feature_extraction(TEXTS, model=url, normalize=False, truncate=True, truncation_direction="right")
    assert np.array_equal(plain, model.embed(TEXTS, normalize=False))
    short = client.feature_extraction(TEXTS, model=url, dimensions=8, encoding_format="float")
    cut = model.embed(TEXTS)[:, :8]
    np.testing.assert_allclose(short, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)


def test_the_servers_own_url_is_enough(client, server, model, many):
    assert np.array_equal(client.feature_extraction(TEXTS, model=server.url), model.embed(TEXTS))
    pair = ["the cat", "sat"]
    by_root, by_path = (
        client.text_classification(pair, model=f"{many.url}{path}?model=labels") for path in ("/", "/predict")
    )
    assert by_root == by_path
    assert refused(server, "/", {"inputs": []}) == (422, "invalid")


def test_the_root_needs_a_key_where_there_are_keys(bundle, tmp_path):
    path = tmp_path / "keys"
    secret = keys.new(path, "somebody")
    with tightrope.serve(bundle.path, threads=1, key_file=path) as guarded:
        assert refused(guarded, "/", {"inputs": "x"})[0] == 401
        assert refused(guarded, "/embed", {"inputs": "x"})[0] == 401
        found = hub.InferenceClient(token=secret).feature_extraction("the cat", model=guarded.url)
        assert np.shape(found) == (1, 32)


def test_texts_that_are_too_long_are_cut_unless_that_is_forbidden(client, server, model):
    url = f"{server.url}/embed"
    assert np.array_equal(client.feature_extraction(LONG, model=url), model.embed([LONG]))
    with pytest.raises(hub.errors.HfHubHTTPError) as caught:
        client.feature_extraction(LONG, model=url, truncate=False)
    assert caught.value.response.status_code == 413
    assert refused(server, "/embed", {"inputs": "x", "truncation_direction": "Left"}) == (422, "unsupported")


def test_sentence_similarity_is_the_cosine(client, server, model):
    found = client.sentence_similarity(TEXTS[0], TEXTS[1:], model=f"{server.url}/similarity")
    rows = model.embed(TEXTS)
    np.testing.assert_allclose(found, rows[1:] @ rows[0], atol=1e-6)


def test_text_classification_of_a_pair(client, many, models):
    pair = ["the cat", "sat"]
    with tightrope.open(models / "labels" / "1.bundle") as scorer:
        logits = np.ravel(scorer.score([pair])).astype(np.float64)
    likely = np.exp(logits) / np.exp(logits).sum()
    best = client.text_classification(pair, model=f"{many.url}/predict?model=labels", top_k=2)
    assert best.label == f"LABEL_{likely.argmax()}"
    np.testing.assert_allclose(best.score, likely.max(), rtol=1e-5)
    status, raw = ask(many, "/predict?model=labels", {"inputs": [pair, pair], "raw_scores": True})
    assert status == 200
    assert [item["score"] for item in raw[0]] == sorted(np.float32(logits).tolist(), reverse=True)
    assert raw[0] == raw[1]


def test_texts_are_ranked_by_scores_or_by_cosines(many, models):
    texts = ["sat", "a mat", "dogs bark"]
    asked = {"query": "the cat", "texts": texts, "return_text": True}
    with tightrope.open(models / "ranks" / "1.bundle") as scorer, tightrope.open(models / "tiny" / "2.bundle") as model:
        rows = model.embed(["the cat", *texts])
        expected = {"ranks": scorer.score([("the cat", text) for text in texts]), "tiny@2": rows[1:] @ rows[0]}
    for name, scores in expected.items():
        status, ranks = ask(many, f"/rerank?model={name}", asked)
        assert status == 200
        assert [item["index"] for item in ranks] == np.argsort(-scores, kind="stable").tolist()
        np.testing.assert_allclose([item["score"] for item in ranks], sorted(scores, reverse=True), atol=1e-6)
        assert [item["text"] for item in ranks] == [texts[item["index"]] for item in ranks]
    assert refused(many, "/rerank?model=labels", asked) == (422, "unsupported")
    assert refused(many, "/rerank?model=ranks", asked | {"raw_scores": True}) == (422, "unsupported")


def test_tokens_and_facts(server, many, model, bundle):
    status, (tokens, empty) = ask(server, "/tokenize", {"inputs": ["the cat x", ""]})
    assert status == 200
    assert [item["id"] for item in tokens] == model.encode(["the cat x"]).ids.values.tolist()
    assert [item["text"] for item in tokens] == ["[CLS]", "the", "cat", "x", "[SEP]"]
    assert len(empty) == 2
    status, (inner, none) = ask(server, "/tokenize", {"inputs": ["the cat x", ""], "add_special_tokens": False})
    assert ([item["text"] for item in inner], none) == (["the", "cat", "x"], [])
    status, facts = ask(server, "/info")
    assert (facts["model_id"], facts["model_sha"], facts["max_input_length"]) == ("tiny", bundle.digest, 64)
    assert facts["model_type"] == {"embedding": {"pooling": "mean"}}
    assert list(ask(many, "/info?model=ranks")[1]["model_type"]) == ["reranker"]
    assert list(ask(many, "/info?model=labels")[1]["model_type"]) == ["classifier"]


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("/embed", {"inputs": []}, "invalid"),
        ("/embed", {"inputs": ["x", 3]}, "invalid"),
        ("/embed", {"inputs": [True]}, "invalid"),
        ("/embed", {"inputs": ["a\0b"]}, "invalid"),
        ("/embed", {"inputs": "x", "surprise": 1}, "invalid"),
        ("/embed", {"inputs": "x", "prompt_name": "none"}, "invalid"),
        ("/embed", {"inputs": [[2, 3]], "prompt_name": "none"}, "invalid"),
        ("/embed", {"inputs": "x", "encoding_format": "base64"}, "invalid"),
        ("/embed", {"inputs": "x", "dimensions": 99}, "invalid"),
        ("/embed", {"inputs": ["x"] * 2049}, "too_large"),
        ("/embed?model=none", {"inputs": "x"}, "unknown_model"),
        ("/embed_all", {"inputs": "x"}, "unsupported"),
        ("/similarity", {"inputs": {"source_sentence": "x", "sentences": []}}, "malformed"),
        ("/similarity", {"inputs": "x"}, "invalid"),
        ("/rerank", {"query": "x", "texts": []}, "malformed"),
        ("/rerank", {"query": "x", "texts": ["a\0"]}, "invalid"),
        ("/predict", {"inputs": ["x", "y"]}, "unsupported"),
        ("/predict", {"inputs": "x"}, "invalid"),
        ("/predict", {"inputs": []}, "invalid"),
        ("/predict", {"inputs": [["x", "y"], "z"]}, "invalid"),
        ("/predict", {"inputs": [["x", "y", "z"]]}, "invalid"),
        ("/tokenize", {"inputs": [3]}, "invalid"),
        ("/tokenize", {"inputs": ["x"] * 2049}, "too_large"),
        ("/tokenize", {"inputs": "x", "prompt_name": "none"}, "invalid"),
    ],
    ids=str,
)
def test_bad_input_is_the_clients_fault_in_teis_envelope(server, path, value, code):
    assert refused(server, path, value)[1] == code


def test_without_a_name_one_of_many_is_not_guessed(many):
    assert refused(many, "/embed", {"inputs": "x"}) == (404, "unknown_model")
    assert refused(many, "/embed?model=ranks", {"inputs": "x"}) == (422, "invalid")
    assert refused(many, "/embed?model=ranks", {"inputs": [[2, 5, 3]]}) == (422, "unsupported")
