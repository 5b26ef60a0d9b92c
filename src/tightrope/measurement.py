"""Measurements: a cost, and the conditions under which it was paid.

Every number has a birth certificate: target, engine and version, threads, count and spread.
Values are in base units. What was not measured is `None`, never zero.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval, from `n` paired observations."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Wall time of one text of `tokens` tokens, in seconds, over `n` calls after warm-up."""

    tokens: int
    n: int
    p50_s: float
    p95_s: float
    p99_s: float
    speedup: Interval | None = None
    """Against the original, same text, interleaved in the same run; above 1 is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Where and how a measurement was made."""

    target: str
    processor: str
    architecture: str
    isa: tuple[str, ...]
    engine: str
    engine_version: str
    threads: int
    pinned: bool
    baseline: str | None = None
    """The engine of the original that `speedup` compares with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one bundle costs on one machine."""

    conditions: Conditions
    latencies: tuple[Latency, ...]
    size_bytes: int
    throughput_per_s: float | None = None
    """Texts per second on mixed lengths, batched as the bundle says."""
    memory_peak_bytes: int | None = None
    """Peak resident size of a fresh process that opened the bundle and embedded the texts."""
    memory_steady_bytes: int | None = None
    memory_above_interpreter_bytes: int | None = None
    """The peak, less that of the same interpreter with nothing loaded."""
    cold_start_s: float | None = None
    """From process start to the first answer, page cache warm."""
    energy_j: float | None = None
    """Energy of one text of the middle length, where the machine can tell."""

    def latency(self, tokens: int) -> Latency | None:
        """The latency at one length, or `None` if that length was not measured."""
        return next((item for item in self.latencies if item.tokens == tokens), None)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; `from_json` reads them back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Measurement":
        """Read what `to_json` wrote."""
        fields = dict(data)
        conditions = fields.pop("conditions")
        latencies = tuple(
            Latency(**{**item, "speedup": Interval(**item["speedup"]) if item.get("speedup") else None})
            for item in fields.pop("latencies")
        )
        return Measurement(
            conditions=Conditions(**{**conditions, "isa": tuple(conditions["isa"])}), latencies=latencies, **fields
        )
