"""One candidate in a process of its own: requests as JSON lines on standard input, answers on standard output.

    {"do": "open", "text": …}                                 → {"versions": …, "file_bytes": …, "batchings": […], …}
    {"do": "texts", "texts": […]}                             → {}
    {"do": "latency", "text": …, "seconds": 0.15}             → {"cpu_s": […], "wall_s": […], "engine_cpu_s": […]}
    {"do": "throughput", "batching": 256, "every": 1}         → {"cpu_s": …, "wall_s": …, "texts": …}
    {"do": "encode", "batching": 256, "out": "vectors.npy"}   → {}
    {"do": "memory"}                                          → {"peak_bytes": …}

It runs in the candidate's own environment, where neither tightrope nor any other peer is installed.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.peers.adapters import Peer, open_peer

WARM_CALLS, WARM_S = 3, 0.04
"""Calls that are not counted at the start of each block: the others used the caches in between."""
FEWEST_CALLS, MOST_CALLS = 5, 2000
ENGINE_SHARE = 1 / 3
"""Of the time for whole calls, again for the engine alone."""
PRIORITY = -15

Answer = dict[str, Any]


class Worker:
    """The candidate and the texts it was given."""

    def __init__(self, adapter: str, options: dict[str, Any], raised: bool) -> None:
        self._adapter = adapter
        self._options = options
        self._raised = raised
        self._peer: Peer | None = None
        self._texts: Sequence[str] = ()

    def answer(self, request: Answer) -> Answer:
        """Do what the request says."""
        method: Callable[..., Answer] = getattr(self, "do_" + request.pop("do"))
        return method(**request)

    def do_open(self, text: str) -> Answer:
        """Open the model and embed one text: what a cold start is."""
        self._peer = open_peer(self._adapter, self._options)
        self._peer.encode([text])
        return {
            "versions": dict(self._peer.versions),
            "file_bytes": sum(path.stat().st_size for path in self._peer.files),
            "batchings": list(self._peer.batchings),
            "peak_bytes": peak_bytes(),
            "cpu_s": time.process_time(),
            "priority": self._raised,
        }

    def do_texts(self, texts: Sequence[str]) -> Answer:
        """Remember the corpus."""
        self._texts = texts
        return {}

    def do_latency(self, text: str, seconds: float) -> Answer:
        """One text a call, for `seconds` of processor time at least; then without the tokenizer, if that can be."""
        one = [text]
        cpu, wall = _block(lambda: self.peer.encode(one), seconds)
        engine = self.peer.engine(text)
        return {
            "cpu_s": cpu,
            "wall_s": wall,
            "engine_cpu_s": _block(engine, ENGINE_SHARE * seconds)[0] if engine else [],
        }

    def do_throughput(self, batching: int, every: int) -> Answer:
        """Each `every`-th text of the corpus, once."""
        texts = self._texts[::every]
        cpu, wall = _timed(lambda: self.peer.encode_all(texts, batching))
        return {"cpu_s": cpu, "wall_s": wall, "texts": len(texts)}

    def do_encode(self, batching: int, out: str) -> Answer:
        """The corpus's vectors into a .npy file."""
        np.save(Path(out), np.asarray(self.peer.encode_all(self._texts, batching), np.float32), allow_pickle=False)
        return {}

    def do_memory(self) -> Answer:
        """The most memory that this process ever had resident."""
        return {"peak_bytes": peak_bytes()}

    @property
    def peer(self) -> Peer:
        """The open candidate."""
        assert self._peer is not None, "open comes first"
        return self._peer


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    try:  # getrusage would also count the parent's, as it was when it started this process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def raise_priority() -> bool:
    """Ask the system to run this process before its neighbours, so that they leave its caches alone; it may refuse."""
    try:
        os.nice(PRIORITY)
        group = Path("/proc/self/autogroup")  # Linux weighs sessions first, and processes inside their session only
        if group.exists():
            group.write_text(str(PRIORITY))
    except OSError:
        return False
    return True


def serve(worker: Worker, requests: TextIO, answers: TextIO) -> None:
    """Answer line by line until the requests end. A failure is an answer as well."""
    for line in requests:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _block(call: Callable[[], object], seconds: float) -> tuple[list[float], list[float]]:
    """Processor time and time passed of each call, after those that only fill the caches."""
    warm = 0.0
    for number in range(MOST_CALLS):
        if number >= WARM_CALLS and warm >= WARM_S:
            break
        warm += _timed(call)[0]
    cpu: list[float] = []
    wall: list[float] = []
    spent = 0.0
    while len(cpu) < FEWEST_CALLS or (spent < seconds and len(cpu) < MOST_CALLS):
        used, passed = _timed(call)
        cpu.append(used)
        wall.append(passed)
        spent += used
    return cpu, wall


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Processor time of all threads, and time passed, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """`python -m benchmarks.peers.worker ADAPTER OPTIONS`, the options as JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; only answers may reach standard output
    raised = raise_priority()
    serve(Worker(sys.argv[1], json.loads(sys.argv[2]), raised), sys.stdin, answers)


if __name__ == "__main__":
    main()
