"""The virtual environments that the peers live in: pinned, one folder each, built once.

Peers that can share their pins share an environment; nothing of this enters the project's own one. Versions are those
that the expected ratios were measured with, so that a slower peer means a slower run, not another release.
"""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import BenchError

TORCH = ("torch==2.13.0",)


@dataclass(frozen=True, slots=True)
class Environment:
    """A name, and the requirements of each pip run in order.

    torch has a run of its own: pip then takes it from wherever the machine's own settings find a CPU build.
    """

    name: str
    stages: tuple[tuple[str, ...], ...]

    @property
    def digest(self) -> str:
        """Changes whenever a requirement does."""
        return hashlib.sha256(repr((sys.version_info[:2], self.stages)).encode()).hexdigest()


ENVIRONMENTS = {
    item.name: item
    for item in (
        Environment(
            "bare",
            (
                (
                    "onnxruntime==1.31.1",
                    "openvino==2026.4.1",
                    "nncf==3.4.0",
                    "ctranslate2==4.8.5",
                    "tokenizers==0.23.3",
                    "onnx==1.23.2",
                    "numpy==2.4.6",
                ),
            ),
        ),
        Environment("fastembed", (("fastembed==0.9.1", "onnxruntime==1.31.1", "numpy==2.4.6"),)),
        Environment("torch", (TORCH, ("sentence-transformers==6.2.0", "transformers==5.23.0", "numpy==2.4.6"))),
        Environment(
            "optimum",
            (
                TORCH,
                (
                    "sentence-transformers[onnx,openvino]==5.7.0",
                    "transformers==4.57.6",
                    "optimum==2.1.0",
                    "optimum-onnx==0.1.0",
                    "optimum-intel==1.27.0",
                    "huggingface_hub==0.36.2",
                    "datasets==4.0.0",  # a later one pulls in a huggingface_hub that this transformers refuses
                    "onnxruntime==1.31.1",
                    "openvino==2026.4.1",
                    "nncf==3.4.0",
                    "ctranslate2==4.8.5",  # its converter needs transformers < 5, which is here
                ),
            ),
        ),
    )
}


def python_of(work: Path, name: str) -> Path:
    """The interpreter of an environment under the work folder."""
    return work / "environments" / name / "bin" / "python"


def is_built(work: Path, environment: Environment) -> bool:
    """Whether it is finished with these very requirements."""
    stamp = _stamp(work, environment)
    return stamp.is_file() and stamp.read_text() == environment.digest


def build(work: Path, environment: Environment) -> None:
    """Make the environment, unless it is finished already. Raises `BenchError` with where pip's own words are."""
    if is_built(work, environment):
        return
    folder = work / "environments" / environment.name
    log = work / "environments" / f"{environment.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        python = python_of(work, environment.name)
        commands = [[sys.executable, "-m", "venv", "--clear", str(folder)]]
        commands += [[str(python), "-m", "pip", "install", *stage] for stage in environment.stages]
        for command in commands:
            if subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode:
                raise BenchError(
                    f"The environment {environment.name} could not be built: {' '.join(command[-3:])} failed.",
                    hint=f"See {log}; a second run resumes here.",
                )
    _stamp(work, environment).write_text(environment.digest)


def versions(work: Path, name: str) -> dict[str, str]:
    """What is installed in an environment, by lower-case name."""
    code = "import importlib.metadata as m; print('\\n'.join(d.name + ' ' + d.version for d in m.distributions()))"
    answer = subprocess.run([str(python_of(work, name)), "-c", code], capture_output=True, text=True, check=True)
    return {name.lower(): version for name, _, version in (line.partition(" ") for line in answer.stdout.splitlines())}


def _stamp(work: Path, environment: Environment) -> Path:
    return work / "environments" / environment.name / "finished"
