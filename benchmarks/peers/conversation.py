"""Talking with a worker: start it, ask, and notice when it hangs or dies."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

from benchmarks.peers.candidates import Candidate
from benchmarks.peers.environments import python_of
from tightrope.errors import BenchError

ROOT = Path(__file__).parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
TIME_LIMIT_S = 600.0


class Conversation:
    """A running worker. A context manager: leaving it ends the process."""

    def __init__(self, work: Path, candidate: Candidate) -> None:
        self.candidate = candidate
        self._log = work / "logs" / f"{candidate.name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        python = python_of(work, candidate.environment) if candidate.environment else _our_python()
        command = [str(python), "-m", "benchmarks.peers.worker", candidate.adapter, json.dumps(dict(candidate.options))]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=quiet_environment() | dict(candidate.environ),
                text=True,
                start_new_session=True,  # a session has a priority of its own
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises `BenchError` with the worker's own words."""
        assert self._process.stdin and self._process.stdout
        watch = threading.Timer(TIME_LIMIT_S, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        name = self.candidate.name
        if not line:
            raise BenchError(f"{name} died or hung at {do!r}: {self._last_words()}.", hint=f"See {self._log}.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{name} failed at {do!r}: {answer['error']}.", hint=f"See {self._log}.")
        return answer

    def close(self) -> None:
        """End the worker and wait for it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _our_python() -> Path:
    import sys

    return Path(sys.executable)


def quiet_environment() -> dict[str, str]:
    """One thread each, no network, and nothing of the caller's Python settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return kept | dict.fromkeys(ONE_THREAD, "1") | quiet
