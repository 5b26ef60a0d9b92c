"""The int8 limit of the core: how fast it could multiply if nothing else had to be done, and the work of the model.

A processor with matrix tiles has two limits: what its vectors can do, and what its tiles can. Both are told.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import BenchError

SOURCE = Path(__file__).parent / "limit.c"
LAYERS, WIDTH, INNER = 6, 384, 1536
MACS_PER_TOKEN = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
"""Multiply-adds of the linear layers for each token: 10.617 million."""
MACS_PER_PAIR = LAYERS * 2 * WIDTH
"""Multiply-adds of attention for each pair of tokens of one text: 4,608."""


def macs(lengths: Sequence[int]) -> int:
    """Multiply-adds for texts of these token counts, none of them padded.

    >>> macs([12])
    128065536
    """
    return sum(MACS_PER_TOKEN * length + MACS_PER_PAIR * length * length for length in lengths)


@dataclass(frozen=True, slots=True)
class Limit:
    """A compiled program that measures the limit."""

    program: Path

    def measure(self) -> dict[str, float]:
        """Int8 multiply-adds a second by the instructions used, right now on this core."""
        answer = subprocess.run([str(self.program), "40"], capture_output=True, text=True, check=True)
        return {name: float(rate) * 1e9 for name, rate in map(str.split, answer.stdout.splitlines())}


def fastest(per_s: Mapping[str, float]) -> str:
    """The instructions that multiply fastest.

    >>> fastest({"avx512-vnni": 4e11, "amx-int8": 3e12})
    'amx-int8'
    """
    return max(per_s, key=per_s.__getitem__)


def compile_limit(work: Path) -> Limit:
    """Compile it for this very processor. Raises `BenchError` without a C compiler."""
    program = work / "limit"
    program.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O3", "-march=native", str(SOURCE), "-o", str(program)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise BenchError(f"limit.c could not be compiled: {reason}", hint="Install a C compiler called cc.") from error
    return Limit(program)
