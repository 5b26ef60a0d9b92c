"""What happens, as JSON: one line an event on standard error, which the system's own journal rotates and keeps.

Texts of users and keys have no place here, so fields are counts, times, names and ids; a word from outside is cut and
escaped to ASCII, so that no line feed, no escape sequence of a terminal and no quote of it reaches the log as such. A
flood is thinned: beyond a rate events are counted, and their number is said once there is room again. A reader that
does not read loses events; no request waits for it.
"""

import json
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
VALUE_CHARACTERS = 256
RATE_PER_S = 50.0
BURST = 200.0
LINE_BYTES = 3072
"""Less than the 4,096 that a pipe takes at once: a line is written whole or not at all."""
FORBIDDEN = frozenset(
    ("text", "texts", "input", "inputs", "query", "body", "key", "authorization", "cookie", "password")
)
"""Fields that would hold what must not be kept. To use one is our own mistake."""

Field = str | int | float | bool | None


class Log:
    """Writes events to a stream. Safe for use from any thread; a stream that fails loses events, never a request."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        level: str = "info",
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert level in LEVELS
        self._stream = stream
        self._least = LEVELS.index(level)
        self._wall = wall
        self._clock = clock
        self._lock = threading.Lock()
        self._room = BURST
        self._seen = clock()
        self._dropped = 0

    def event(self, name: str, *, level: str = "info", **fields: Field) -> None:
        """Write one event. An error is never thinned out of the log before an event that is not one."""
        assert not FORBIDDEN.intersection(fields), f"{name} would log {FORBIDDEN.intersection(fields)}"
        if LEVELS.index(level) < self._least:
            return
        with self._lock:
            dropped = self._admit(spare=0.0 if level == "error" else BURST / 10)
            if dropped is None:
                return
            if dropped:
                self._write(line(self._wall(), "warning", "log.dropped", {"events": dropped}))
            self._write(line(self._wall(), level, name, fields))

    def _admit(self, spare: float) -> int | None:
        """How many events were dropped before this one; `None` if it is dropped as well."""
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._seen) * RATE_PER_S)
        self._seen = now
        if self._room < 1 + spare:
            self._dropped += 1
            return None
        self._room -= 1
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stderr
        try:
            if not _takes(stream):
                self._dropped += 1
                return
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):  # a full disk, a closed pipe: the service goes on without its log
            self._dropped += 1


def _takes(stream: TextIO) -> bool:
    """Whether a line can be written without waiting for a reader."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def line(wall_s: float, level: str, name: str, fields: dict[str, Field]) -> str:
    """One event as one line of ASCII.

    >>> line(0.0, "info", "request", {"status": 200, "model": "a\\r\\nb"})
    '{"time":"1970-01-01T00:00:00.000Z","level":"info","event":"request","status":200,"model":"a\\\\r\\\\nb"}\\n'
    """
    entry: dict[str, Field] = {"time": _stamp(wall_s), "level": level, "event": name}
    room = LINE_BYTES
    for key, value in fields.items():
        plain = _plain(value)
        room -= len(json.dumps({key: plain}))
        if room < 0:
            entry["cut"] = True
            break
        entry.setdefault(key, plain)
    return json.dumps(entry, separators=(",", ":"), allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def _stamp(wall_s: float) -> str:
    whole, milliseconds = divmod(round(wall_s * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def _plain(value: Field) -> Field:
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else str(value)
    text = str(value)
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


_log = Log()


def event(name: str, *, level: str = "info", **fields: Field) -> None:
    """Write one event to the process's log."""
    _log.event(name, level=level, **fields)


def write_to(log: Log) -> Log:
    """Let `event` write to another log from now on; gives back the one before."""
    global _log
    before, _log = _log, log
    return before
