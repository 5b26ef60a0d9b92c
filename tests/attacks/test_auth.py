"""Who may ask: keys on every route, other pages, other names of this host, and nothing secret in the logs."""

import io
import json
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import tightrope
from tightrope.device.serve import keys, logs
from tightrope.device.serve.http.app import ROUTES
from tightrope.device.serve.server import Options
from tightrope.errors import ServeError

pytestmark = pytest.mark.engine
BODY = json.dumps({"input": "the cat"}).encode()


@pytest.fixture(scope="module")
def made(native_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    native_bundle(folder / "tiny.bundle")
    return folder / "tiny.bundle", folder / "keys", keys.new(folder / "keys", "phone")


@pytest.fixture(scope="module")
def guarded(made):
    path, file, secret = made
    with tightrope.serve(path, key_file=file, threads=1) as server:
        server.secret = secret
        yield server


@pytest.fixture(scope="module")
def open_one(made):
    with tightrope.serve(made[0], threads=1) as server:
        yield server


def ask(url, method="GET", body=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"} | named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


CLOSED = [
    (route.method, route.path.replace("{", "").replace("}", ""))
    for route in ROUTES
    if not route.open and route.path not in ("/", "/login") and route.method != "WEBSOCKET"
]


@pytest.mark.parametrize(
    ("method", "path"), [*CLOSED, ("GET", "/nothing"), ("DELETE", "/v1/embeddings"), ("GET", "/metrics")]
)
def test_every_route_wants_a_key(guarded, method, path):
    assert len(CLOSED) > 15
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer tr_wrong"},
        {"Authorization": "Basic x"},
    ):
        code, body = ask(guarded.url + path, method, BODY if method == "POST" else None, **headers)
        assert code == 401 and b"the cat" not in body


def test_a_key_opens_however_the_scheme_is_written(guarded):
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert ask(f"{guarded.url}/v1/models", Authorization=f"{scheme} {guarded.secret}")[0] == 200


def test_health_needs_none(guarded):
    assert ask(f"{guarded.url}/health/live")[0] == 200
    assert ask(f"{guarded.url}/health/ready")[0] == 200


def test_the_page_without_a_key_shows_a_form_and_no_more(guarded):
    _, body = ask(f"{guarded.url}/")
    assert b"<form" in body and b"tiny" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]"])
def test_without_keys_the_server_answers_to_its_own_names_only(open_one, host):
    assert ask(f"{open_one.url}/v1/models", Host=host)[0] == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_pages_of_others_may_not_ask(open_one, origin):
    assert ask(f"{open_one.url}/v1/embeddings", "POST", BODY, Origin=origin)[0] == 403


def test_its_own_page_may(open_one):
    assert ask(f"{open_one.url}/v1/embeddings", "POST", BODY, Origin=open_one.url)[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_a_form_can_send_is_no_request(open_one, kind):
    assert ask(f"{open_one.url}/v1/embeddings", "POST", BODY, Content_Type=kind)[0] == 415


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_keys_nobody_else_is_listened_to(made, host):
    with pytest.raises(ServeError, match="keys"):
        Options(path=made[0], host=host)


def test_nothing_secret_is_logged_or_shown(guarded):
    stream = io.StringIO()
    before = logs.write_to(logs.Log(stream))
    try:
        canary = "a canary that sings in the coal mine"
        headers = {"Authorization": f"Bearer {guarded.secret}", "X-Request-Id": "me\x1b[31m"}
        ask(f"{guarded.url}/v1/embeddings", "POST", json.dumps({"input": canary}).encode(), **headers)
        ask(f"{guarded.url}/v1/embeddings", "POST", json.dumps({"input": [canary, 5]}).encode(), **headers)
        with suppress(ValueError):
            ask(f"{guarded.url}/v1/embeddings?q={canary.split()[1]}", "POST", b"{", **headers)
        shown = ask(f"{guarded.url}/metrics", Authorization=f"Bearer {guarded.secret}")[1].decode()
    finally:
        logs.write_to(before)
    written = stream.getvalue()
    assert written.count("\n") >= 3 and all(json.loads(line) for line in written.splitlines())
    for secret in (guarded.secret, guarded.secret[3:], "canary", "coal"):
        assert secret not in written and secret not in shown
    assert "\x1b" not in written


def test_what_is_open_ends_when_its_key_is_revoked(made, tmp_path):
    file = tmp_path / "keys"
    kept, gone = keys.new(file, "kept"), keys.new(file, "gone")
    with tightrope.serve(made[0], key_file=file, threads=1) as server, ExitStack() as streams:

        def opened(secret):
            given = {"Authorization": f"Bearer {secret}"}
            address = server.url.replace("http", "ws", 1)
            sockets = [connect(f"{address}/v1/live/{name}", additional_headers=given) for name in ("status", "search")]
            request = urllib.request.Request(f"{server.url}/v1/live/status", headers=given)
            return [streams.enter_context(item) for item in (*sockets, urllib.request.urlopen(request, timeout=20))]

        *_, still = opened(kept)
        status, search, events = opened(gone)
        keys.revoke(file, "gone")
        until = time.monotonic() + 10
        for socket in (status, search):
            with pytest.raises(ConnectionClosed) as closed:
                while time.monotonic() < until:
                    socket.recv(timeout=10)
            assert closed.value.rcvd.code == 1008
        while events.readline():
            assert time.monotonic() < until
        assert time.monotonic() < until
        assert still.readline() and still.readline(), "who has a key goes on"
        assert ask(f"{server.url}/v1/models", Authorization=f"Bearer {kept}")[0] == 200


def test_what_is_open_ends_when_its_reader_logs_out(guarded):
    body = urlencode({"key": guarded.secret}).encode()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": guarded.url}
    opener.open(urllib.request.Request(f"{guarded.url}/login", body, form), timeout=20).close()
    with opener.open(f"{guarded.url}/v1/live/status", timeout=20) as events:
        assert events.readline()
        with pytest.raises(urllib.error.HTTPError, match="401"):  # the page that it leads to shows the form again
            opener.open(urllib.request.Request(f"{guarded.url}/logout", b"", form), timeout=20)
        while events.readline():
            pass
