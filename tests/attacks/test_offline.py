"""Not one outgoing connection: a server with everything switched on, in a process whose every socket is watched."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

WATCHED = """
import json, sys, urllib.request
seen = []

def watch(event, given):
    if event in ("socket.connect", "socket.sendto"):
        seen.append(str(given[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        seen.append(f"name {given[0]}")

sys.addaudithook(watch)
import tightrope

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()

with tightrope.serve(sys.argv[1], memory="300MB", state=sys.argv[2]) as server:
    assert b"embedding" in ask("/v1/embeddings", {"input": "the cat"})
    assert b"[" in ask("/embed", {"inputs": "the cat"})
    for path in ("/health/ready", "/metrics", "/openapi.json", "/", "/v2"):
        assert ask(path)
print(json.dumps(seen))
"""


def test_a_server_never_speaks_first(native_bundle, tmp_path):
    native_bundle(tmp_path / "tiny.bundle")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path / "tiny.bundle"), str(tmp_path / "state")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) >= 7, "the watch sees the test's own requests"
    assert all("127.0.0.1" in item for item in seen), seen
