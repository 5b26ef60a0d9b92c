"""A server from its start to its end: embedded, and as people run it."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

import tightrope
from tightrope.device.model import open_bundle
from tightrope.device.serve.server import Options, Server
from tightrope.errors import RefusedError, ServeError

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tiny(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "tiny.bundle"
    native_bundle(path)
    return path


def ask(url, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} | headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@contextmanager
def command(tiny, folder, *more):
    """`tightrope serve` as a process, until it says that it is ready."""
    line = [sys.executable, "-m", "tightrope", "serve", str(tiny), "--port", "0", "--state", str(folder), *more]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline()
        yield process, first.split()[0] if first else ""
    finally:
        process.kill()
        process.communicate()


def test_answers_are_the_models_own(tiny):
    texts = ["the cat sat", "no dogs"]
    with tightrope.serve(tiny, memory="8GB", threads=1) as server, open_bundle(tiny) as model:
        found = ask(f"{server.url}/v1/embeddings", {"input": texts})
        rows = np.array([item["embedding"] for item in found["data"]], np.float32)
        np.testing.assert_array_equal(rows, model.embed(texts))
        ready = ask(f"{server.url}/health/ready")
    assert ready == {"ready": True, "reason": ""}


def test_a_process_starts_answers_and_ends_when_told(tiny, tmp_path):
    with command(tiny, tmp_path, "--memory", "300MB") as (process, url):
        assert ask(f"{url}/v1/embeddings", {"input": "the cat"})["data"]
        listed = subprocess.run(
            [sys.executable, "-m", "tightrope", "model", "list", "--json", "--admin", str(tmp_path / "admin.sock")],
            capture_output=True, check=True,
        )  # fmt: skip
        assert json.loads(listed.stdout)["models"][0]["name"] == "tiny"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    assert not (tmp_path / "admin.sock").exists()


def test_a_server_without_a_model_waits_for_one(tiny, tmp_path):
    (tmp_path / "models").mkdir()
    with command(tmp_path / "models", tmp_path / "state") as (_, url):
        for path, body in (("/health/ready", None), ("/v1/embeddings", {"input": "the cat"})):
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                ask(f"{url}{path}", body)
            said = refused.value.read().decode()
            assert "There is no model yet" in said and "tightrope model deploy" in said
            assert int(refused.value.headers["retry-after"]) > 0
        assert ask(f"{url}/health/live")["live"] and ask(f"{url}/v1/models")["data"] == []
        deploy = [sys.executable, "-m", "tightrope", "model", "deploy", "faq", str(tiny)]
        subprocess.run([*deploy, "--admin", str(tmp_path / "state" / "admin.sock")], capture_output=True, check=True)
        assert ask(f"{url}/v1/embeddings", {"input": "the cat"})["data"]
    with command(tmp_path / "models", tmp_path / "state") as (_, url):
        assert [model["id"] for model in ask(f"{url}/v1/models")["data"]] == ["faq"], "it is there after a restart"


def test_a_request_that_was_begun_is_answered_before_the_end(tiny, tmp_path):
    with command(tiny, tmp_path) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            body = json.dumps({"input": ["the cat sat on the mat"] * 500}).encode()
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body[:-1])
            assert ask(f"{url}/health/live")["live"]
            client.sendall(body[-1:])
            process.send_signal(signal.SIGTERM)
            answer = b""
            while part := client.recv(1 << 20):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200") and answer.rstrip().endswith(b"}")
        assert process.wait(timeout=30) == 0


def test_two_servers_do_not_share_what_they_remember(tiny, tmp_path):
    with command(tiny, tmp_path), command(tiny, tmp_path) as (second, url):
        assert url == "" and second.wait(timeout=30) == 1
        error = second.stderr.read().splitlines()
        assert len(error) == 2 and "Traceback" not in error[0]


def test_a_model_that_is_larger_than_the_budget_is_refused_with_the_numbers(tiny):
    with pytest.raises(RefusedError) as refused, tightrope.serve(tiny, memory="1MB"):
        pass
    assert refused.value.reason == "memory" and "MB" in refused.value.message


def test_a_port_that_is_taken_is_said(tiny):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=str(port)), tightrope.serve(tiny, port=port, threads=1):
            pass


def test_a_socket_that_cannot_be_made_is_said(tiny, tmp_path):
    with pytest.raises(ServeError, match="cannot be opened"), tightrope.serve(tiny, admin="/proc/none/s", threads=1):
        pass


def test_a_budget_is_an_amount(tiny):
    with pytest.raises(ServeError, match="lots"):
        tightrope.serve(tiny, memory="lots")


def test_the_owners_socket_is_the_owners(tiny, tmp_path):
    path = tmp_path / "admin.sock"
    with tightrope.serve(tiny, admin=path, threads=1):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


@pytest.mark.parametrize("given", [{"port": 70000}, {"certificate": "x"}, {"host": "0.0.0.0"}])
def test_options_that_mean_nothing_are_refused(tiny, given):
    with pytest.raises(ServeError):
        Server(Options(path=tiny, **given))


def test_limits_are_listed_and_changed_by_name(tiny):
    def run(*more):
        line = [sys.executable, "-m", "tightrope", "serve", str(tiny), *more]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    assert "queue_requests=512" in run("--limit", "list").stdout
    for wrong in ("queue=5", "queue_requests=many", "queue_requests=-1", "idle_s=inf", "idle_s"):
        done = run("--limit", wrong)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 2


def test_a_server_speaks_tls_where_it_has_a_certificate(tiny, tmp_path):
    import ssl

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("needs openssl: apt-get install openssl")
    with tightrope.serve(tiny, certificate=certificate, private_key=key, threads=1) as server:
        assert server.url.startswith("https://")
        trust = ssl.create_default_context(cafile=certificate)
        with urllib.request.urlopen(f"{server.url}/health/live", timeout=30, context=trust) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{server.url}/health/live", timeout=30)


def test_it_can_be_mounted_in_another_server(tiny):
    """The application is ASGI: asked here as a server would."""
    import asyncio

    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/models",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    with tightrope.serve(tiny, threads=1) as server:
        asyncio.run(server.app(scope, receive, send))
    assert sent[0]["status"] == 200 and b"tiny" in sent[1]["body"]
