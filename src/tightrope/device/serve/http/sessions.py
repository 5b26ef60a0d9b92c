"""Who logged in to the dashboard: a random cookie stands for a key, in memory only and for a bounded time."""

import secrets
import time
from collections.abc import Callable

from tightrope.device.serve.keys import Key

COOKIE = "tightrope"
LASTS_S = 12 * 3600.0
MOST = 256


class Sessions:
    """Cookies and the keys that they stand for; the oldest goes when there are too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[Key, float]] = {}

    def begin(self, key: Key) -> str:
        """A new cookie for a key."""
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        cookie = secrets.token_urlsafe(32)
        self._known[cookie] = (key, self._clock() + LASTS_S)
        return cookie

    def key(self, cookie: str) -> Key | None:
        """The key that a cookie stands for, if it still does."""
        key, until = self._known.get(cookie, (None, 0.0))
        return key if self._clock() < until else None

    def end(self, cookie: str) -> None:
        """Forget a cookie."""
        self._known.pop(cookie, None)
