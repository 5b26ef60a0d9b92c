"""`tightrope model`: what it asks a server's admin socket, what it prints, and what it says if there is no server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tightrope.cli.model import model
from tightrope.errors import ServeError

TRIED = {
    "pairs": 312,
    "answered": 31,
    "expected_agreement": 0.998,
    "agreement": 0.9979,
    "agreement_p": 1.0,
    "latency_ratio": 1.017,
    "latency_p": 0.6,
    "failures": 0,
    "errors_p": 1.0,
}
MINILM = {
    "name": "minilm",
    "current": "1",
    "task": {"name": "embedding", "width": 384},
    "versions": [
        {"version": "0", "digest": "c" * 64, "state": "rolled_back", "loaded_bytes": 0, "reason": "latency"},
        {
            "version": "2",
            "digest": "b" * 64,
            "state": "canary",
            "loaded_bytes": 18_000_000,
            "canary": 0.1,
            "reason": "",
            "evidence": TRIED,
        },
        {"version": "1", "digest": "a" * 64, "state": "current", "loaded_bytes": 18_000_000, "reason": ""},
    ],
}
REFUSED = {"message": "minilm@2 was taken back before (latency): digest bbbbbbbbbbbb.", "hint": "Make another one."}


class _Admin(BaseHTTPRequestHandler):
    """Answers as the server does, and remembers what it was asked."""

    asked: list[tuple[str, str, Any]]

    def do_GET(self) -> None:
        self._answer(None, {"models": [MINILM], "damage": None})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = body.get("path", "").endswith("bad.bundle")
        self._answer(body, {"error": REFUSED} if refused else {"model": MINILM}, 409 if refused else 200)

    def _answer(self, body: Any, reply: Any, status: int = 200) -> None:
        self.asked.append((self.command, self.path, body))
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        """Nothing: standard error is the command's."""


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[tuple[Path, list[tuple[str, str, Any]]]]:
    """A socket that a server listens at, and what it was asked."""
    path = tmp_path / "admin.sock"
    asked: list[tuple[str, str, Any]] = []
    with ThreadingUnixStreamServer(str(path), type("Admin", (_Admin,), {"asked": asked})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path, asked
        server.shutdown()
        thread.join()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(item) for item in arguments])


def test_the_list_is_a_table_or_json(admin) -> None:
    shown = run("list", "--admin", admin[0])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["MODEL", "VERSION", "STATE", "MEMORY", "DIGEST"]
    assert [line.split()[1:3] for line in lines[1:]] == [["1", "current"], ["2", "canary"], ["0", "rolled_back"]]
    assert "312 pairs, answered 31 at 10 %, agreement 0.9979 (expected 0.9980), 1.02x the time" in lines[2]
    assert lines[3].endswith("latency")
    assert json.loads(run("list", "--admin", admin[0], "--json").stdout)["models"] == [MINILM]


def test_what_is_asked_is_what_was_meant(admin) -> None:
    path, asked = admin
    done = run("deploy", "minilm", "new.bundle", "--canary", "10%", "--shadow", "--version", "2", "--admin", path)
    assert done.exit_code == 0 and "canary" in done.stdout
    for verb in ("promote", "rollback", "unload"):
        assert run(verb, "a/../b", "--admin", path).exit_code == 0
    method, target, body = asked[0]
    assert (method, target) == ("POST", "/admin/models/minilm/deploy")
    here = str(Path("new.bundle").absolute())
    assert body == {"path": here, "canary": 0.1, "shadow": True, "version": "2", "force": False}
    assert [item[1] for item in asked[1:]] == [
        f"/admin/models/a%2F..%2Fb/{verb}" for verb in ("promote", "rollback", "unload")
    ]


def test_a_refusal_of_the_server_is_told_in_its_own_two_lines(admin) -> None:
    done = run("deploy", "minilm", "bad.bundle", "--admin", admin[0])
    assert isinstance(done.exception, ServeError)
    assert str(done.exception) == f"{REFUSED['message']}\n{REFUSED['hint']}"


def test_without_a_server_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    done = run("list")
    assert isinstance(done.exception, ServeError)
    assert done.exception.message == f"No server listens at {tmp_path / 'admin.sock'}."
    assert "tightrope serve" in done.exception.hint


def test_something_else_at_the_socket_is_recognised(admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Admin, "_answer", lambda self, *_: self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nhello"))
    assert "is no tightrope server" in str(run("list", "--admin", admin[0]).exception)


def test_a_share_that_is_none_is_told_before_anybody_is_asked(admin) -> None:
    done = run("deploy", "minilm", "new.bundle", "--canary", "ten", "--admin", admin[0])
    assert "--canary cannot be read" in str(done.exception) and not admin[1]
