"""Bearer keys: who may ask, how fast, and how much at once.

A key is 32 random bytes; the file holds its SHA-256 only. That is enough for a random secret of 256 bits, which nobody
can guess, while a slow hash would let anybody keep the server busy. The file is read again when it changes, so a key
that is revoked is refused within a second. Who changes it holds a lock beside it: two changes at once are both made.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tightrope import places
from tightrope.errors import DataError, OutputError, RefusedError, ServeError, UnknownNameError

PREFIX = "tr_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FRESH_S = 1.0
"""How long a look at the file is good for."""
MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as the file knows it. `rate`: requests a second, `in_flight`: requests at once; 0 for any number."""

    name: str
    sha256: str
    rate: float = 0.0
    in_flight: int = 0
    created: str = ""


def new(path: Path, name: str, *, rate: float = 0.0, in_flight: int = 0, now: Callable[[], float] = time.time) -> str:
    """Add a key to the file, which is made if need be; returns the key, which is told this once.

    Raises `DataError` for a name that is taken or cannot be one, `OutputError` if the file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"{name!a:.70} is no name for a key.", hint="Use letters, digits, '.', '_' and '-'.")
    if not rate >= 0 or rate == float("inf") or in_flight < 0:
        raise DataError(f"A key with {rate} requests a second and {in_flight} at once.", hint="Give zero or more.")
    secret = PREFIX + secrets.token_urlsafe(32)
    day = time.strftime("%Y-%m-%d", time.gmtime(now()))
    with suppress(OSError):  # what stands in the way is said when the lock is taken
        path.parent.mkdir(parents=True, exist_ok=True)
    with _changing(path):
        keys = read(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise DataError(f"There is a key {name!r} already.", hint=f"tightrope key revoke {name}")
        if len(keys) >= MOST:
            raise DataError(f"{path} holds {MOST} keys, which is the most.", hint="Revoke some.")
        _write(path, (*keys, Key(name=name, sha256=_hash(secret), rate=rate, in_flight=in_flight, created=day)))
    return secret


def revoke(path: Path, name: str) -> None:
    """Take a key out of the file. Raises `UnknownNameError` if it is not there."""
    with _changing(path):
        keys = read(path)
        if all(key.name != name for key in keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise UnknownNameError(f"There is no key {name!a:.70}.", hint=f"Known: {known}.")
        _write(path, tuple(key for key in keys if key.name != name))


def read(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises `ServeError` if it cannot be read, or if others may read it."""
    try:
        if path.stat().st_mode & 0o027:  # a group may read it: so secrets are handed into containers
            raise ServeError(f"{path} can be read by others.", hint=f"chmod 600 {path}")
        found = json.loads(path.read_bytes())
        keys = tuple(Key(**entry) for entry in found["keys"])
    except OSError as error:
        raise ServeError(
            f"{path} cannot be read: {error.strerror}.", hint="Make one: tightrope key new NAME --key-file PATH"
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ServeError(
            f"{path} holds no keys.", hint="Make it anew: tightrope key new NAME --key-file PATH"
        ) from error
    if not all(_is_whole(key) for key in keys):
        raise ServeError(f"{path} holds a key that is none.", hint="Make it anew.")
    return keys


def _is_whole(key: Key) -> bool:
    texts = isinstance(key.name, str) and isinstance(key.sha256, str) and isinstance(key.created, str)
    return (
        texts
        and re.fullmatch(r"[0-9a-f]{64}", key.sha256) is not None
        and isinstance(key.rate, int | float)
        and isinstance(key.in_flight, int)
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One change at a time, by whichever process. The lock is a file of its own: `path` itself is replaced."""
    beside = path.with_name(f".{path.name}.lock")
    try:
        lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror}.", hint="Choose another --key-file.")


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Aside, to the disk, and in place: the file is the old one or the new one, and never anybody else's to read."""
    text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from the first moment
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(path)
            places.sync(path.parent)  # a revocation outlives a power cut
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


@dataclass(slots=True)
class _Use:
    """What a key has under way, and the requests that it may still make at once (a token bucket)."""

    running: int = 0
    left: float = 1.0
    seen_s: float = field(default=0.0)


class Keys:
    """The keys of a running server. Used by the network's loop alone."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._looked_s = clock()
        self._stamp = self._stat()
        self._keys = read(path)
        if not self._keys:
            raise ServeError(f"{path} holds no keys.", hint="Make one: tightrope key new NAME --key-file PATH")

    def check(self, secret: str) -> Key | None:
        """The key that this is, or `None`. Every entry is compared, in a time that tells nothing."""
        self._refresh()
        given, found = _hash(secret), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found

    def is_current(self, key: Key) -> bool:
        """Whether a key that was good when somebody logged in still is."""
        self._refresh()
        return key in self._keys

    def begin(self, key: Key) -> None:
        """Count a request. Raises `RefusedError` (overloaded) if the key has used up what it may."""
        use = self._uses.setdefault(key.name, _Use(left=max(1.0, key.rate), seen_s=self._clock()))
        if key.in_flight and use.running >= key.in_flight:
            raise RefusedError(
                f"This key has {use.running} requests under way, as many as it may.",
                hint="Wait for one to end.",
                reason="overloaded",
                retry_after_s=0.1,
            )
        if key.rate:
            now = self._clock()
            use.left = min(max(1.0, key.rate), use.left + (now - use.seen_s) * key.rate)
            use.seen_s = now
            if use.left < 1:
                raise RefusedError(
                    f"This key may make {key.rate:g} requests a second.",
                    hint="Ask less often.",
                    reason="overloaded",
                    retry_after_s=(1 - use.left) / key.rate,
                )
            use.left -= 1
        use.running += 1

    def end(self, key: Key) -> None:
        """The request is answered."""
        self._uses[key.name].running -= 1

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked_s < FRESH_S:
            return
        self._looked_s = now
        stamp = self._stat()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._keys = read(self.path)
            except ServeError:
                self._keys = ()  # a file that is gone or broken lets nobody in

    def _stat(self) -> Any:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
