"""Proof elsewhere: the texts of a bundle asked of a worker on another device, processor or instruction set.

A command starts the worker, and what the command leads to is where the proof holds: `ssh pi tightrope bench-worker`, an
emulated processor, or this one held to an older instruction set.
"""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device import engine as native
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.protocol import take
from tightrope.device.proof import Proof, judge, texts
from tightrope.errors import BenchError, MissingExtraError, TightropeError

EMULATOR = "qemu-aarch64-static"
ROOT = "TIGHTROPE_ARM64_ROOT"
"""The environment variable that names a folder with Python and tightrope for 64-bit ARM."""
CPUS = {
    "cortex-a72": "NEON without dot product, as in a Raspberry Pi 4",
    "neoverse-n1": "with dot product, as in a Raspberry Pi 5 or a Jetson Orin",
    "max,sve=off": "with matrix products, as in newer phones",
}
"""The processors that are emulated; SVE is off because numpy's products fail in some versions of QEMU with it."""
LIMIT_S = 120.0
_FIXED = "TIGHTROPE_ISA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a bundle is proved: what it is called, and the command that starts a worker there."""

    name: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a proof: what was found, or why nothing was."""

    place: str
    proof: Proof | None = None
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bundle answers there as it did where it was made."""
        return self.proof is not None and self.proof.holds


def prove_at(source: Bundle, place: Place, *, threads: int = 1, engine: str | None = None) -> Outcome:
    """Ask the bundle's own texts there. A crash, a hang or an engine that is missing there is an outcome, not raised.

    Raises `BundleError` if the bundle holds no proof.
    """
    asked = texts(source)
    try:
        with Bench(place.command, limit_s=LIMIT_S, name=place.name) as bench:
            wanted: dict[str, Any] = {"path": bench.bring(source), "threads": threads, "cores": None}
            told = bench.request("open", wanted | ({"engine": engine} if engine else {}))[0]
            rows = np.concatenate([bench.answers([_spoken(item)])[0] for item in asked])
            return Outcome(place=place.name, proof=judge(source, rows, take(told, "engine", str)))
    except TightropeError as error:
        return Outcome(place=place.name, error=f"{error.message} {error.hint}")


def _spoken(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item


def instruction_sets() -> tuple[Place, ...]:
    """This machine, held to each instruction set that the native engine knows and this processor has."""
    worker = shlex.join([sys.executable, "-m", "tightrope", "bench-worker"])
    return tuple(Place(name=isa, command=f"env {_FIXED}={isa} {worker}") for isa in native.isas())


def emulated(root: Path | None = None) -> tuple[Place, ...]:
    """64-bit ARM processors under QEMU, with the Python in `root` or where the environment says.

    Raises `MissingExtraError` that says how to get what is missing.
    """
    if shutil.which(EMULATOR) is None:
        raise MissingExtraError(
            f"There is no {EMULATOR} here.", hint="Install it; on Debian and Ubuntu: apt-get install qemu-user-static"
        )
    found = root or (Path(os.environ[ROOT]) if ROOT in os.environ else None)
    if found is None:
        raise MissingExtraError(
            "There is no Python for 64-bit ARM to run under QEMU.",
            hint=f"Make one with `engine/arm.sh root` of tightrope's sources, and name it: --root FOLDER or {ROOT}.",
        )
    python = next(iter(sorted(found.glob("usr/bin/python3.*"), key=lambda path: len(path.name))), None)
    site = found / "opt" / "tightrope"
    if python is None or not (site / "tightrope").is_dir():
        raise BenchError(
            f"{found} holds no Python with tightrope for 64-bit ARM.",
            hint="It needs usr/bin/python3.x and opt/tightrope/tightrope: `engine/arm.sh root` makes both.",
        )
    words = [str(python), "-m", "tightrope", "bench-worker"]
    return tuple(
        Place(
            name=cpu.partition(",")[0],
            command=shlex.join(["env", f"PYTHONPATH={site}", EMULATOR, "-cpu", cpu, "-L", str(found), *words]),
        )
        for cpu in CPUS
    )
