"""A server as a process: started on a core of its own, watched from outside, ended. Memory is of all its processes."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.documents import ROOT
from benchmarks.peers.conversation import quiet_environment
from tightrope.errors import BenchError

READY_WITHIN_S = 120.0


def pinned(core: int | None) -> None:
    """Keep this process on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def cores() -> tuple[int, int]:
    """A core for the server, and one for those who ask it: the last, and the one before."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[-2] if len(allowed) > 1 else allowed[-1]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """A context manager: entered when the server is ready, and left when its processes are gone."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        ready: str,
        log: Path,
        core: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.ready_s = 0.0
        """From starting the process to its first answer that says it is ready."""
        self.peak_bytes = 0
        self._ready = f"http://127.0.0.1:{port}{ready}"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._stop = threading.Event()
        start = time.perf_counter()
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**quiet_environment(), **(environ or {})},
                start_new_session=True,
                preexec_fn=lambda: pinned(core),
            )
        self._started = start

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watch.join()
        self._end()

    def stop(self) -> None:
        """End it now, as its owner would, so that it writes what it has to."""
        self.process.terminate()
        self.process.wait(30)

    def memory(self) -> int:
        """Resident bytes of all its processes, pages that they share counted once."""
        return sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in tree(self.process.pid)) * 1024

    def resident(self) -> int:
        """Resident bytes of the first process."""
        return _kilobytes(self.process.pid, "status", "VmRSS:") * 1024

    def peak(self) -> int:
        """The most it ever had: as the kernel noted for one process, as was seen for several."""
        if len(tree(self.process.pid)) == 1:
            return _kilobytes(self.process.pid, "status", "VmHWM:") * 1024
        return self.peak_bytes

    def get(self, path: str) -> str:
        """What it answers to a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def _wait(self) -> None:
        while time.perf_counter() - self._started < READY_WITHIN_S:
            if self.process.poll() is not None:
                break
            with suppress(OSError, urllib.error.HTTPError), urllib.request.urlopen(self._ready, timeout=5):
                self.ready_s = time.perf_counter() - self._started
                return
            time.sleep(0.005)
        raise BenchError(f"{self.process.args[:3]} did not become ready.", hint=f"See {self._log}.")

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            self.peak_bytes = max(self.peak_bytes, self.memory())

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        with suppress(ProcessLookupError):  # helpers that outlived it
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def tree(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def _kilobytes(pid: int, file: str, field: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0
