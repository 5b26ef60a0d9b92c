"""Spans on their way, with collectors of the test's own: one that reads OTLP's protobuf, dead, slow, unwilling ones."""

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tightrope
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.serve import logs, otlp
from tightrope.device.serve.metrics import Metrics
from tightrope.errors import ServeError

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


class Collector(ThreadingHTTPServer):
    """Takes what is sent, and answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.answers: list[tuple[int, bytes]] = []
        """What comes first; after it 200."""
        self.hold = threading.Event()
        self.hold.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Any]:
        """Everything that came, read by OTLP's own definitions, which refuse a field that they do not have."""
        pytest.importorskip("opentelemetry.proto", reason="pip install opentelemetry-proto")
        from google.protobuf.json_format import Parse
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return [
            span
            for body in self.bodies
            for resource in Parse(json.dumps(_binary(json.loads(body))), ExportTraceServiceRequest()).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Taking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.hold.wait(20)
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, b'{"partialSuccess":{}}')
        if status == 200:
            self.server.bodies.append(body)
            self.server.paths.append(self.path)
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except OSError:
            self.close_connection = True  # whoever sent it did not wait

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _binary(value: Any) -> Any:
    """Ids as protobuf's own JSON has them: OTLP writes them in hexadecimal, everybody else in base64."""
    if isinstance(value, list):
        return [_binary(item) for item in value]
    if isinstance(value, dict):
        ids = ("traceId", "spanId", "parentSpanId")
        return {
            key: base64.b64encode(bytes.fromhex(item)).decode() if key in ids else _binary(item)
            for key, item in value.items()
        }
    return value


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with Collector() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.hold.set()
        found.shutdown()
        thread.join()


class Counts(dict[str, int]):
    """How many spans came to which end."""

    def __call__(self, fate: str, number: int) -> None:
        self[fate] = self.get(fate, 0) + number


@contextmanager
def tracer(endpoint: str, **options: Any) -> Iterator[tuple[otlp.Tracer, Counts]]:
    """A tracer without the server around it."""
    counts = Counts()
    with otlp.Tracer(endpoint, version="1", counted=counts, **({"pause_s": 0.01} | options)) as found:
        yield found, counts


def trace(found: otlp.Tracer, number: int = 1) -> None:
    for _ in range(number):
        span = found.begin([])
        assert span is not None
        span.end("GET", "/info", 200)
        found.end(span)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# By itself ----------------------------------------------------------------------------------------------


def test_what_waits_is_sent_at_the_end(collector: Collector) -> None:
    with tracer(collector.endpoint) as (found, counts):
        trace(found, 700)
    assert counts == {"sent": 700, "dropped": 0}
    assert len(collector.spans()) == 700
    assert set(collector.paths) == {"/v1/traces"} and len(collector.bodies) >= 3


def test_a_full_buffer_drops_and_counts(collector: Collector) -> None:
    collector.hold.clear()
    with tracer(collector.endpoint) as (found, counts):
        start = time.perf_counter()
        trace(found, otlp.WAITING + otlp.AT_ONCE + 500)  # at most AT_ONCE of them are under way
        assert time.perf_counter() - start < 5
        until(lambda: counts.get("dropped", 0) >= 500)
        collector.hold.set()
    assert counts["sent"] + counts["dropped"] == otlp.WAITING + otlp.AT_ONCE + 500
    assert counts["sent"] == len(collector.spans()) >= otlp.WAITING


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", f"http://{'a' * 70}", "http://127.0.0.1:9/ü b"])
def test_a_dead_collector_costs_its_spans_only(endpoint: str) -> None:
    with tracer(endpoint, pause_s=0.001) as (found, counts):
        trace(found, 3 * otlp.AT_ONCE)
        start = time.perf_counter()
    assert time.perf_counter() - start < otlp.FAREWELL_S + 2
    assert counts["dropped"] == 3 * otlp.AT_ONCE and not counts.get("sent")


def test_a_collector_that_says_nothing_holds_nobody_up(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "FAREWELL_S", 0.2)
    collector.hold.clear()
    before = threading.active_count()
    with tracer(collector.endpoint) as (found, _):
        trace(found, otlp.AT_ONCE)
        start = time.perf_counter()
    assert time.perf_counter() - start < 3
    collector.hold.set()
    until(lambda: threading.active_count() <= before)


def test_a_busy_collector_is_asked_again_and_an_unwilling_one_is_not(collector: Collector) -> None:
    collector.answers = [(503, b""), (429, b"later")]
    with tracer(collector.endpoint) as (found, counts):
        trace(found, otlp.AT_ONCE)
        until(lambda: counts.get("sent", 0) == otlp.AT_ONCE)
        collector.answers = [(400, b"no")]
        trace(found, otlp.AT_ONCE)
        until(lambda: counts["dropped"] == otlp.AT_ONCE)
    assert collector.answers == []


def test_what_a_collector_took_but_did_not_keep_is_counted(collector: Collector) -> None:
    collector.answers = [(200, b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}'), (200, b"\xff[]")]
    with tracer(collector.endpoint) as (found, counts):
        trace(found, otlp.AT_ONCE)
        until(lambda: sum(counts.values()) == otlp.AT_ONCE)
        trace(found, 2)
    assert counts == {"sent": otlp.AT_ONCE - 1, "dropped": 3}


def test_failure_and_recovery_are_said_once_each(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs, "event", lambda name, **_: said.append(name))
    collector.answers = [(400, b""), (400, b"")]
    with tracer(collector.endpoint) as (found, counts):
        for turn in range(1, 4):
            trace(found, otlp.AT_ONCE)
            until(lambda: sum(counts.values()) == turn * otlp.AT_ONCE)  # noqa: B023 - called at once
    assert said == ["traces.failed", "traces.recovered"]


def test_the_callers_decision_is_followed_and_a_share_is_a_share(collector: Collector) -> None:
    with tracer(collector.endpoint, share=0.0) as (found, _):
        assert found.begin([]) is None
        assert found.begin([(b"traceparent", PARENT["traceparent"].encode())]) is not None
        assert found.begin([(b"traceparent", PARENT["traceparent"].encode()[:-1] + b"0")]) is None
    with tracer(collector.endpoint, share=0.25) as (found, _):
        assert 150 < sum(found.begin([]) is not None for _ in range(1000)) < 350


@pytest.mark.parametrize(
    "wrong", ["", "collector:4318", "ftp://collector", "http://", "http://user:word@host", "http://[", "http://h:x"]
)
def test_what_is_no_address_is_refused_in_two_lines(wrong: str) -> None:
    with pytest.raises(ServeError, match="address") as caught:
        otlp.target(wrong)
    assert "4318" in caught.value.hint


def test_an_address_may_have_a_path() -> None:
    assert otlp.target("http://h/v1/traces") == otlp.target("http://h/") == (False, "h", 80, "/v1/traces")


# In a server --------------------------------------------------------------------------------------------


def post(url: str, body: Any, headers: dict[str, str] | None = None) -> int:
    told = {"Content-Type": "application/json"} | (headers or {})
    asked = urllib.request.Request(url, json.dumps(body).encode(), told)
    try:
        with urllib.request.urlopen(asked, timeout=10) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.engine
def test_a_servers_requests_are_spans(collector: Collector, searchable: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, index = searchable[0], tmp_path / "docs.index"  # one of its own: an index has one writer
    with tightrope.open(bundle) as model, create(index, digest=model.bundle.digest, width=32) as empty:
        empty.add([Document(key="d", passages=("a mat",))], model.embed(["a mat"]))
    with tightrope.serve(bundle, index=index, threads=1, otlp=collector.endpoint) as server:
        assert post(f"{server.url}/v1/embeddings", {"input": ["the secret word"] * 2}, PARENT) == 200
        assert post(f"{server.url}/v1/search", {"query": "the secret word"}) == 200
        assert post(f"{server.url}/v1/embeddings", {"input": 3}) == 422
        assert (
            post(f"{server.url}/v1/embeddings", {"input": "x"}, {"traceparent": PARENT["traceparent"][:-1] + "0"})
            == 200
        )
        assert post(f"{server.url}/secret/path", {}) == 404
        assert server.app.state.ledger.usage()["traces"] == otlp.BYTES
        metrics = server.app.state.metrics
    spans = collector.spans()
    assert metrics.spans.values() == {("sent",): len(spans), ("dropped",): 0}
    roots = {span.name: span for span in spans if span.kind == 2 and span.status.code == 0}
    assert {"POST /v1/embeddings", "POST /v1/search", "POST"} == set(roots)
    [continued] = [span for span in spans if span.kind == 2 and span.trace_id.hex() == TRACE]
    assert continued.parent_span_id.hex() == SPAN
    below = [span for span in spans if span.parent_span_id == continued.span_id]
    assert sorted(span.name for span in below) == ["inference", "queue"]
    for span in below:
        assert continued.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= continued.end_time_unix_nano
    said = {pair.key: pair.value for pair in continued.attributes}
    assert said["http.route"].string_value == "/v1/embeddings" and said["tightrope.texts"].int_value == 2
    assert said["http.response.status_code"].int_value == 200 and said["tightrope.model"].string_value == "faq"
    assert [span for span in spans if span.parent_span_id == roots["POST /v1/search"].span_id]
    assert b"secret" not in b"".join(collector.bodies)


@pytest.mark.engine
@pytest.mark.parametrize("state", ["dead", "slow"])
def test_a_server_answers_whatever_its_collector_does(
    state: str, collector: Collector, searchable: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "AT_ONCE", 8)
    monkeypatch.setattr(otlp, "WAITING", 16)
    monkeypatch.setattr(otlp, "FAREWELL_S", 0.2)
    collector.hold.clear()
    endpoint = collector.endpoint if state == "slow" else "http://127.0.0.1:9"
    with tightrope.serve(searchable[0], threads=1, otlp=endpoint) as server:
        for _ in range(60):
            assert post(f"{server.url}/v1/embeddings", {"input": "x"}) == 200
        metrics = server.app.state.metrics
        until(lambda: metrics.spans.total(fate="dropped") > 0)
    assert metrics.spans.total(fate="sent") == 0
    assert 'tightrope_spans_total{fate="dropped"}' in Metrics().text()


@pytest.mark.engine
def test_without_an_endpoint_there_is_no_thread_and_no_span(searchable: tuple[Path, Path]) -> None:
    with tightrope.serve(searchable[0], threads=1) as server:
        assert post(f"{server.url}/v1/embeddings", {"input": "x"}, PARENT) == 200
        assert server.app.state.tracer is None
        assert not [thread for thread in threading.enumerate() if thread.name == "tightrope traces"]


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ServeError, match="share"):
        tightrope.serve("x.bundle", otlp="http://127.0.0.1:4318", otlp_share=1.5)
