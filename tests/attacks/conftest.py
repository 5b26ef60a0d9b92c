"""What attacks share: models to spoil, raw sockets to a real server, and a server whose engine takes its time."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest

from tightrope.workshop.reference import reference

collect_ignore = ["deploy_steps.py"]
"""A program for a library of its own, not a test."""


@pytest.fixture
def victim(tmp_path, encoder_folder) -> Path:
    """The tiny BERT as a folder, to be spoilt."""
    return encoder_folder(tmp_path / "victim")


@pytest.fixture
def victim_onnx(victim, tiny_bert) -> Path:
    """The tiny BERT as an ONNX file, to be spoilt."""
    onnx.save(reference(tiny_bert), victim / "model.onnx")
    return victim / "model.onnx"


@pytest.fixture
def refused():
    """`refused(do)`: run it and expect an error of ours with two lines and nothing else; returns its text."""
    from tightrope.errors import TightropeError

    def check(do) -> str:
        with pytest.raises(TightropeError) as raised:
            do()
        lines = str(raised.value).splitlines()
        assert len(lines) == 2 and all(lines), lines
        return str(raised.value)

    return check


class Wire:
    """Raw bytes to a server, and what comes back. `server`: a running one, or its host and port."""

    TEXT, BYTES, CLOSE, PING, PONG = 1, 2, 8, 9, 10
    """Kinds of a WebSocket's frames."""

    def connect(self, server: Any, first: bytes = b"", *, room: int | None = None, source: str = "") -> socket.socket:
        """A connection that has sent its first bytes; `room` bounds what it takes without reading."""
        client = socket.socket()
        if room is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        if source:
            client.bind((source, 0))
        client.settimeout(20)
        client.connect(self.place(server))
        client.sendall(first)
        return client

    def place(self, server: Any) -> tuple[str, int]:
        """Where it listens."""
        if isinstance(server, tuple):
            return server
        host, _, port = (server if isinstance(server, str) else server.url).removeprefix("http://").partition(":")
        return host, int(port)

    def everything(self, client: socket.socket) -> bytes:
        """All that comes until the server closes."""
        parts = []
        try:
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def ask(self, server: Any, raw: bytes, *, source: str = "") -> bytes:
        """Send this, and take all that comes."""
        with self.connect(server, raw, source=source) as client:
            return self.everything(client)

    def get(self, path: str) -> bytes:
        """A request that ends its connection."""
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")

    def post(
        self, body: bytes, *headers: str, path: str = "/v1/embeddings", length: int | None = None, close: bool = True
    ) -> bytes:
        """A request with a body, which may lie about its length."""
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
        lines += [f"Content-Length: {len(body) if length is None else length}"]
        lines += ["Connection: close"] if close else []
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def status(self, answer: bytes) -> int:
        """The status of an answer."""
        assert answer.startswith(b"HTTP/1.1 "), answer[:80]
        return int(answer[9:12])

    def handshake(
        self, *headers: str, method: str = "GET", version: str = "HTTP/1.1", path: str = "/v1/live/search"
    ) -> bytes:
        """What asks for a WebSocket."""
        lines = [f"{method} {path} {version}", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def frame(self, kind: int, data: bytes = b"", *, first: int = 0x80, masked: bool = True) -> bytes:
        """One frame of a WebSocket, as clients send them."""
        length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
        head = bytes([first | kind, length[0] | (0x80 if masked else 0)]) + length[1:]
        return head + (b"\0\0\0\0" if masked else b"") + data

    def until(self, reached: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait for it."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture(scope="session")
def wire() -> Wire:
    """Raw bytes to a server, and what comes back."""
    return Wire()


@pytest.fixture
def slowed(native_bundle: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`with slowed(call_s, limits) as server:` each call of its engine takes so long; `server.calls` counts texts."""
    import tightrope
    from tightrope.device.serve import server as servers

    def opened(*given: Any, **named: Any) -> Any:
        model = open_safely(*given, **named)
        answer = model.answer

        def slow(feeds: Any) -> Any:
            time.sleep(slow.call_s)
            slow.calls += 1
            return answer(feeds)

        slow.call_s, slow.calls = 0.0, 0
        slows.append(slow)
        model.answer = slow
        return model

    slows: list[Any] = []
    open_safely = servers.open_safely
    monkeypatch.setattr(servers, "open_safely", opened)
    native_bundle(tmp_path / "tiny.bundle")

    @contextmanager
    def serving(call_s: float, limits: Any) -> Iterator[Any]:
        with tightrope.serve(tmp_path / "tiny.bundle", limits=limits, threads=1) as server:
            [server.slow] = slows
            server.slow.call_s = call_s
            yield server

    return serving
