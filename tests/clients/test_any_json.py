"""Bodies that no client would send: whatever JSON comes, it is answered or refused, and never the server's mistake."""

import http.client
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.tensors import unpacked
from tightrope.device.serve.server import Server

pytestmark = pytest.mark.engine
GOOD = {
    "/v1/embeddings": {"input": ["x"], "model": "tiny", "encoding_format": "base64", "dimensions": 4, "user": "me"},
    "/": {"inputs": "x"},
    "/embed": {"inputs": "x", "normalize": True, "truncate": False, "prompt_name": "", "dimensions": 8},
    "/embed_all": {"inputs": "x"},
    "/similarity": {"inputs": {"source_sentence": "x", "sentences": ["y"]}, "parameters": {"truncate": True}},
    "/rerank": {"query": "x", "texts": ["y"], "truncate": True, "raw_scores": False, "return_text": True},
    "/predict": {"inputs": ["x", "y"], "raw_scores": True, "parameters": {"top_k": 1, "function_to_apply": "none"}},
    "/tokenize": {"inputs": ["x"], "add_special_tokens": False, "prompt_name": ""},
    "/v2/models/tiny/infer": {
        "id": "1",
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"], "parameters": {}}],
        "outputs": [{"name": "embedding", "parameters": {"binary_data": False}}],
        "parameters": {"normalize": True, "timeout": 1e7},
    },
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
CALM = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    found = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    yield found
    found.close()


def places(value, path=()):
    """Where something could be put in place of what is there."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(value, path, other):
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], other)
    return copy


def status(connection, path, body, headers=None):
    connection.request("POST", path, body, {"Content-Type": "application/json"} | (headers or {}))
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


@CALM
@given(data=st.data())
def test_a_body_with_anything_in_any_place(connection, data):
    path = data.draw(st.sampled_from(sorted(GOOD)))
    place = data.draw(st.sampled_from(list(places(GOOD[path]))))
    body = json.dumps(changed(GOOD[path], place, data.draw(VALUES))).encode()
    found = status(connection, path, body)
    assert found < 500 or (found == 504 and place[-1:] == ("timeout",))


@CALM
@given(body=st.binary(max_size=60), told=st.integers(0, 60))
def test_bytes_that_mean_nothing(connection, body, told):
    for path in ("/v1/embeddings", "/embed", "/v2/models/tiny/infer"):
        assert 400 <= status(connection, path, body) < 500
    length = {"Inference-Header-Content-Length": str(told)}
    assert 400 <= status(connection, "/v2/models/tiny/infer", body, length) < 500


@given(st.lists(st.text()))
def test_texts_come_out_of_a_binary_tensor_as_they_went_in(texts):
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    packed = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    assert unpacked(packed, "text") == texts


@given(st.binary(max_size=40))
def test_any_bytes_are_a_binary_tensor_or_refused(data):
    try:
        found = unpacked(data, "text")
    except Failure as failure:
        assert failure.kind == "invalid"
    else:
        assert sum(len(text.encode()) + 4 for text in found) == len(data)


def test_what_is_good_is_answered(connection):
    for path, body in GOOD.items():
        wanted = 422 if path in ("/embed_all", "/predict") else 200
        assert status(connection, path, json.dumps(body)) == wanted, path
