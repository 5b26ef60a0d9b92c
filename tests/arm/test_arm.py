"""The engine on ARM, under QEMU: as a processor with plain NEON, one with dot products, one with matrix products.

Answers only; what QEMU takes says nothing of the time on a device.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tightrope.device import engine
from tightrope.workshop.converted import convert
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Scheme, values
from tightrope.workshop.numerics.rounding import round_to_nearest

ROOT = Path(__file__).parents[2]
BEST = {"cortex-a72": "neon", "neoverse-n1": "neon-dotprod", "max": "neon-i8mm"}
LINES = ["the cat sat", "", "sat", "é 漢字 the", "cat " * 30, "the sat cat the"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory, qemu: None) -> Run:
    """`arm(command, *words, given, isa)`: runs engine/arm.sh on a build of its own."""
    place = os.environ.get("ARM_BUILD", str(tmp_path_factory.mktemp("arm")))

    def run(*words: object, given: str = "", isa: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ARM_BUILD": place} | ({"TIGHTROPE_ISA": isa} if isa else {})
        command = ["bash", ROOT / "engine" / "arm.sh", *map(str, words)]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, env=environment, timeout=1800, check=False
        )

    done = run("build")
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Network) -> Path:
    """The tiny BERT with all layers and their inputs on eight bits, as the engine's file."""
    weights, schemes = {}, {}
    for linear in tiny_bert.linears():
        rows = values(tiny_bert.weights[linear.weight])
        weights[linear.weight] = round_to_nearest(rows, bits=8, block=None, symmetric=True)
        schemes[linear.weight] = Scheme(bits=8)
    path = tmp_path_factory.mktemp("model") / "tiny.tightrope"
    path.write_bytes(convert(tiny_bert.rewrite(weights=weights, schemes=schemes), "native").files["model"][1])
    return path


@pytest.mark.slow
def test_kernels(arm: Run) -> None:
    done = arm("check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cpu", BEST)
def test_the_best_kernels_answer_as_here(arm: Run, file: Path, tmp_path: Path, cpu: str) -> None:
    done = arm("on", cpu, "tightrope-embed", file, "--npy", tmp_path / "rows.npy", given="\n".join(LINES))
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "rows.npy")
    with engine.Model.open(file) as model:
        ids, types, offsets, _ = model.tokenize(LINES, pairs=False, max_length=64)
        wanted = model.run(ids, offsets, types if model.types else None)
    assert found.shape == wanted.shape
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.9995


@pytest.mark.parametrize(
    ("cpu", "isa"), [("cortex-a72", "neon-dotprod"), ("neoverse-n1", "neon-i8mm"), ("max", "avx2")]
)
def test_kernels_that_a_processor_lacks_are_refused(arm: Run, file: Path, cpu: str, isa: str) -> None:
    done = arm("on", cpu, "tightrope-embed", file, given="cat\n", isa=isa)
    assert done.returncode == 2
    assert f"{isa}, which this processor does not have" in done.stderr
    assert BEST[cpu] in done.stderr
