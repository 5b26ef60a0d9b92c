"""Triton's own client, against a real server: the Open Inference Protocol as JSON and with binary tensors."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

import tightrope
from tightrope.bundle import Bundle
from tightrope.device.model import Embedder
from tightrope.device.serve.server import Server

triton = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

pytestmark = pytest.mark.engine
TEXTS = ["the cat sat", "naïve café 🐈", ""]
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator["triton.InferenceServerClient"]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as found:
        yield found


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Iterator[Embedder]:
    with tightrope.open(bundle.path) as found:
        yield found


def tensor(texts, *, binary=True, shape=None, name="text"):
    rows = np.array(texts, object).reshape(shape or [len(texts)])
    found = triton.InferInput(name, list(rows.shape), "BYTES")
    found.set_data_from_numpy(rows, binary_data=binary)
    return found


def post(server, body, headers=None, path=INFER):
    request = urllib.request.Request(
        f"{server.url}{path}", body, {"Content-Type": "application/json"} | (headers or {})
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_server_and_its_model_say_what_they_are(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata() == {
        "name": "tightrope",
        "version": tightrope.__version__,
        "extensions": ["binary_tensor_data"],
    }
    found = client.get_model_metadata("tiny")
    assert found["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 32]}]
    (version,) = found["versions"]
    assert client.get_model_metadata("tiny", version) == found
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", version)
    assert not client.is_model_ready("tiny", "none")
    assert not client.is_model_ready("other")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_vectors_are_the_models_own_to_the_last_bit(client, model, binary_in, binary_out):
    wanted = None if binary_out is None else [triton.InferRequestedOutput("embedding", binary_data=binary_out)]
    answer = client.infer("tiny", [tensor(TEXTS, binary=binary_in)], outputs=wanted, request_id="seven")
    assert np.array_equal(answer.as_numpy("embedding"), model.embed(TEXTS))
    said = answer.get_response()
    assert (said["model_name"], said["id"]) == ("tiny", "seven")
    assert ("data" in said["outputs"][0]) is (binary_out is False)


@pytest.mark.parametrize("binary", [True, False])
def test_a_long_answer_comes_whole(client, model, binary):
    texts = [f"{'cat ' * (number % 5)} {number}" for number in range(1100)]
    wanted = [triton.InferRequestedOutput("embedding", binary_data=binary)]
    assert np.array_equal(
        client.infer("tiny", [tensor(texts)], outputs=wanted).as_numpy("embedding"), model.embed(texts)
    )


def test_a_column_of_texts_a_timeout_and_parameters(client, model):
    texts = [tensor(TEXTS, shape=[3, 1])]
    answer = client.infer("tiny", texts, timeout=30_000_000, parameters={"normalize": False})
    assert np.array_equal(answer.as_numpy("embedding"), model.embed(TEXTS, normalize=False))


def test_each_version_of_each_model_by_its_path(many, models):
    with triton.InferenceServerClient(many.url.removeprefix("http://")) as client:
        for version in ("1", "2"):
            answer = client.infer("tiny", [tensor(TEXTS)], model_version=version)
            with tightrope.open(models / "tiny" / f"{version}.bundle") as model:
                assert np.array_equal(answer.as_numpy("embedding"), model.embed(TEXTS))
            assert answer.get_response()["model_version"] == version
        pairs = [["the cat", "sat"], ["no", "dogs"]]
        for name, labels in (("ranks", 1), ("labels", 3)):
            assert client.get_model_metadata(name)["inputs"][0]["shape"] == [-1, 2]
            found = client.infer(name, [tensor(pairs, shape=[2, 2])]).as_numpy("scores")
            with tightrope.open(models / name / "1.bundle") as scorer:
                assert np.array_equal(found, np.reshape(scorer.score(pairs), (2, labels)))
        with pytest.raises(InferenceServerException, match="shape"):
            client.infer("ranks", [tensor(TEXTS)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_name": "other"}, "There is no model"),
        ({"model_version": "9"}, "There is no version"),
        ({"inputs": [tensor(TEXTS, name="texts")]}, "takes one: text"),
        ({"inputs": [tensor(TEXTS), tensor(TEXTS)]}, "takes one: text"),
        ({"inputs": [tensor(TEXTS, shape=[1, 3])]}, "shape"),
        ({"inputs": [tensor([b"\xff\xfe"])]}, "not UTF-8"),
        ({"inputs": [tensor(["a\0b"])]}, "NUL"),
        ({"inputs": [tensor(["x"] * 2049)]}, "2,048 is the most"),
        ({"outputs": [triton.InferRequestedOutput("scores")]}, "There is no output"),
        ({"outputs": [triton.InferRequestedOutput("embedding", class_count=2)]}, "only parameter"),
        ({"sequence_id": 3}, "There is no parameter 'sequence_id'"),
        ({"parameters": {"normalize": 3}}, "normalize cannot be"),
        ({"parameters": {"prompt": "none"}}, "no prompt"),
        ({"request_compression_algorithm": "gzip"}, "compressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_the_clients_fault_in_the_protocols_envelope(client, change, said):
    with pytest.raises(InferenceServerException, match=said) as caught:
        client.infer(**({"model_name": "tiny", "inputs": [tensor(TEXTS)]} | change))
    assert 400 <= int(caught.value.status()) < 500


TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}
BARE = {"name": "text", "shape": [1], "datatype": "BYTES"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        {"inputs": []},
        {"inputs": [TEXT | {"shape": []}]},
        {"inputs": [TEXT | {"shape": [0]}]},
        {"inputs": [TEXT | {"shape": [-1]}]},
        {"inputs": [TEXT | {"shape": [2**62]}]},
        {"inputs": [TEXT | {"shape": [2]}]},
        {"inputs": [TEXT | {"datatype": "FP32"}]},
        {"inputs": [TEXT | {"data": [1]}]},
        {"inputs": [TEXT | {"data": [["x"]]}]},
        {"inputs": [TEXT | {"data": None}]},
        {"inputs": [TEXT | {"parameters": {"binary_data_size": 5}}]},
        {"inputs": [BARE | {"parameters": {"binary_data_size": True}}]},
        {"inputs": [BARE | {"parameters": {"binary_data_size": -1}}]},
        {"inputs": [TEXT | {"parameters": {"shared_memory_region": "x"}}]},
        {"inputs": [TEXT], "parameters": {"timeout": -1}},
        {"inputs": [TEXT], "parameters": {"timeout": 1e300}},
        {"inputs": [TEXT], "surprise": 1},
    ],
    ids=str,
)
def test_other_bodies_are_refused_as_well(server, body):
    status, answer = post(server, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert 400 <= status < 500
    assert list(answer) == ["error"]


@pytest.mark.parametrize("told", ["x", "-1", "1.5", "99999", "0", "999999999999999999999", "٣"])
def test_a_wrong_length_of_the_json_is_refused(server, told):
    body = json.dumps({"inputs": [TEXT]}).encode()
    status, answer = post(server, body, {"Inference-Header-Content-Length": told.encode().decode("latin-1")})
    assert 400 <= status < 500
    assert list(answer) == ["error"]


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\x05\0", b"\xff\xff\xff\xffabc", b"\x01\0\0\0a\x01\0\0\0b"])
def test_broken_binary_tensors_are_refused(server, data):
    given = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [given]}).encode()
    status, answer = post(server, head + data, {"Inference-Header-Content-Length": str(len(head))})
    assert status == 422, answer
    status, answer = post(server, head + data[:-1], {"Inference-Header-Content-Length": str(len(head))})
    assert status == 422, answer
