"""The clock: seconds that only ever go forward, and how long this process has lived."""

import os
import time
from collections.abc import Callable
from pathlib import Path

Clock = Callable[[], float]
"""Seconds from an arbitrary start. Tests pass a `FakeClock`; everything else passes `now`."""

now: Clock = time.perf_counter

_LOADED = time.monotonic()


def since_process_start(stat: Path = Path("/proc/self/stat")) -> float:
    """Seconds since the system started this process, its interpreter's own start included.

    Linux tells to a hundredth of a second (proc(5), field 22). Elsewhere the clock starts when this module is loaded.
    """
    since_loaded = time.monotonic() - _LOADED
    try:
        started = int(stat.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return since_loaded
    # A sandbox may state a start time on another clock than its own: then it is of no use.
    return seconds if since_loaded <= seconds < since_loaded + 60 else since_loaded
