"""The bench's ends of a worker's pipes, each served by a thread, so that no worker can hold its bench up."""

import os
import threading
from queue import Empty, SimpleQueue
from typing import Any

from tightrope.device.meter.clock import now

CHUNK_BYTES = 65536
_MOST_WAITING = 64


class Late(Exception):
    """The deadline has passed."""


class Incoming:
    """A stream that is read by a thread, so that waiting for it can end at a deadline. Holds 4 MB at most."""

    def __init__(self, handle: int) -> None:
        self.deadline = float("inf")
        self._handle = handle
        self._chunks: SimpleQueue[bytes] = SimpleQueue()
        self._room = threading.Semaphore(_MOST_WAITING)
        self._buffer = bytearray()
        self._ended = self._stopped = False
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def readline(self, limit: int, /) -> bytes:
        """One line with its end, or what there is of it after `limit` bytes or at the end of the stream."""
        searched = 0
        while (found := self._buffer.find(b"\n", searched, limit)) < 0 and len(self._buffer) < limit:
            searched = len(self._buffer)
            if not self._more():
                break
        return self._take(found + 1 if found >= 0 else min(limit, len(self._buffer)))

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes, or fewer at the end of the stream."""
        while len(self._buffer) < size and self._more():
            pass
        return self._take(min(size, len(self._buffer)))

    @property
    def ended(self) -> bool:
        """Whether the other side has closed its end."""
        return self._ended

    def stop(self) -> None:
        """Let the thread end; it does so at the end of the stream at the latest."""
        self._stopped = True
        self._room.release()
        self._thread.join(timeout=1)

    def _more(self) -> bool:
        if self._ended:
            return False
        try:
            chunk = self._chunks.get(timeout=max(0.0, min(self.deadline - now(), threading.TIMEOUT_MAX)))
        except Empty:
            raise Late from None
        self._room.release()
        self._ended = not chunk
        self._buffer += chunk
        return bool(chunk)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _pump(self) -> None:
        chunk = b"."
        while chunk and not self._stopped:
            try:
                chunk = os.read(self._handle, CHUNK_BYTES)
            except OSError:
                chunk = b""
            self._room.acquire()
            self._chunks.put(chunk)


class Outgoing:
    """A stream that is written by a thread: a worker that does not listen cannot hold us up."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def write(self, data: bytes, /) -> None:
        """Put bytes in line."""
        self._waiting.put(data)

    def flush(self) -> None:
        """Nothing to do: the thread writes as soon as it can."""

    def stop(self) -> None:
        """Let the thread end."""
        self._waiting.put(None)
        self._thread.join(timeout=1)

    def _pump(self) -> None:
        while (data := self._waiting.get()) is not None:
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except (OSError, ValueError):
                return  # the worker is gone: whoever waits for its answer learns why
