"""The bench's side of the protocol: a worker in a process of its own, here or wherever a command reaches.

Every request has a deadline. A worker that crashes, hangs or speaks nonsense is a `BenchError` that says so, and its
whole process group is ended; it never takes the caller with it.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.meter import protocol
from tightrope.device.meter.clock import now
from tightrope.device.meter.pipes import CHUNK_BYTES, Incoming, Late, Outgoing
from tightrope.device.meter.protocol import Message, take
from tightrope.errors import BenchError

_ANSWERING = {"images": "classify", "pairs": "score", "texts": "embed"}
LOCAL = (sys.executable, "-m", "tightrope.device.meter.worker")
MOST_STRAY_LINES = 100
"""What a login shell may print before the worker answers for the first time."""
_GOODBYE_S = 2.0


class Bench:
    """A worker and the conversation with it. A context manager; leaving it ends the worker.

    `command` is what starts a worker that speaks on its standard input and output, such as
    `ssh pi tightrope bench-worker`; without one it is a process here. `limit_s` is how long one answer may take.
    `name` is what errors call it.
    """

    def __init__(self, command: str | None = None, *, limit_s: float = 30.0, name: str | None = None) -> None:
        self.is_here = command is None
        self.limit_s = limit_s
        self._name = name or ("The bench" if command is None else f"The bench {command!r}")
        self._said: deque[str] = deque(maxlen=5)
        self._over = False
        arguments = list(LOCAL) if command is None else _split(command)
        self.spawned_s = time.monotonic()
        try:
            self._process = subprocess.Popen(
                arguments,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that all of it can be ended at once, and Ctrl-C is ours alone
            )
        except (OSError, ValueError) as error:
            raise BenchError(f"{self._name} cannot be started: {error}.", hint="Check the command by hand.") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._outgoing = Outgoing(self._process.stdin)
        self._incoming = Incoming(self._process.stdout.fileno())
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.hello = self._greet()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _where: TracebackType | None) -> None:
        self.close(gently=kind is None)

    @property
    def process(self) -> int:
        """The number of the worker's process, or of the command that reaches it."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the worker is no more: it crashed, hung or spoke nonsense, or was closed."""
        return self._process.poll() is not None

    def close(self, *, gently: bool = True) -> None:
        """End the worker: with a goodbye if there is time for one."""
        try:
            if gently and self._process.poll() is None:
                self.request("bye", limit_s=_GOODBYE_S)
                self._process.wait(timeout=_GOODBYE_S)
        except (BenchError, subprocess.TimeoutExpired):
            pass  # it is ended either way
        finally:
            self._end()

    def request(
        self,
        verb: str,
        fields: Mapping[str, Any] = MappingProxyType({}),
        payload: bytes = b"",
        *,
        limit_s: float | None = None,
    ) -> tuple[Message, bytes]:
        """Ask and wait for the answer. Raises the worker's own error, or `BenchError` if there is no answer."""
        protocol.write(self._outgoing, {**fields, "verb": verb}, payload)
        answer, data = self._receive(verb, self.limit_s if limit_s is None else limit_s)
        protocol.raise_failure(answer)
        return answer, data

    def bring(self, source: Bundle) -> str:
        """Where the bundle lies for the worker; it is sent there if the worker can neither see it nor has it."""
        manifest = source.path / bundle.MANIFEST
        place = {"path": str(source.path.resolve()), "manifest": bundle.sha256_of(manifest), "digest": source.digest}
        found = self.request("find", place)[0].get("path")
        if isinstance(found, str):
            return found
        own = bundle.File(path=bundle.MANIFEST, size=manifest.stat().st_size, sha256=place["manifest"])
        for item in (own, *source.content.files, *source.attachments):
            self._send(source, item)
        return str(take(self.request("seal", {"digest": source.digest})[0], "path", str))

    def answers(self, inputs: Sequence[Any], prompt: str | None = None) -> tuple[NDArray[np.float32], float]:
        """The answers to texts (or pairs), float32 [n, width], and the seconds they took the worker."""
        first = inputs[0]
        kind = "images" if isinstance(first, bytes) else "pairs" if isinstance(first, tuple | list) else "texts"
        fields: dict[str, Any] = {kind: inputs}
        if prompt is not None:
            fields["prompt"] = prompt
        answer, data = self.request(_ANSWERING[kind], fields)
        rows, columns = take(answer, "rows", int), take(answer, "columns", int)
        if rows != len(inputs) or rows * columns * 4 != len(data):
            self._end()
            raise BenchError(
                f"{self._name} answered {len(data):,} bytes to {len(inputs)} inputs, as {rows} rows of {columns}.",
                hint="Update tightrope at both ends.",
            )
        return np.frombuffer(data, "<f4").reshape(rows, columns), float(take(answer, "seconds", float))

    def seconds(self, verb: str, inputs: Sequence[Any], *, limit_s: float | None = None, **fields: Any) -> list[float]:
        """What `time` or `throughput` answers: the seconds of each call, at least one."""
        answer, _ = self.request(verb, {"inputs": inputs, **fields}, limit_s=limit_s)
        seconds = take(answer, "seconds", list)
        if not seconds or not all(isinstance(item, float) and item > 0 for item in seconds):
            self._end()
            raise BenchError(f"{self._name} answered no times: {seconds!r:.80}", hint="Update tightrope at both ends.")
        return list(seconds)

    def _send(self, source: Bundle, item: bundle.File) -> None:
        fields = {"digest": source.digest, "name": item.path, "size": item.size, "sha256": item.sha256}
        with (source.path / item.path).open("rb") as stream:
            for offset in range(0, max(1, item.size), protocol.PIECE_BYTES):
                piece = stream.read(protocol.PIECE_BYTES)
                self.request("receive", {"offset": offset, **fields}, piece)

    def _greet(self) -> Message:
        """Say hello; a login shell may have its say before the worker does."""
        protocol.write(self._outgoing, {"verb": "hello"})
        for _ in range(MOST_STRAY_LINES):
            try:
                hello, _payload = self._receive("hello", self.limit_s, ends=False)
            except BenchError:
                if self._incoming.ended or self._process.poll() is not None:
                    raise
                continue
            if "tightrope_bench" in hello:
                break
        else:
            raise BenchError(
                f"{self._name} printed {MOST_STRAY_LINES} lines and no greeting.",
                hint="Let it start nothing but `tightrope bench-worker`.",
            )
        if hello["tightrope_bench"] != protocol.VERSION:
            raise BenchError(
                f"{self._name} speaks protocol {hello['tightrope_bench']!r:.20}, not {protocol.VERSION}.",
                hint="Use the same version of tightrope at both ends.",
            )
        return hello

    def _receive(self, verb: str, limit_s: float, *, ends: bool = True) -> tuple[Message, bytes]:
        """One message. After nonsense nobody can tell where the next one begins, so that it `ends` the worker."""
        self._incoming.deadline = now() + limit_s
        try:
            received = protocol.read(self._incoming)
        except Late:
            self._end()
            raise BenchError(
                f"{self._name} hung: it did not answer {verb!r} within {limit_s:g} s.", hint=self._last_words()
            ) from None
        except BenchError as error:
            if self._incoming.ended:
                raise self._crash(verb) from error
            if ends:
                self._end()
            raise
        if received is None:
            raise self._crash(verb)
        return received

    def _crash(self, verb: str) -> BenchError:
        try:
            code = self._process.wait(timeout=_GOODBYE_S)
        except subprocess.TimeoutExpired:
            code = 0
        self._end()
        how = f"ended with code {code}"
        if code < 0:
            number = -code
            names = {item.value: item.name for item in signal.Signals}
            how = f"was ended by {names.get(number, f'signal {number}')}"
        if code == -getattr(signal, "SIGKILL", 9):
            how += ", perhaps for want of memory"
        return BenchError(f"{self._name} crashed at {verb!r}: it {how}.", hint=self._last_words())

    def _last_words(self) -> str:
        said = " / ".join(self._said)
        return f"It last said: {said}" if said else "It said nothing on standard error."

    def _listen(self) -> None:
        """Keep the last lines of standard error; a line may be of any length."""
        assert self._process.stderr
        handle, rest = self._process.stderr.fileno(), b""
        while True:
            try:
                chunk = os.read(handle, CHUNK_BYTES)
            except OSError:
                chunk = b""
            lines = (rest + chunk).splitlines(keepends=True)
            rest = lines.pop()[-CHUNK_BYTES:] if chunk and lines and not lines[-1].endswith(b"\n") else b""
            self._said.extend(text for line in lines if (text := line.decode(errors="replace").strip()[:300]))
            if not chunk:
                return

    def _end(self) -> None:
        """End the worker and whatever it started; once, since its number may be another's after that."""
        if self._over:
            return
        self._over = True
        process = self._process
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except (ProcessLookupError, PermissionError):
            pass  # nothing of it is left
        process.wait()
        self._listener.join(timeout=1)
        self._outgoing.stop()
        self._incoming.stop()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def _split(command: str) -> list[str]:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise BenchError(f"The bench {command!r} cannot be read: {error}.", hint="Close the quotes.") from error
    if not arguments:
        raise BenchError(
            "The bench's command is empty.", hint="Write it as in: --bench 'ssh pi tightrope bench-worker'."
        )
    return arguments
