"""Converting apart: each engine's tools in a process of their own, with a time limit on everything they are asked.

A crash, a hang, an end without an answer and an answer without files are a `BenchError` or `EngineError` of two lines;
none of them takes the caller along. The tools of one engine are loaded once and dropped when another engine's turn
comes: several of them load hundreds of megabytes.
"""

import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tightrope.bundle import Requirements
from tightrope.device.meter import sessions
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.protocol import Message, take
from tightrope.errors import BenchError, TightropeError, UnsupportedError
from tightrope.workshop import parcel
from tightrope.workshop.converted import Converted
from tightrope.workshop.model import Model
from tightrope.workshop.network import Network

COMMAND = shlex.join([sys.executable, "-m", "tightrope.workshop.benches.converter"])
LIMIT_S = 300.0
"""One conversion; the slowest tools take two minutes for a small encoder on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an engine's own process says of it."""

    version: str
    networks_only: bool


class Converters:
    """The tools of all engines, those of one at a time in a process. A context manager; leaving it ends the process.

    `limit_s` is how long one answer may take, and may be changed between two questions.
    """

    def __init__(self, *, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._engine = ""
        self._bench: Bench | None = None
        self._known: dict[str, About | TightropeError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        bench, self._bench = self._bench, None
        if bench is not None:
            bench.close(gently=False)  # it holds nothing that is worth a goodbye

    def about(self, engine: str) -> About:
        """What is known of an engine, or why nothing is; asked once.

        Raises `UnknownNameError`, `MissingExtraError`, or `BenchError` if its tools crash or hang while they load.
        """
        if engine not in self._known:
            try:
                told = self._ask(engine, "describe", {})
                version, only = take(told, "version", str), take(told, "networks_only", bool)
                self._known[engine] = About(version=version, networks_only=only)
            except TightropeError as error:
                self._known[engine] = error
        found = self._known[engine]
        if isinstance(found, TightropeError):
            raise found
        return found

    def version(self, engine: str) -> str:
        """The version of an engine."""
        return self.about(engine).version

    def takes(self, engine: str, model: Model) -> bool:
        """Whether an engine's converter takes this kind of model."""
        return isinstance(model, Network) or not self.about(engine).networks_only

    def convert(self, model: Model, engine: str) -> Converted:
        """A model in one engine's form. Raises the converter's own errors, or `BenchError` for a crash or a hang."""
        if not self.takes(engine, model):
            raise UnsupportedError(
                f"{engine} takes models of a known family only; this one is a graph.", hint="Take another engine."
            )
        with tempfile.TemporaryDirectory(prefix="tightrope-") as name:
            given, folder = Path(name) / "model", Path(name) / "files"
            given.mkdir()
            folder.mkdir()
            parcel.write(model, given)
            told = self._ask(engine, "convert", {"model": str(given), "folder": str(folder)})
            return _read(told, folder, engine)

    def _ask(self, engine: str, verb: str, fields: dict[str, Any]) -> Message:
        if self._bench is None or self._bench.ended or self._engine != engine:
            self.close()
            self._engine = engine
            self._bench = Bench(COMMAND, limit_s=self.limit_s, name=f"The converter of {engine}")
        return self._bench.request(verb, {"engine": engine, **fields}, limit_s=self.limit_s)[0]


def _read(told: Message, folder: Path, engine: str) -> Converted:
    """What a converter's process told, with the files that it wrote."""
    files = {str(role): str(suffix) for role, suffix in take(told, "files", dict).items()}
    requires = take(told, "requires", dict)
    try:
        contents = {role: (suffix, (folder / role).read_bytes()) for role, suffix in files.items()}
    except OSError as error:
        raise BenchError(f"The converter of {engine} wrote no {error.filename}.", hint="Report it.") from error
    return Converted(
        engine=take(told, "engine", str),
        engine_version=take(told, "engine_version", str),
        precision=take(told, "precision", str),
        files=contents,
        inputs=sessions.ports(told, "inputs"),
        outputs=sessions.ports(told, "outputs"),
        settings=take(told, "settings", dict),
        requires=Requirements(**{name: tuple(items) for name, items in requires.items()}),
        floats=take(told, "floats", dict),
        approximations=take(told, "approximations", dict),
        tokenizer=take(told, "tokenizer", str, None),
    )
