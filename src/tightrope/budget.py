"""The budget: what a device can spare, and whether a model fits inside it.

Written as people say it, limits joined by commas:

    speedup>=1.8x, latency[128].p95<=20ms, memory<=120MB, size<=30MB, loss<=1%

| word | meaning | base unit |
|---|---|---|
| `latency` | p50 wall time of one 32-token text, one thread; or `latency[128].p95`: another length and percentile | s |
| `speedup` | against the fp32 original on its fastest engine here, same text, interleaved; `speedup[128]` too | ratio |
| `memory` | peak resident size of a fresh process that opens the bundle and embeds the texts | bytes |
| `size` | the bundle on disk, tokenizer included | bytes |
| `loss` | relative to the fp32 score on the task; without labels 1 − Spearman of all pairwise similarities | fraction |
| `throughput` | texts per second on mixed lengths | 1/s |
| `cold_start` | from process start to the first answer | s |
| `energy` | energy of one text | J |

A budget is set before any compression begins, and nothing later may loosen it. A model that
is too slow is an ordinary answer, so `judge` returns a `Verdict`; only a budget that cannot
be read, or that nothing could meet, raises.
"""

import math
import re
from dataclasses import dataclass

from tightrope import units
from tightrope.errors import BudgetError
from tightrope.measurement import IMAGE, Interval, Measurement

_DIMENSIONS = {
    "latency": "seconds",
    "speedup": "ratio",
    "memory": "bytes",
    "size": "bytes",
    "loss": "fraction",
    "throughput": "rate",
    "cold_start": "seconds",
    "energy": "joules",
}
_LOWER_BOUNDS = frozenset({"speedup", "throughput"})
_PERCENTILES = ("p50", "p95", "p99")
_LIMIT = re.compile(r"([a-z_]+)(?:\[(\d+)\])?(?:\.(p\d+))?\s*(<=|>=|<|>|=)\s*(.+)")
DEFAULT_TOKENS = 32
"""The length of text that `latency` and `speedup` mean when none is written."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a limit speaks of. `tokens` and `percentile` only where the name has them."""

    name: str
    tokens: int | None = None
    percentile: str | None = None

    @property
    def dimension(self) -> str:
        """The kind of quantity, as `units` names it."""
        return _DIMENSIONS[self.name]

    def __str__(self) -> str:
        text = self.name
        if self.tokens is not None and (self.tokens != DEFAULT_TOKENS or self.percentile not in (None, "p50")):
            text += f"[{self.tokens}]"
        return text + (f".{self.percentile}" if self.percentile not in (None, "p50") else "")

    def read(self, measurement: Measurement | None, loss: Interval | None) -> float | None:
        """This metric's value; for `loss` the upper end of its interval. `None` if nobody measured it."""
        if self.name == "loss":
            return loss.high if loss else None
        if measurement is None:
            return None
        if self.name in ("latency", "speedup"):
            latency = measurement.latency(self.tokens or DEFAULT_TOKENS) or measurement.latency(IMAGE)
            if latency is None:
                return None
            if self.name == "speedup":
                return latency.speedup.value if latency.speedup else None
            return float(getattr(latency, f"{self.percentile}_s"))
        field = {"memory": "memory_peak_bytes", "size": "size_bytes", "throughput": "throughput_per_s"}
        suffix = {"cold_start": "cold_start_s", "energy": "energy_j"}
        value = getattr(measurement, (field | suffix)[self.name])
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Limit:
    """A metric, and the value it must not cross: an upper limit, but a lower one for speedup and throughput."""

    metric: Metric
    value: float

    @property
    def is_lower(self) -> bool:
        """Whether more is better."""
        return self.metric.name in _LOWER_BOUNDS

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.is_lower else '<='} {units.show(self.value, self.metric.dimension)}"

    def met_by(self, value: float | None) -> bool:
        """Whether a value keeps this limit. What was not measured is not met, and nor is nan."""
        if value is None:
            return False
        return value >= self.value if self.is_lower else value <= self.value

    def excess(self, value: float) -> float:
        """How far a value lies beyond the limit, as a ratio: 1.0 is on it, above 1 crosses it."""
        if self.value == 0 or value == 0:
            return math.inf if (value > 0) != self.is_lower else 1.0
        return self.value / value if self.is_lower else value / self.value


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit, and the value that failed to meet it: `None` if nobody measured."""

    limit: Limit
    measured: float | None

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.limit.metric} was not measured; the limit is {self.limit}"
        shown = units.show(self.measured, self.limit.metric.dimension)
        end = ", the upper end of its interval" if self.limit.metric.name == "loss" else ""
        return f"{self.limit.metric} is {shown}{end}; the limit is {self.limit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "does it fit?": true when nothing is breached."""

    breaches: tuple[Breach, ...] = ()

    def __bool__(self) -> bool:
        return not self.breaches


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits for one target. What has no limit is not judged.

    >>> budget = Budget.parse("speedup>=1.8x, size<=30MB, latency[128].p95<=20ms")
    >>> print(budget)
    speedup >= 1.80x, size <= 30 MB, latency[128].p95 <= 20 ms
    """

    limits: tuple[Limit, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits)) or "no limits"

    @staticmethod
    def parse(text: str) -> "Budget":
        """Read the written form. Raises `BudgetError` with the part that cannot be read or met."""
        limits = tuple(_parse_limit(part.strip()) for part in text.split(",") if part.strip())
        for position, limit in enumerate(limits):
            if any(other.metric == limit.metric for other in limits[:position]):
                raise BudgetError(f"{limit.metric} is limited twice.", hint="Give one limit for each metric.")
        return Budget(limits)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The text lengths that some limit asks about."""
        return tuple(sorted({limit.metric.tokens for limit in self.limits if limit.metric.tokens}))

    def limit(self, name: str) -> Limit | None:
        """The limit on a metric by its plain name, if there is one."""
        return next((limit for limit in self.limits if limit.metric.name == name), None)

    def judge(self, measurement: Measurement | None, loss: Interval | None) -> Verdict:
        """Hold a measurement and a quality loss against every limit. What was not measured is not met."""
        readings = ((limit, limit.metric.read(measurement, loss)) for limit in self.limits)
        return Verdict(tuple(Breach(limit, value) for limit, value in readings if not limit.met_by(value)))


def _parse_limit(text: str) -> Limit:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise BudgetError(
            f"{text!r} is not a limit.",
            hint="A limit looks like latency<=20ms, speedup>=1.8x or size<=30MB.",
        )
    name, tokens, percentile, relation, quantity = match.groups()
    if name not in _DIMENSIONS:
        raise BudgetError(f"A budget cannot limit {name!r}.", hint=f"It can limit: {', '.join(_DIMENSIONS)}.")
    wanted = ">=" if name in _LOWER_BOUNDS else "<="
    if relation != wanted:
        raise BudgetError(f"{text!r} limits {name} from the wrong side.", hint=f"Write {name}{wanted}{quantity}.")
    metric = _metric(name, tokens, percentile, text)
    try:
        value = units.parse(quantity, metric.dimension)
    except ValueError as error:
        raise BudgetError(
            f"The limit of {name} cannot be read: {error}.",
            hint="Write a number and a unit, as in 20ms, 30MB or 1%.",
        ) from error
    if value < 0 or (value == 0 and name != "loss"):
        raise BudgetError(
            f"{name} is limited to {quantity}, which nothing can meet.", hint="Give more than zero, or leave it out."
        )
    return Limit(metric, value)


def _metric(name: str, tokens: str | None, percentile: str | None, text: str) -> Metric:
    if name not in ("latency", "speedup") and tokens:
        raise BudgetError(f"{text!r}: {name} has no text length.", hint=f"Write {name} without brackets.")
    if percentile and (name != "latency" or percentile not in _PERCENTILES):
        raise BudgetError(f"{text!r}: there is no {name}.{percentile}.", hint="latency has p50, p95 and p99.")
    length = int(tokens) if tokens else DEFAULT_TOKENS
    if tokens and not 3 <= length <= 8192:
        raise BudgetError(f"{text!r} asks for texts of {length} tokens.", hint="Ask for 3 to 8192 tokens.")
    if name == "latency":
        return Metric(name, length, percentile or "p50")
    return Metric(name, length) if name == "speedup" else Metric(name)
