"""Trials and the run: what was tried, what it cost and gained, and what was chosen; as values that become JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tightrope.budget import DEFAULT_TOKENS
from tightrope.measurement import Latency, Measurement, Parity, Quality


def usual(measurement: Measurement) -> Latency:
    """The latency that a budget means when it names no length; of other lengths the middle one."""
    found = measurement.latency(DEFAULT_TOKENS)
    return found or measurement.latencies[len(measurement.latencies) // 2]


State = Literal["rejected", "judged", "timed", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One recipe and how far it came.

    `rejected`: a cheap question (size, parity, quality) said no, `reason` says why. `judged`: good enough, not timed.
    `timed`: measured in full; `breaches` are the limits of the budget it still misses. `failed`: something broke.
    """

    recipe: str
    state: State
    reason: str | None = None
    breaches: tuple[str, ...] = ()
    digest: str | None = None
    """The bundle's digest."""
    size_bytes: int | None = None
    parity: Parity | None = None
    quality: Quality | None = None
    """On the texts that the search sees."""
    measurement: Measurement | None = None
    floats: Mapping[str, str] = field(default_factory=dict)
    """Layers that were to run on integers but fell back to float on this engine, with the reason."""
    executed: Mapping[str, float] | None = None
    """The share of multiply-adds by precision as the engine itself tells it; `None`: unknown."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Layers by the engine's own names, and the precision that each ran in; empty if the engine cannot tell."""
    judged_s: float = 0.0
    """What it took to compress, convert and judge it."""
    reused: bool = False
    """Taken from the cache of an earlier run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole fit: question, trials, answer. `report`, `table` and the page are made from it alone."""

    model: str
    """What the user wrote."""
    origin: str
    """The digest of the model that was found there."""
    command: str
    """How to run it again."""
    budget: tuple[str, ...]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    first_feasible_s: float | None
    peak_memory_bytes: int | None
    """Of the fit's own process."""
    target: str
    threads: int
    baseline: Trial
    """The fp32 original on its fastest engine here."""
    trials: tuple[Trial, ...]
    frontier: tuple[str, ...]
    """The recipes that no other timed trial beats in quality loss, latency, memory and size together."""
    chosen: str | None
    """The recipe of the published bundle; `None` if nothing fits."""
    nearest: str | None
    """When nothing fits: the recipe that misses by least."""
    breaches: tuple[str, ...] = ()
    """Why the chosen or nearest one is no success: limits that are missed, or what the gate says."""
    report: Quality | None = None
    """Of the chosen (or nearest), on samples that the search did not see: the figure to quote."""
    report_parity: Parity | None = None
    bundle: str | None = None
    """Where the bundle was written."""
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    """For each linear layer, 1 - mean cosine of the answers when it alone is reduced to 4 bits; may be empty."""
    agreement: Mapping[str, float] = field(default_factory=dict)
    """By instruction set of this processor: the least cosine of the chosen one's answers with those it recorded, 0 for
    a failure; empty if its engine cannot be held to one, or if it was measured elsewhere."""
    interrupted: bool = False
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def trial(self, recipe: str) -> Trial:
        """The trial of a recipe."""
        return next(item for item in (*self.trials, self.baseline) if item.recipe == recipe)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; `from_json` reads them back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Run":
        """Read what `to_json` wrote. Raises `KeyError` or `TypeError` if it is something else."""
        fields = dict(data)
        fields |= {key: tuple(data[key]) for key in ("budget", "frontier", "breaches")}
        fields["baseline"] = _trial(data["baseline"])
        fields["trials"] = tuple(map(_trial, data["trials"]))
        fields["report"] = Quality.from_json(data["report"]) if data["report"] else None
        fields["report_parity"] = Parity(**data["report_parity"]) if data["report_parity"] else None
        return Run(**fields)


def _trial(data: Mapping[str, Any]) -> Trial:
    fields = dict(data)
    fields["breaches"] = tuple(data["breaches"])
    fields["parity"] = Parity(**data["parity"]) if data["parity"] else None
    fields["quality"] = Quality.from_json(data["quality"]) if data["quality"] else None
    fields["measurement"] = Measurement.from_json(data["measurement"]) if data["measurement"] else None
    return Trial(**fields)
