"""The load generator against a real server of a few lines, and the tables of what was stored."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from benchmarks.serve import load
from benchmarks.serve.peers import contestants
from benchmarks.serve.soak import _mixture, _slope
from benchmarks.serve.strain import _outside
from benchmarks.serve_table import BEGIN, END, block


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every third request with 503, in pieces of a chunk or whole."""

    protocol_version = "HTTP/1.1"
    seen = 0

    def do_POST(self) -> None:
        """Answer."""
        Handler.seen += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if Handler.seen % 3 == 0 else 200)
        if Handler.seen % 3 == 0:
            self.send_header("Retry-After", "1")
        if Handler.seen % 2:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")
        else:
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that runs for one test."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("rate", [None, 100.0])
def test_every_request_is_accounted_for(port: int, rate: float | None) -> None:
    before = Handler.seen
    plan = load.Plan(port=port, path="/embed", bodies=('{"a": 1}', "{}"), clients=3, seconds=0.4, rate=rate)
    answers = load.run(plan)
    assert len(answers.statuses) + answers.broken == Handler.seen - before
    assert [status == 503 for status in answers.statuses] == answers.retry_after
    assert set(answers.statuses) == {200, 503}
    found = load.figures(answers)
    assert found["n"] + found["not_answered"] == len(answers.statuses)
    assert 0 < found["p50_s"] <= found["p99_s"]
    if rate:
        assert len(answers.statuses) <= rate * 0.4 + 2


def test_bodies_are_json_and_what_is_wrong_is_wrong() -> None:
    for item in contestants():
        assert json.loads(item.body % json.dumps('a "text"'))["inputs" if item.path == "/embed" else "input"]
    assert len(_mixture([f"text number {number}" for number in range(64)])) == 9


def test_what_a_question_takes_beside_its_batch_is_told_where_it_is_its_only_one() -> None:
    asked = [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0), (6.0, 7.0)]
    computed = [(0.25, 0.75), (1.2, 1.8), (2.1, 2.2), (2.3, 2.4), (5.9, 6.1), (6.2, 6.95)]
    assert list(_outside(asked, computed)) == pytest.approx([0.5])


def test_a_slope_is_in_bytes_an_hour() -> None:
    assert _slope([(0.0, 1000), (1800.0, 1500), (3600.0, 2000)]) == pytest.approx(1000)
    assert _slope([(0.0, 1000)]) == 0.0


def test_what_was_not_measured_is_not_in_the_table() -> None:
    assert "Not measured yet" in block({})
    load_figures = {"per_s": 100.0, "p50_s": 0.01, "p99_s": 0.02}
    server = {"label": "LitServe", "load": {"1": load_figures, "16": load_figures}, "peak_bytes": 7e8, "ready_s": 9.0}
    peers = {"clients": [1, 16], "rounds": 2, "seconds": 10.0, "processor": "p", "date": "d", "servers": {"x": server}}
    text = block({"empty": {"resident_bytes": 30_000_000}, "peers": peers})
    assert text.startswith(BEGIN) and text.endswith(END)
    assert "| resident, its model unloaded | 30 MB |  |" in text
    assert "| LitServe | 100 | 10 ms | 20 ms | 100 | 10 ms | 20 ms | 700 MB | 9 s |" in text
    assert "soak" not in text and "bare session" not in text
