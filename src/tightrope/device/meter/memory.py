"""The memory of this process, as the system counts it.

Linux keeps the peak itself (`VmHWM`), so nothing is missed between two looks. Pages of a file that is mapped
count as soon as they are touched, also when other processes share them; `shared_fairly_bytes` (PSS) divides those.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

PROC_SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident bytes of one process: the most it ever had, what it has now, and now with shared pages divided.

    `None` where the system does not tell.
    """

    peak_bytes: int | None
    resident_bytes: int | None
    shared_fairly_bytes: int | None


def read(proc: Path = PROC_SELF) -> Memory:
    """The memory of this process. `proc` is where a test puts files of its own."""
    status = _kilobytes(proc / "status")
    if "VmHWM" not in status:
        return Memory(peak_bytes=_peak_by_resource(), resident_bytes=status.get("VmRSS"), shared_fairly_bytes=None)
    return Memory(
        peak_bytes=status["VmHWM"],
        resident_bytes=status.get("VmRSS"),
        shared_fairly_bytes=_kilobytes(proc / "smaps_rollup").get("Pss"),
    )


def resident_bytes(proc: Path = PROC_SELF) -> int | None:
    """What this process has now, by one short read; `None` where the system does not tell."""
    return _kilobytes(proc / "status").get("VmRSS")


def _kilobytes(path: Path) -> dict[str, int]:
    """Lines like `VmHWM:   123 kB`, in bytes; empty if the file cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def _peak_by_resource() -> int | None:
    """The peak as POSIX tells it: in bytes on macOS, in kilobytes elsewhere."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
