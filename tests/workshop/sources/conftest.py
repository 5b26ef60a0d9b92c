"""A package index and a hub on loopback: real servers that pip and huggingface_hub talk to."""

import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the server's `answer(path)`: a status, headers and a body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, headers, body = self.server.answer(unquote(urlsplit(self.path).path))
        self.server.seen.append(f"{self.command} {self.path}")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def serving(answer):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.answer, server.seen = answer, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class Hub:
    """The routes of the hub that a snapshot needs, for the repositories `models`: name → folder."""

    def __init__(self):
        self.models: dict[str, Path] = {}
        self.extra: list[str] = []
        self.server = serving(self.answer)
        self.url = self.server.url

    @property
    def seen(self):
        return self.server.seen

    def answer(self, path):
        for name, folder in self.models.items():
            files = {str(item.relative_to(folder)): item for item in sorted(folder.rglob("*")) if item.is_file()}
            if path in (f"/api/models/{name}", *(f"/api/models/{name}/revision/{r}" for r in ("main", "v1", COMMIT))):
                siblings = [{"rfilename": file} for file in files]
                return self.json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
            if path.startswith(f"/api/models/{name}/revision/"):
                return self.missing("RevisionNotFound")
            if path.startswith(f"/api/models/{name}/tree/"):
                listed = [self.entry(file, item) for file, item in files.items()]
                listed += [{"type": "file", "path": file, "size": 2, "oid": "0" * 40} for file in self.extra]
                return self.json(listed)
            if path.startswith(f"/{name}/resolve/"):
                file = path.removeprefix(f"/{name}/resolve/").partition("/")[2]
                return self.file(files[file]) if file in files else self.missing("EntryNotFound")
        return self.missing("RepoNotFound")

    @staticmethod
    def entry(file, item):
        digest = hashlib.sha1(item.read_bytes(), usedforsecurity=False).hexdigest()
        return {"type": "file", "path": file, "size": item.stat().st_size, "oid": digest}

    @staticmethod
    def json(value):
        return 200, {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}, json.dumps(value).encode()

    @staticmethod
    def missing(code):
        return 404, {"X-Error-Code": code, "X-Error-Message": code}, b""

    @staticmethod
    def file(item):
        body = item.read_bytes()
        etag = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, body


@pytest.fixture
def hub():
    """A hub on loopback: `models` maps names to folders, `seen` holds the requests."""
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on loopback that pip is told to use: `index(wheel)` offers a wheel and gives its sha256."""
    wheels: dict[str, Path] = {}

    def answer(path):
        if path.startswith("/simple/"):
            project = path.removeprefix("/simple/").strip("/")
            names = [name for name in wheels if name.split("-")[0].replace("_", "-").lower() == project]
            if names:
                links = "".join(f'<a href="/files/{name}">{name}</a>' for name in names)
                return 200, {"Content-Type": "text/html"}, f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        if path.removeprefix("/files/") in wheels:
            return 200, {}, wheels[path.removeprefix("/files/")].read_bytes()
        return 404, {}, b""

    server = serving(answer)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)

    def offer(wheel: Path) -> str:
        wheels[wheel.name] = wheel
        return hashlib.sha256(wheel.read_bytes()).hexdigest()

    yield offer
    server.shutdown()
    server.server_close()


@pytest.fixture
def wheel_of(tmp_path):
    """`wheel_of(folder)`: a wheel that holds a model folder, and code that would be noticed if it ran."""

    def make(folder: Path, name: str = "a_model-1.0-py3-none-any.whl") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for item in sorted(folder.rglob("*")):
                if item.is_file():
                    archive.write(item, f"a_model/data/{item.relative_to(folder)}")
            archive.writestr("a_model/__init__.py", "raise SystemExit('imported')")
            archive.writestr("a_model/data/code.py", "raise SystemExit('imported')")
            archive.writestr("a_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-model\nVersion: 1.0\n")
            archive.writestr(
                "a_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr("a_model-1.0.dist-info/RECORD", "")
        return path

    return make
