"""The peers that serve the same model: what most people would write, and what others recommend for it.

Each lives in an environment that nothing of the project enters, built by the same code as those of `benchmarks.peers`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import environments
from benchmarks.peers.environments import TORCH, Environment, python_of

SENTENCES = ("sentence-transformers==6.2.0", "transformers==5.23.0", "numpy==2.4.6")
ENVIRONMENTS = {
    item.name: item
    for item in (
        Environment("serve_flask", (TORCH, (*SENTENCES, "flask==3.1.3", "waitress==3.0.2"))),
        Environment("serve_fastapi", (TORCH, (*SENTENCES, "fastapi==0.165.0", "uvicorn==0.54.0"))),
        Environment("serve_litserve", (TORCH, (*SENTENCES, "litserve==0.2.19"))),
        Environment(
            "serve_infinity",
            (
                TORCH,
                (
                    "infinity-emb[torch,server]==0.0.78",
                    "transformers==4.48.3",
                    "sentence-transformers==3.4.1",  # infinity takes none of the fourth series
                    "optimum==1.24.0",  # one of the second series has no BetterTransformer, which infinity imports
                    "click==8.1.8",  # its typer reads options wrongly with a later one
                ),
            ),
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A server: how it is started (`{port}`, `{model}`, `{bundle}` are filled in), how it is asked and when."""

    name: str
    label: str
    environment: str | None
    command: tuple[str, ...]
    path: str
    ready: str
    body: str
    """What to POST for one text, which is filled in as a JSON string."""
    environ: Mapping[str, str] = field(default_factory=dict)


OPENAI = '{"model": "minilm", "input": [%s]}'
_INPUTS = '{"inputs": [%s]}'


def contestants(memory: str = "100MB") -> list[Contestant]:
    """All of them; ours first."""
    return [
        Contestant(
            name="tightrope",
            label="tightrope, native engine",
            environment=None,
            command=(
                *("-m", "tightrope", "serve", "{bundle}", "--port", "{port}", "--memory", memory),
                *("--limit", "cache_bytes=0"),  # texts come again, and no answer may be remembered
            ),
            path="/v1/embeddings",
            ready="/health/ready",
            body=OPENAI,
        ),
        _sentences("flask", "Flask, waitress"),
        _sentences("fastapi", "FastAPI, uvicorn"),
        _sentences("litserve", "LitServe"),
        Contestant(
            name="infinity",
            label="infinity-emb",
            environment="serve_infinity",
            command=(
                *(
                    "-c",
                    "from infinity_emb.cli import cli; cli()",
                    "v2",
                    "--model-id",
                    "{model}",
                    "--port",
                    "{port}",
                    "--engine",
                    "torch",
                ),
                *("--device", "cpu", "--no-bettertransformer", "--served-model-name", "minilm", "--no-model-warmup"),
            ),
            path="/embeddings",
            ready="/health",
            body=OPENAI,
            environ={"DO_NOT_TRACK": "1"},
        ),
    ]


def _sentences(name: str, label: str) -> Contestant:
    """A web framework around sentence-transformers, in a file of `servers/`."""
    return Contestant(
        name=name,
        label=f"{label}, sentence-transformers",
        environment=f"serve_{name}",
        command=("-m", f"benchmarks.serve.servers.{name}_server", "{model}", "{port}"),
        path="/embed",
        ready="/health",
        body=_INPUTS,
    )


def build(work: Path, names: list[str]) -> None:
    """Build the environments of these contestants. Raises `BenchError` for the first that cannot be."""
    for item in contestants():
        if item.name in names and item.environment is not None:
            environments.build(work, ENVIRONMENTS[item.environment])


def python(work: Path, item: Contestant) -> Path:
    """The interpreter that a contestant runs in."""
    return Path(sys.executable) if item.environment is None else python_of(work.resolve(), item.environment)
