"""A worker for engines that run elsewhere only: what stands in for them answers instead.

It is a bench's worker in all else, so that whatever a stand-in does stays in its process.
"""

import shlex
import sys
from typing import Any

from tightrope.device.classifier import open_any
from tightrope.device.meter.verbs import Worker
from tightrope.device.meter.worker import main
from tightrope.workshop.verify import stand_in

COMMAND = shlex.join([sys.executable, "-m", "tightrope.workshop.comparison.interpreter"])


def opened(path: str, threads: int, engine: str | None) -> Any:
    """The bundle, opened by the stand-in of its engine."""
    return open_any(path, threads=threads, engine=engine, runtime=stand_in.runtime)


if __name__ == "__main__":
    raise SystemExit(main(Worker(opener=opened)))
