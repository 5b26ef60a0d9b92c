"""Our server with an engine that takes a given time for every batch: `python -m benchmarks.serve.slow SECONDS FILE …`.

What follows is the command line of tightrope. When it ends it writes to FILE when each batch began and ended, by the
clock that all processes of a machine share (CLOCK_MONOTONIC, which `time.perf_counter` reads).
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tightrope.cli import main
from tightrope.device.runtimes import native
from tightrope.device.session import Array


def slowed(seconds: float, calls: list[tuple[float, float]]) -> None:
    """Let the native engine sleep instead of computing; what it gives are ones."""

    def run(self: native.NativeSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        began = time.perf_counter()
        time.sleep(seconds)
        port = self.outputs[0]
        rows = np.ones((len(feeds["offsets"]) - 1, int(port.shape[1])), np.float32)
        calls.append((began, time.perf_counter()))
        return {port.name: rows}

    native.NativeSession.run = run  # type: ignore[method-assign]


if __name__ == "__main__":
    seconds, file, *words = sys.argv[1:]
    calls: list[tuple[float, float]] = []
    slowed(float(seconds), calls)
    sys.argv[1:] = words
    try:
        main()
    finally:
        Path(file).write_text(json.dumps(calls))
