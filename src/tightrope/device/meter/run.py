"""Measure: what a bundle costs, in a process of its own, beside the original in the same run.

    with Subject(original, texts) as first:
        baseline = first.measure()
        for candidate in candidates:
            measurement = measure(candidate, texts, against=first)

The process opens the bundle and embeds the texts, and nothing else, before its memory is read; then it is timed. The
original's process stays open from candidate to candidate. What the words mean: docs/guide/measuring.md.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.meter import interleave
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.clock import now
from tightrope.device.meter.interleave import Contest
from tightrope.device.meter.protocol import Message, take
from tightrope.errors import BenchError, DataError
from tightrope.measurement import Conditions, Latency, Measurement

THROUGHPUT_SHARE = 0.15
ENERGY_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure.

    `lengths`: tokens of the texts that are timed. `seconds`: what one bundle may take in all, kept unless so few
    rounds fit that nothing could be said. `texts`: how many of the given texts memory and throughput are measured
    with. `limit_s`: after this time without an answer, the bench counts as hung.
    """

    lengths: tuple[int, ...] = (12, 32, 128)
    seconds: float = 6.0
    least_rounds: int = 7
    most_rounds: int = 60
    texts: int = 64
    threads: int = 1
    pin: bool = True
    limit_s: float = 30.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to measure: a command that starts a worker (`None`: here), and what the device is called."""

    command: str | None = None
    target: str | None = None

    @property
    def name(self) -> str:
        """The target's name; the command is not shown, for it may name people and hosts."""
        return self.target or ("this machine" if self.command is None else "the bench")


class Subject:
    """A bundle in a process of its own: opened, its texts embedded, its start and its memory read.

    A context manager that holds the process. `like` is another subject on whose cores it shall run.
    """

    def __init__(
        self,
        source: Bundle | Path | str,
        texts: Sequence[Any],
        plan: Plan | None = None,
        place: Place | None = None,
        *,
        like: "Subject | None" = None,
    ) -> None:
        self.source = source if isinstance(source, Bundle) else bundle.read(source, verify=False)
        self.plan, self.place = plan or Plan(), place or Place()
        self._started = now()
        self._texts = _inputs(self.source, texts, self.plan.texts)
        self._composed: dict[int, Any] = {}
        self._bench = Bench(self.place.command, limit_s=self.plan.limit_s)
        try:
            self._opened = self._open(like)
            self._first_s = self._bench.answers(self._texts[:1])[1]
            self._first_pass_s = self._bench.answers(self._texts)[1]
            self._memory = self._bench.request("memory")[0]
        except BaseException:
            self._bench.close(gently=False)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._bench.close()

    @property
    def engine(self) -> str:
        """The engine that the worker chose."""
        return str(take(self._opened, "engine", str))

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores that it is pinned to; empty if it is not."""
        return tuple(take(self._opened, "cores", list, None) or ())

    def text(self, tokens: int) -> Any:
        """An input of exactly so many tokens by this bundle's tokenizer, or `None` if it takes no such length."""
        if tokens not in self._composed:
            words = [item if isinstance(item, str) else " ".join(item) for item in self._texts]
            self._composed[tokens] = self._bench.request("compose", {"texts": words, "tokens": tokens})[0].get("input")
        return self._composed[tokens]

    def measure(self, against: "Subject | None" = None) -> Measurement:
        """All there is to know about it. The time until now, for opening, counts as part of the plan's."""
        until = self._started + self.plan.seconds
        if against is not None:
            until = max(until, now() + self.plan.seconds / 2)
        throughput = self._throughput()
        energy = self._energy()
        latencies = self._latencies(against, until)
        peak, bare = _bytes(self._memory, "now", "peak_bytes"), _bytes(self._memory, "bare", "peak_bytes")
        return Measurement(
            conditions=self._conditions(against),
            latencies=latencies,
            size_bytes=self.source.size_bytes,
            throughput_per_s=throughput,
            memory_peak_bytes=peak,
            memory_steady_bytes=_bytes(self._memory, "now", "resident_bytes"),
            memory_above_interpreter_bytes=None if peak is None or bare is None else peak - bare,
            cold_start_s=self._cold_start(),
            energy_j=energy,
        )

    def block(self, item: Any, repeats: int) -> list[float]:
        """Seconds of each of some calls in a row, after one that is not counted: the caches belong to the other."""
        return self._bench.seconds("time", [item], repeats=repeats, warm_up=1)

    def _open(self, like: "Subject | None") -> Message:
        path = self._bench.bring(self.source)
        cores: Any = (list(like.cores) or None) if like else True
        wanted = {"path": path, "threads": self.plan.threads, "cores": cores if self.plan.pin else None}
        return self._bench.request("open", wanted)[0]

    def _latencies(self, against: "Subject | None", until: float) -> tuple[Latency, ...]:
        texts = {tokens: (against or self).text(tokens) for tokens in sorted(set(self.plan.lengths))}
        known = {tokens: text for tokens, text in texts.items() if text is not None}
        contests = [self._contest(text, against) for text in known.values()]
        rounds = interleave.in_turns(contests, until, self.plan.least_rounds, self.plan.most_rounds)
        return tuple(
            interleave.latency(tokens, seen, seed=self.plan.seed) for tokens, seen in zip(known, rounds, strict=True)
        )

    def _contest(self, text: Any, against: "Subject | None") -> Contest:
        """Both warmed up by the same text, and the same number of calls for both."""
        seconds = min(min(subject.block(text, 2)) for subject in (self, against) if subject is not None)
        repeats = interleave.calls_in_a_block(seconds)
        return Contest(
            candidate=lambda: self.block(text, repeats),
            original=None if against is None else lambda: against.block(text, repeats),
        )

    def _throughput(self) -> float:
        for_s = self.plan.seconds * THROUGHPUT_SHARE
        limit_s = self.plan.limit_s + for_s
        seconds = self._bench.seconds("throughput", self._texts, limit_s=limit_s, for_s=for_s)
        return len(self._texts) / statistics.median(seconds)

    def _energy(self) -> float | None:
        text, for_s = self.text(_middle(self.plan.lengths)), self.plan.seconds * ENERGY_SHARE
        if text is None:
            return None
        answer, _ = self._bench.request("energy", {"inputs": [text], "for_s": for_s}, limit_s=self.plan.limit_s + for_s)
        joules = take(answer, "joules", float, None)
        return None if joules is None else float(joules)

    def _cold_start(self) -> float:
        """The worker's own start, its imports, opening and the first answer; not the time it waited for requests."""
        hello = self._bench.hello
        if self._bench.is_here:  # one machine, one monotonic clock
            start = take(hello, "ready_monotonic_s", float) - self._bench.spawned_s
        else:
            start = take(hello, "since_start_s", float)
        parts = (start, take(self._opened, "import_s", float), take(self._opened, "open_s", float), self._first_s)
        return float(sum(parts))

    def _conditions(self, against: "Subject | None") -> Conditions:
        machine = take(self._bench.hello, "machine", dict)
        return Conditions(
            target=self.place.name,
            processor=str(machine.get("processor")),
            architecture=str(machine.get("architecture")),
            isa=tuple(map(str, machine.get("isa") or ())),
            engine=self.engine,
            engine_version=str(take(self._opened, "engine_version", str)),
            threads=self.plan.threads,
            pinned=bool(self.cores),
            baseline=None if against is None else against.engine,
        )


def measure(
    candidate: Bundle | Path | str,
    texts: Sequence[Any],
    plan: Plan | None = None,
    place: Place | None = None,
    *,
    against: Subject | None = None,
) -> Measurement:
    """Measure one bundle in a fresh process, in turns with the original `against` if it is given.

    `texts` are strings, or pairs for a model that scores pairs; strings do for both. Raises `BenchError` if the
    worker crashes, hangs or speaks nonsense, and whatever error the worker met when it opened or ran the bundle.
    """
    with Subject(candidate, texts, plan, place, like=against) as subject:
        return subject.measure(against)


def measure_bundle(
    source: Bundle,
    *,
    lengths: tuple[int, ...] = (12, 32, 128),
    against: Path | None = None,
    bench: str | None = None,
    seconds: float = 6.0,
    threads: int = 1,
) -> Measurement:
    """Measure a bundle with the texts that it carries as its proof; `against` is a bundle of the original."""
    texts = source.content.vectors.get("inputs")
    if not texts:
        raise DataError(f"{source.path} carries no texts to measure with.", hint="Make the bundle anew.")
    plan, place = Plan(lengths=lengths, seconds=seconds, threads=threads), Place(command=bench)
    if against is None:
        return measure(source, texts, plan, place)
    with Subject(against, texts, plan, place) as original:
        return measure(source, texts, plan, place, against=original)


def _inputs(source: Bundle, texts: Sequence[Any], most: int) -> list[Any]:
    """The texts to measure with: of all lengths, the longest among them; as pairs if the bundle scores pairs."""
    if not texts:
        raise DataError("There are no texts to measure with.", hint="Give one at least.")
    items = [tuple(text) if isinstance(text, list) else text for text in texts]
    if source.content.task["name"] == "scoring":
        items = [item if isinstance(item, tuple) else (item, items[index - 1]) for index, item in enumerate(items)]
    sizes = [len(item) if isinstance(item, str) else sum(map(len, item)) for item in items]
    return [items[position] for position in interleave.spread(sizes, most)]


def _middle(lengths: Sequence[int]) -> int:
    return sorted(lengths)[len(lengths) // 2]


def _bytes(answer: Message, when: str, name: str) -> int | None:
    value = take(answer, when, dict).get(name)
    if value is not None and type(value) is not int:
        raise BenchError(f"The bench says that {name} is {value!r:.40}.", hint="Update tightrope at both ends.")
    return value
