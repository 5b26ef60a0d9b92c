"""What a comparison found: a cell for each engine and precision, and what is known of each engine; as values.

A cell always says how it ended. Only `converted` and `measured` are successes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tightrope.measurement import Interval, Latency, Measurement, Parity, Quality

State = Literal["converted", "measured", "interpreted", "not run", "wrong", "refused", "missing", "failed", "skipped"]
"""`converted`: answers as the original does; `measured`: and was timed. `interpreted`: a stand-in for the engine, which
cannot run on this machine, answers as the original does; the reason says what that leaves open. `not run`: the
artefact is there, but nothing here can run it. `wrong`: it answers, but not as the original does. `refused`: the engine
or its converter says that it cannot express the model. `missing`: not installed. `failed`: crash, hang, no output, or
an error. `skipped`: there was no time."""

SUCCESSES = ("converted", "measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What is known of an engine before it is asked anything. `None`: nobody says.

    `install_bytes`: what its distributions take here, those beside it that only conversion needs not counted.
    `python`, `architectures`: the wheels that its package index lists; `source` says where that was read.
    """

    name: str
    title: str
    version: str | None = None
    license: str | None = None
    python: str | None = None
    architectures: str | None = None
    source: str | None = None
    install_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One engine at one precision, and how far it came."""

    engine: str
    precision: str
    state: State
    recipe: str | None = None
    """The steps that the precision means on this engine."""
    reason: str | None = None
    """Why it is no success, in one line."""
    bundle: str | None = None
    digest: str | None = None
    size_bytes: int | None = None
    """Of the whole bundle."""
    artefact_bytes: int | None = None
    """Of the engine's own files in it."""
    converting_s: float | None = None
    """Compressing, converting, and opening it for the first time."""
    parity: Parity | None = None
    """With the fp32 original."""
    quality: Quality | None = None
    floats: Mapping[str, str] = field(default_factory=dict)
    """Layers that were to run on integers but run in float on this engine, with the reason."""
    approximations: Mapping[str, str] = field(default_factory=dict)
    """Layers that the engine quantises by its own rule, with the rule."""
    executed: Mapping[str, float] | None = None
    """The share of multiply-adds by precision, as the engine tells it; `None`: it cannot."""
    measurement: Measurement | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it answers as the original does."""
        return self.state in SUCCESSES

    @property
    def name(self) -> str:
        """What a line about it begins with."""
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All cells of one run."""

    model: str
    """What the user wrote."""
    origin: str
    """The digest of the model that was found there."""
    command: str
    started: str
    """UTC, ISO 8601."""
    seconds: float
    threads: int
    engines: tuple[Engine, ...]
    precisions: tuple[str, ...]
    cells: tuple[Cell, ...]
    baseline: str | None = None
    """The cell that the ratios are against."""
    samples: str | None = None
    """What the quality was judged on."""
    interrupted: bool = False

    def cell(self, engine: str, precision: str) -> Cell | None:
        """One cell, if there is one."""
        return next((item for item in self.cells if (item.engine, item.precision) == (engine, precision)), None)

    def engine(self, name: str) -> Engine:
        """What is known of an engine."""
        return next(item for item in self.engines if item.name == name)

    def in_state(self, *states: str) -> tuple[Cell, ...]:
        """The cells that ended so."""
        return tuple(item for item in self.cells if item.state in states)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; `from_json` reads them back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Comparison":
        """Read what `to_json` wrote. Raises `KeyError` or `TypeError` if it is something else."""
        fields = dict(data)
        fields["engines"] = tuple(Engine(**item) for item in data["engines"])
        fields["precisions"] = tuple(data["precisions"])
        fields["cells"] = tuple(map(_cell, data["cells"]))
        return Comparison(**fields)


def _cell(data: Mapping[str, Any]) -> Cell:
    fields = dict(data)
    fields["parity"] = Parity(**data["parity"]) if data["parity"] else None
    fields["quality"] = Quality.from_json(data["quality"]) if data["quality"] else None
    fields["measurement"] = Measurement.from_json(data["measurement"]) if data["measurement"] else None
    return Cell(**fields)


def ratio(cell: Cell, tokens: int) -> Interval | None:
    """How many times faster than the baseline a cell is at one length."""
    found = latency(cell, tokens)
    return found.speedup if found else None


def latency(cell: Cell, tokens: int) -> Latency | None:
    """The times of a cell at one length."""
    return cell.measurement.latency(tokens) if cell.measurement else None


def lengths(cells: Iterable[Cell]) -> tuple[int, ...]:
    """The lengths that any cell was timed at."""
    return tuple(sorted({item.tokens for cell in cells if cell.measurement for item in cell.measurement.latencies}))


def one_line(text: str) -> str:
    """A reason without line ends, and no longer than a few lines of a table."""
    whole = " ".join(text.split())
    return whole if len(whole) <= 400 else f"{whole[:399]}…"
