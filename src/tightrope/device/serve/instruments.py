"""Counters, gauges and histograms with a bound on everything: what metrics are made of.

A library would do the same for 3 MB more (decision 1). Label names are fixed when an instrument is made; a value of a
label that nobody expected counts as `other` once there are too many, so that no stream of requests can fill the
memory. Nothing here knows a clock or the network.
"""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate, product
from typing import ClassVar, Generic, TypeVar

OTHER = "other"
LABEL_CHARACTERS = 128
RECENT = 512
"""Observations that a histogram keeps as they are, for percentiles: exact ones, of the last so many."""

Labels = tuple[str, ...]
S = TypeVar("S")


class Instrument(Generic[S]):
    """A name, what it counts, its labels, and one series for each combination of their values seen so far.

    `known` lists the values that a label may have; another value counts as `other`. A label that is not listed is
    open: whatever comes is taken until there are `most` series, and counts as `other` from then on.
    """

    kind: ClassVar[str] = "untyped"

    def __init__(
        self,
        name: str,
        about: str,
        *labels: str,
        known: Mapping[str, Collection[str]] | None = None,
        most: int = 64,
    ) -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self._known = {label: frozenset(values) for label, values in (known or {}).items()}
        self._most = most
        self._series: dict[Labels, S] = {}
        self._lock = threading.Lock()

    def _new(self) -> S:
        raise NotImplementedError

    def _start(self) -> None:
        """Begin every series that is certain to exist at zero, so that a first event shows as a rise."""
        if all(label in self._known for label in self.labels):
            for key in product(*(sorted(self._known[label]) for label in self.labels)):
                self._series[key] = self._new()

    def _key(self, labels: Mapping[str, object]) -> Labels:
        """The series that these labels mean; the lock is held."""
        assert len(labels) == len(self.labels), f"{self.name} has the labels {self.labels}, not {tuple(labels)}"
        key = tuple(str(labels[name]) for name in self.labels)
        if key in self._series:
            return key
        key = tuple(self._value(name, value) for name, value in zip(self.labels, key, strict=True))
        if key not in self._series and len(self._series) >= self._most:
            return tuple(v if n in self._known else OTHER for n, v in zip(self.labels, key, strict=True))
        return key

    def _value(self, name: str, value: str) -> str:
        if name in self._known:
            return value if value in self._known[name] else OTHER
        return "".join(c if c.isprintable() else "?" for c in value[:LABEL_CHARACTERS])

    def remove(self, **labels: object) -> None:
        """Forget every series that has these labels: what it stood for is gone."""
        wanted = [(self.labels.index(name), self._value(name, str(value))) for name, value in labels.items()]
        with self._lock:
            for key in [key for key in self._series if all(key[place] == value for place, value in wanted)]:
                del self._series[key]


class Counter(Instrument[float]):
    """A number that only grows."""

    kind = "counter"

    def __init__(
        self, name: str, about: str, *labels: str, known: Mapping[str, Collection[str]] | None = None, most: int = 64
    ) -> None:
        super().__init__(name, about, *labels, known=known, most=most)
        self._start()

    def _new(self) -> float:
        return 0.0

    def add(self, amount: float = 1.0, **labels: object) -> None:
        """Count `amount` more, which is not negative."""
        assert amount >= 0, f"{self.name} cannot shrink by {amount}"
        with self._lock:
            key = self._key(labels)
            self._series[key] = self._series.get(key, 0.0) + amount

    def values(self) -> dict[Labels, float]:
        """Each series and its number, at one moment."""
        with self._lock:
            return dict(self._series)

    def total(self, **labels: object) -> float:
        """The sum of all series that have these labels."""
        wanted = [(self.labels.index(name), str(value)) for name, value in labels.items()]
        return sum(n for key, n in self.values().items() if all(key[place] == value for place, value in wanted))


class Gauge(Instrument[float]):
    """A number that goes up and down; a series that nobody set does not exist."""

    kind = "gauge"

    def set(self, value: float, **labels: object) -> None:
        """Say what it is now."""
        with self._lock:
            self._series[self._key(labels)] = float(value)

    def values(self) -> dict[Labels, float]:
        """Each series and its number, at one moment."""
        with self._lock:
            return dict(self._series)

    def value(self) -> float | None:
        """The number of a gauge without labels; `None` if nobody set it."""
        return self.values().get(())


class Spread:
    """One series of a histogram: how many fell into each bucket, their sum, and the last few as they were."""

    __slots__ = ("counts", "next", "recent", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.sum = 0.0
        self.recent = array("d")
        self.next = 0

    def observe(self, value: float, bucket: int) -> None:
        """Count one observation."""
        self.counts[bucket] += 1
        self.sum += value
        if len(self.recent) < RECENT:
            self.recent.append(value)
        else:
            self.recent[self.next] = value
            self.next = (self.next + 1) % RECENT

    def copy(self) -> "Spread":
        """The same at this moment."""
        other = Spread(0)
        other.counts, other.sum, other.recent, other.next = list(self.counts), self.sum, self.recent[:], self.next
        return other

    def last(self, number: int) -> list[float]:
        """The last observations, the latest at the end; never more than `RECENT`."""
        ordered = [*self.recent[self.next :], *self.recent[: self.next]]
        return ordered[-number:] if number > 0 else []

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Histogram(Instrument[Spread]):
    """How a quantity is spread: cumulative buckets for Prometheus, exact percentiles of the last ones for people."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        about: str,
        *labels: str,
        buckets: tuple[float, ...],
        known: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        assert list(buckets) == sorted(set(buckets))
        super().__init__(name, about, *labels, known=known)
        self.buckets = buckets
        if not labels:
            self._start()

    def _new(self) -> Spread:
        return Spread(len(self.buckets))

    def observe(self, value: float, **labels: object) -> None:
        """Count one observation."""
        bucket = bisect_left(self.buckets, value)
        with self._lock:
            key = self._key(labels)
            spread = self._series.get(key)
            if spread is None:
                spread = self._series[key] = self._new()
            spread.observe(value, bucket)

    def values(self) -> dict[Labels, Spread]:
        """Each series as it is at one moment."""
        with self._lock:
            return {key: spread.copy() for key, spread in self._series.items()}

    def merged(self, *keys: Labels) -> "Histogram":
        """These series as one, without labels."""
        whole = Histogram(self.name, self.about, buckets=self.buckets)
        spread = whole._series[()]
        for one in (item for key, item in self.values().items() if key in keys):
            spread.counts = [a + b for a, b in zip(spread.counts, one.counts, strict=True)]
            spread.sum += one.sum
        return whole


def percentiles(observed: "array[float] | list[float]", *shares: float) -> list[float | None]:
    """The smallest observation that at least this share of all is not above (nearest rank); `None` without any.

    >>> percentiles([4.0, 1.0, 3.0, 2.0], 0.5, 0.99)
    [2.0, 4.0]
    """
    ordered = sorted(observed)
    last = len(ordered) - 1
    return [ordered[min(last, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else None for share in shares]


def exposition(instrument: Counter | Gauge | Histogram, name: str | None = None) -> Iterator[str]:
    """The lines of one instrument in Prometheus' text format, version 0.0.4; `name` to show it under another one."""
    name = name or instrument.name
    yield f"# HELP {name} {instrument.about}"
    yield f"# TYPE {name} {instrument.kind}"
    if isinstance(instrument, Histogram):
        for key, spread in sorted(instrument.values().items()):
            pairs = list(zip(instrument.labels, key, strict=True))
            bounds = [*map(number, instrument.buckets), "+Inf"]
            for bound, count in zip(bounds, accumulate(spread.counts), strict=True):
                yield f"{name}_bucket{_shown([*pairs, ('le', bound)])} {count}"
            yield f"{name}_sum{_shown(pairs)} {number(spread.sum)}"
            yield f"{name}_count{_shown(pairs)} {spread.count}"
    else:
        for key, value in sorted(instrument.values().items()):
            yield f"{name}{_shown(list(zip(instrument.labels, key, strict=True)))} {number(value)}"


def single(name: str, kind: str, about: str, value: float) -> Iterator[str]:
    """The lines of one number that is no instrument."""
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    yield f"{name} {number(value)}"


def number(value: float) -> str:
    """As short as it is exact: `3` and not `3.0`."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _shown(pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
