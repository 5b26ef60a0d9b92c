"""This machine: what it is, what its processor can do, and on which cores a measurement should run.

It states what the system tells and nothing more: an instruction set that is not named here was not found, which on
Windows means that nobody looked.
"""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

_ISA = {
    "sse4_2": "sse4_2",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
"""What Linux calls an instruction set that matters to small arithmetic, and what targets call it."""

_MAC_ISA = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.neon": "neon",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
}

_ARM_PARTS = {
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
"""Part numbers of Arm's own cores, as the register MIDR_EL1 states them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine as it describes itself. `cores` are those that this process may use."""

    system: str
    architecture: str
    processor: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int | None


def this_machine(root: Path = ROOT) -> Machine:
    """The machine that this runs on; `root` is where a test puts a `/proc` of its own."""
    cpuinfo = _fields(_text(root / "proc/cpuinfo"))
    isa = _isa(cpuinfo)
    processor = _processor(cpuinfo)
    if sys.platform == "darwin" and not cpuinfo:
        isa = tuple(sorted({name for key, name in _MAC_ISA.items() if _sysctl(key) == "1"}))
        processor = _sysctl("machdep.cpu.brand_string") or processor
    return Machine(
        system=platform.system(),
        architecture=architecture(platform.machine()),
        processor=processor,
        isa=isa,
        cores=len(allowed_cores()) or os.cpu_count() or 1,
        memory_bytes=_memory(root),
    )


def architecture(machine: str) -> str:
    """The name that bundles and targets use: Windows and macOS have words of their own.

    >>> architecture("AMD64"), architecture("arm64"), architecture("armv7l")
    ('x86_64', 'aarch64', 'armv7l')
    """
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine)


def saturates(machine: Machine) -> bool:
    """Whether products of unsigned and signed bytes are added in 16 bits, two by two: x86-64 without VNNI.

    >>> from dataclasses import replace
    >>> here = Machine(system="Linux", architecture="x86_64", processor="", isa=("avx2",), cores=1, memory_bytes=None)
    >>> saturates(here), saturates(replace(here, isa=("avx2", "avx_vnni")))
    (True, False)
    >>> saturates(replace(here, architecture="aarch64"))
    False
    """
    return machine.architecture == "x86_64" and not {"avx512_vnni", "avx_vnni"}.intersection(machine.isa)


def allowed_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may use; empty where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def pin(cores: tuple[int, ...]) -> bool:
    """Keep every thread of this process on these cores, also those that an engine moved elsewhere.

    Returns whether the system did so.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        return False
    try:
        os.sched_setaffinity(0, cores)
        for task in Path("/proc/self/task").iterdir():
            _pin_thread(int(task.name), cores)
    except OSError:
        return False
    return set(os.sched_getaffinity(0)) == set(cores)


def _pin_thread(thread: int, cores: tuple[int, ...]) -> None:
    with suppress(ProcessLookupError):  # it may have ended between the listing and now
        os.sched_setaffinity(thread, cores)


def quietest_cores(
    count: int, root: Path = ROOT, wait: Callable[[], None] = lambda: time.sleep(0.1)
) -> tuple[int, ...]:
    """Of the cores that this process may use, the `count` that were idle most during `wait`; of equals the last.

    The first core also serves interrupts, so that a tie goes to the others. All of them if there are no more.
    """
    cores = allowed_cores()
    if len(cores) <= count:
        return cores
    before = _idle_ticks(root)
    wait()
    after = _idle_ticks(root)
    by_idleness = sorted(cores, key=lambda core: (after.get(core, 0) - before.get(core, 0), core))
    return tuple(sorted(by_idleness[-count:]))


def _idle_ticks(root: Path) -> dict[int, int]:
    """Ticks that each core has been idle, from proc(5) `/proc/stat`: the fourth and fifth number of its line."""
    lines = re.findall(r"^cpu(\d+) \d+ \d+ \d+ (\d+) (\d+)", _text(root / "proc/stat"), re.MULTILINE)
    return {int(core): int(idle) + int(waiting) for core, idle, waiting in lines}


def _isa(cpuinfo: Mapping[str, str]) -> tuple[str, ...]:
    flags = f"{cpuinfo.get('flags', '')} {cpuinfo.get('Features', '')}".split()
    return tuple(sorted({_ISA[flag] for flag in flags if flag in _ISA}))


def _processor(cpuinfo: Mapping[str, str]) -> str:
    """The name on the box, or Arm's name of the core, or whatever the platform has."""
    is_arm = cpuinfo.get("CPU implementer") == "0x41"
    part = _ARM_PARTS.get(cpuinfo.get("CPU part", "").lower()) if is_arm else None
    board = cpuinfo.get("Model") or cpuinfo.get("Hardware")
    if part:
        return f"{part} ({board})" if board else part
    return cpuinfo.get("model name") or board or platform.processor() or "unknown"


def _memory(root: Path) -> int | None:
    """What this process can have: the machine's memory, or less if its control group is limited."""
    total = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if total is None:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None
    limits = [int(total[1]) * 1024]
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _text(root / name).strip()
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def _fields(text: str) -> dict[str, str]:
    """`name : value` lines; of several cores the last one counts (the big one of an Arm pair)."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
