"""The admin interface as values, and `tightrope model` against a real catalogue behind a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.bundle import Bundle
from tightrope.cli.model import model as command
from tightrope.device.serve.admin import answer
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.service import Service

Make = Callable[..., Bundle]


@pytest.fixture
def catalogue(tmp_path: Path, native_bundle: Make) -> Iterator[Catalogue]:
    native_bundle(tmp_path / "tiny.bundle")
    ledger, metrics, limits = Ledger(None), Metrics(), Limits()
    with (
        Service(ledger, metrics, limits) as service,
        Catalogue.open(tmp_path / "tiny.bundle", service, ledger, metrics, limits, state=tmp_path / "s") as catalogue,
    ):
        yield catalogue


@pytest.fixture
def better(tmp_path: Path, native_bundle: Make) -> Bundle:
    return native_bundle(tmp_path / "better.bundle", noise=0.001)


@pytest.fixture
def run(tmp_path: Path, catalogue: Catalogue) -> Iterator[Callable[..., Any]]:
    """`run("list", …)`: the command line, with the catalogue at the other end of its socket."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, value = answer(catalogue, self.command, self.path, body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_one  # noqa: N815

        def address_string(self) -> str:
            return "socket"

        def log_message(self, *_: object) -> None:
            """Nothing: standard error is the command's."""

    path = tmp_path / "admin.sock"
    with ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield lambda *given: CliRunner().invoke(command, [*map(str, given), "--admin", str(path)])
        server.shutdown()
        thread.join()


def test_a_version_is_deployed_tried_promoted_and_rolled_back_from_the_command_line(run, better, catalogue) -> None:
    old = catalogue.about().current
    assert [line.split()[:3] for line in run("list").stdout.splitlines()[1:]] == [["tiny", old, "current"]]
    tried = run("deploy", "tiny", better.path, "--shadow", "--canary", "10%", "--version", "2")
    assert tried.exit_code == 0 and "0 pairs" in tried.stdout and "shadow" in tried.stdout
    assert run("promote", "tiny").exit_code == 0
    assert catalogue.about().current == "2"
    assert json.loads(run("unload", "tiny", "--json").stdout)["model"]["versions"][1]["loaded_bytes"] == 0
    back = run("rollback", "tiny")
    assert "asked" in back.stdout and catalogue.about().current == old
    refused = run("deploy", "tiny", better.path)
    assert "was taken back before (asked)" in str(refused.exception)
    assert run("deploy", "tiny", better.path, "--force").exit_code == 0
    assert catalogue.about().digest == better.digest


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("deploy", "tiny", "/nowhere/at.bundle"), "/nowhere/at.bundle does not exist"),
        (("deploy", "../up", "/nowhere"), "'../up' cannot name a model"),
        (("promote", "other"), "There is no model 'other'"),
        (("promote", "tiny"), "tiny has no version on trial"),
        (("rollback", "tiny"), "tiny has no version to go back to"),
    ],
)
def test_what_cannot_be_done_is_told_in_the_servers_two_lines(run, given: tuple[str, ...], words: str) -> None:
    error = str(run(*given).exception)
    assert error.startswith(words) and len(error.splitlines()) == 2


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("POST", "/admin/models", b"", 405),
        ("GET", "/admin/models/tiny/promote", b"", 405),
        ("GET", "/admin", b"", 404),
        ("POST", "/admin/models/tiny/explode", b"", 404),
        ("POST", "/admin/models/a/b/deploy", b"{}", 404),
        ("POST", "/admin/models/%2e%2e%2fx/unload", b"", 404),
        ("POST", "/admin/models/%ff%00/unload", b"", 404),
        ("POST", "/admin/models/tiny/deploy", b"{", 422),
        ("POST", "/admin/models/tiny/deploy", b"[" * 100_000, 422),
        ("POST", "/admin/models/tiny/deploy", b"[]", 422),
        ("POST", "/admin/models/tiny/deploy", b"{}", 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "relative.bundle"}', 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/a\\u0000b"}', 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/x", "canary": true}', 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/x", "canary": NaN}', 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/x", "canary": 7}', 409),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/x", "shadow": 1}', 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/x", "color": 1}', 422),
        ("POST", "/admin/models/tiny/deploy", b'{"path": "/x", "version": "../1"}', 422),
    ],
)
def test_what_makes_no_sense_has_a_status_and_two_lines(catalogue, method, target, body, status) -> None:
    found, value = answer(catalogue, method, target, body)
    assert found == status
    assert value["error"]["message"] and value["error"]["hint"]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", ""]),
    st.text(max_size=40) | st.text(max_size=20).map(lambda name: f"/admin/models/{name}/deploy"),
    st.binary(max_size=40)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()),
)
def test_anything_may_be_asked(catalogue: Catalogue, method: str, target: str, body: bytes) -> None:
    status, value = answer(catalogue, method, target, body)
    assert status == 200 or 400 <= status < 500
    json.dumps(value)
