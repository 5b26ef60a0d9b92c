"""The native routes over a real model and a real index: right answers, and no failure that names a path of ours."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tightrope
from tightrope.device.apps import faq_bot
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create, open_index
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.http import failures, search
from tightrope.device.serve.http.routes import Request, State, parameters
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.service import Service
from tightrope.device.serve.shelf import Shelf

pytestmark = pytest.mark.engine
TEXTS = ["the cat sat", "dogs bark", "bread and butter", "seven of nine", "a mat"]
Call = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def state(native_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    """A server's state with one model and one index of five entries and twenty more."""
    folder = tmp_path_factory.mktemp("served")
    bundle = native_bundle(folder / "faq.bundle")
    with tightrope.open(bundle.path) as model, create(folder / "faq.index", digest=bundle.digest, width=32) as index:
        texts = [*TEXTS, *(f"number {n} {'cat ' * n}" for n in range(20))]
        index.add(
            [
                Document(key=f"d{n}", passages=(text,), answer=f"answer {n}", metadata={"n": n})
                for n, text in enumerate(texts)
            ],
            model.embed(texts),
        )
        faq_bot.calibrate(index, model.embed([f"{n} strange words {n * 7}" for n in range(40)]))
    ledger, metrics, limits = Ledger(None, resident=lambda: 1_000_000), Metrics(), Limits(inputs=100)
    with (
        Service(ledger, metrics, limits) as service,
        Catalogue.open(bundle.path, service, ledger, metrics, limits) as catalogue,
        Shelf(folder / "faq.index", catalogue, ledger) as shelf,
    ):
        rooms: dict[str, Any] = {"sessions": None, "board": None, "keys": None, "hosts": frozenset(), "version": "0"}
        yield State(
            catalogue=catalogue,
            service=service,
            ledger=ledger,
            metrics=metrics,
            limits=limits,
            indexes={"faq": shelf},
            started_s=0.0,
            **rooms,
        )


@pytest.fixture
def call(state: State) -> Call:
    """`call(method, path, body)`: status and JSON, as the application answers it."""

    async def answered(method: str, path: str, body: Any) -> tuple[int, Any]:
        sent = [{"type": "http.request", "body": body if isinstance(body, bytes) else json.dumps(body).encode()}]

        async def receive() -> dict[str, Any]:
            if sent:
                return {**sent.pop(), "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        path, _, query = path.partition("?")
        routes = [route for route in search.ROUTES if route.method == method]
        route = next(route for route in routes if parameters(route.path, path) is not None)
        scope = {"headers": [(b"content-type", b"application/json")], "query_string": query.encode(), "path": path}
        request = Request(
            scope=scope, state=state, id="1", api="native", params=parameters(route.path, path) or {}, receive=receive
        )
        try:
            response = await route.handler(request)
            assert isinstance(response.body, bytes)
            return response.status, json.loads(response.body)
        except Exception as error:
            failure = failures.of(error)
            if failure is None:
                raise
            status, _, told, _ = failures.envelope(failure, "native", "1")
            return status, json.loads(told)
        finally:
            request.release()

    return lambda method, path, body=b"": asyncio.run(answered(method, path, body))


def test_search_in_every_mode(call):
    for mode in ("hybrid", "vector", "words"):
        status, found = call("POST", "/v1/search", {"query": "dogs bark", "k": 3, "mode": mode})
        assert status == 200 and found["mode"] == mode and len(found["hits"]) <= 3
        assert found["hits"][0] | {"score": 0} == {
            "id": "d1#0", "key": "d1", "score": 0, "title": "", "text": "dogs bark", "answer": "answer 1",
            "position": 0, "metadata": {"n": 1},
        }  # fmt: skip
    status, found = call("POST", "/v1/search", {"query": "cat", "k": 50, "where": {"n": {"gte": 10}}, "index": "faq"})
    assert status == 200 and {hit["metadata"]["n"] for hit in found["hits"]} == set(range(10, 25))


def test_a_question_is_answered_or_not(call):
    status, known = call("POST", "/v1/ask", {"question": "seven of nine"})
    assert status == 200 and known["known"] and known["answer"] == "answer 3" and known["score"] >= known["threshold"]
    _, hits = call("POST", "/v1/ask", {"question": "zz qq", "where": {"n": 1000}})
    assert hits["answer"] is None and not hits["known"] and hits["hits"] == []


def test_recommendation(call):
    status, found = call("POST", "/v1/recommend", {"history": ["d10", "d11", "gone"], "k": 4, "diversity": 0.2})
    keys = [hit["key"] for hit in found["hits"]]
    assert status == 200 and len(set(keys)) == 4 and not {"d10", "d11"} & set(keys)


def test_pairs(call):
    status, found = call("POST", "/v1/pairs", {"pairs": [["the cat", "the cat"], ["the cat", "dogs bark"]]})
    assert status == 200 and found["scores"][0] == pytest.approx(1, abs=1e-3) and found["scores"][1] < 0.999
    assert call("POST", "/v1/pairs", {"pairs": []}) == (200, {"model": "faq", "scores": []})


def test_documents_come_and_go_while_it_serves(call, state):
    new = {"key": "new/one", "text": "late bread. " * 200, "answer": "fresh", "metadata": {"kind": "late"}}
    status, made = call("POST", "/v1/documents", {"documents": [new]})
    assert status == 201 and made["documents"] == 1 and made["passages"] > 3
    assert (
        call("POST", "/v1/search", {"query": "late bread", "where": {"kind": "late"}})[1]["hits"][0]["answer"]
        == "fresh"
    )
    assert call("POST", "/v1/documents", {"documents": [new]})[0] == 422, "it is there already"
    assert call("PUT", "/v1/documents", {"documents": [new | {"text": "late"}]}) == (
        200,
        {"documents": 1, "passages": 1},
    )
    assert call("GET", "/v1/indexes")[1]["indexes"][0] | {"memory_bytes": 0, "digest": ""} == {
        "name": "faq", "model": "faq", "version": state.indexes["faq"].version, "digest": "", "state": "current",
        "documents": 26, "passages": 26, "memory_bytes": 0,
    }  # fmt: skip
    with open_index(state.indexes["faq"].path, writing=False) as other:
        assert other.about.documents == 26, "another process sees it"
    assert call("POST", "/v1/documents/delete", {"keys": ["new/one", "none"]}) == (200, {"deleted": 1})
    assert call("POST", "/v1/documents", {"documents": [{"key": "x", "text": "cat"}]})[0] == 201
    assert call("DELETE", "/v1/documents/x") == (200, {"deleted": 1})
    assert call("DELETE", "/v1/documents/x")[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/search", {"query": ""}, 422),
        ("/v1/search", {"query": "cat", "k": 0}, 422),
        ("/v1/search", {"query": "cat", "k": 10**30}, 400),
        ("/v1/search", {"query": "cat", "index": "../etc"}, 404),
        ("/v1/search", {"query": "cat", "where": {"a": {"b": 1}}}, 422),
        ("/v1/search", {"query": "cat", "where": {}}, 422),
        ("/v1/search", {"query": "cat", "mode": "magic"}, 422),
        ("/v1/search", {"query": "cat", "more": 1}, 422),
        ("/v1/ask", {"question": " "}, 422),
        ("/v1/recommend", {"history": []}, 422),
        ("/v1/recommend", {"history": ["d1"], "k": 5000}, 422),
        ("/v1/recommend", {"history": ["d1"], "diversity": 9}, 422),
        ("/v1/pairs", {"pairs": [["a"]]}, 422),
        ("/v1/pairs", {"pairs": [["a", "b"]], "model": "none"}, 404),
        ("/v1/pairs", {"pairs": [["a", "b"]] * 51}, 413),
        ("/v1/documents", {"documents": [{"key": "", "text": "cat"}]}, 422),
        ("/v1/documents", {"documents": [{"key": "e", "text": " "}]}, 422),
        ("/v1/documents", {"documents": [{"key": "e", "text": "cat", "metadata": {"a": [[1]]}}]}, 422),
        ("/v1/documents", {"documents": [{"key": "e", "text": "cat. " * 9000}]}, 413),
        ("/v1/documents", {"documents": []}, 422),
        ("/v1/documents/delete", {"keys": ["x"] * 200}, 413),
        ("/v1/search", b"{", 400),
    ],
)
def test_bad_input_is_told_and_never_a_fault_of_ours(call, path, body, status):
    found, problem = call("POST", path, body)
    assert found == status or {found, status} == {400, 422}, problem
    assert problem["detail"] and "/tmp" not in problem["detail"] and problem["status"] == found


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMED = st.dictionaries(
    st.sampled_from(["query", "question", "history", "pairs", "k", "where", "mode", "index", "half_life", "diversity"]),
    VALUE | st.just("cat") | st.just(["d1"]) | st.just({"n": 1}),
    max_size=6,
)


@given(path=st.sampled_from(["/v1/search", "/v1/ask", "/v1/recommend", "/v1/pairs"]), body=NAMED | VALUE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)
def test_any_json_is_answered_or_refused(call, path, body):
    assert call("POST", path, body)[0] in (200, 400, 404, 413, 422)


def test_a_damaged_index_is_told_without_its_path(call, state, monkeypatch):
    from tightrope.errors import SearchError

    with state.indexes["faq"].pair() as pair:

        def fail(*_: object, **__: object) -> None:
            raise SearchError("/secret/place holds damaged vectors.", hint="Build it anew.")

        monkeypatch.setattr(pair.index, "hybrid", fail)
        status, problem = call("POST", "/v1/search", {"query": "cat"})
    assert status == 503 and "/secret" not in json.dumps(problem)


def test_without_its_version_search_goes_on_by_words(call, state, monkeypatch):
    shelf = state.indexes["faq"]
    with shelf.pair() as pair:
        monkeypatch.setattr(pair, "version", "gone")
        status, found = call("POST", "/v1/search", {"query": "dogs bark"})
        assert status == 200 and found["mode"] == "words" and found["hits"][0]["key"] == "d1"
        assert call("POST", "/v1/search", {"query": "dogs bark", "mode": "vector"})[0] in (404, 503)


def test_an_index_that_is_not_there(state: State, tmp_path: Path):
    async def asked() -> None:
        await search.find(state, "cat", index="none")

    with pytest.raises(failures.Failure) as caught:
        asyncio.run(asked())
    assert caught.value.kind == "not_found" and "faq" in caught.value.detail
