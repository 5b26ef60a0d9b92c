"""Measurements: what a model costs and how well it answers, and the conditions under which that was found.

Every number has a birth certificate: target, engine and version, threads, count and spread.
Values are in base units. What was not measured is `None`, never zero.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

IMAGE = 1
"""An image is one input, whatever its size: its latency stands under this number of tokens, which no text has."""


def length(tokens: int) -> str:
    """What a latency is of, in words.

    >>> length(32), length(IMAGE)
    ('32 tokens', 'an image')
    """
    return "an image" if tokens == IMAGE else f"{tokens} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval, from `n` paired observations."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Wall time of one text of `tokens` tokens (or of an image: `IMAGE`), in seconds, over `n` calls after warm-up."""

    tokens: int
    n: int
    p50_s: float
    p95_s: float
    p99_s: float
    speedup: Interval | None = None
    """Against the original, same text, interleaved in the same run; above 1 is faster."""
    quantiles_s: tuple[float, ...] = ()
    """The distribution: the calls in ascending order or, of many, evenly spaced quantiles from least to most."""


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
        latencies = tuple(map(_latency, fields.pop("latencies")))
        return Measurement(
            conditions=Conditions(**{**conditions, "isa": tuple(conditions["isa"])}), latencies=latencies, **fields
        )


def _latency(data: Mapping[str, Any]) -> Latency:
    fields = dict(data)
    fields["speedup"] = Interval(**data["speedup"]) if data.get("speedup") else None
    fields["quantiles_s"] = tuple(data.get("quantiles_s", ()))
    return Latency(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How close the answers are to the original's, number by number, over `n` texts (or pairs).

    Cosine of each answer with the original's: the worst, the first percentile and the mean. For scores the cosine
    says nothing, so the largest absolute difference is given too.
    """

    n: int
    cosine_min: float
    cosine_p1: float
    cosine_mean: float
    largest_difference: float
    diverges_at: str | None = None
    """When parity fails: the first layer whose output differs more than the ones before it explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well the task is still done, against the original on the same samples.

    `loss` is a fraction, positive when worse: (original - score) / original on a labelled task; for `fidelity`
    1 - score, where the original scores 1 by definition. Its interval is a paired bootstrap over the samples.
    """

    kind: str
    """sts, pairs, retrieval, fidelity, or the module:function that was called."""
    metric: str
    """spearman, auc, ndcg@10, rank_agreement …"""
    samples: str
    """Which samples: a file's name and part, or the built-in texts and their language."""
    n: int
    original: float
    score: float
    loss: Interval
    beside: Mapping[str, float] = field(default_factory=dict)
    """Further figures of the candidate, such as f1 or recall@10."""
    truncated: int = 0
    """How many texts were longer than the model's limit, and were cut."""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and numbers; `from_json` reads them back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Quality":
        """Read what `to_json` wrote."""
        return Quality(**{**data, "loss": Interval(**data["loss"])})
