"""Measure: what a bundle costs, in a process of its own, beside the original in the same run.

    with Subject(original, texts) as first:
        baseline = first.measure()
        for candidate in candidates:
            measurement = measure(candidate, texts, against=first)

The process opens the bundle and embeds the texts, and nothing else, before its memory is read; then it is timed. The
original stays open from candidate to candidate. What the words mean: docs/guide/measuring.md.
"""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device import proof
from tightrope.device.meter import interleave
from tightrope.device.meter.clock import now
from tightrope.device.meter.interleave import Contest, Rounds
from tightrope.device.meter.opened import Opened
from tightrope.device.meter.protocol import Message, take
from tightrope.errors import BenchError, DataError
from tightrope.measurement import IMAGE, Conditions, Latency, Measurement

THROUGHPUT_SHARE = 0.15
ENERGY_SHARE = 0.1
LEGS_SHARE = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure.

    `lengths`: tokens of the texts that are timed. `seconds`: what one bundle may take in all, kept unless so few
    rounds fit that nothing could be said. `legs`: how many pairs of processes the ratio is taken from at most.
    `texts`: how many of the given texts memory and throughput are measured with. `limit_s`: after this time without
    an answer, the bench counts as hung.
    """

    lengths: tuple[int, ...] = (12, 32, 128)
    seconds: float = 6.0
    least_rounds: int = 7
    most_rounds: int = 60
    legs: int = 3
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
        self._opened = self.fresh(like.cores if like else None)
        self._bench = self._opened.bench
        try:
            self._first_s = self._bench.answers(self._texts[:1])[1]
            self._bench.answers(self._texts)
            self._memory = self._bench.request("memory")[0]
        except BaseException:
            self._opened.close(gently=False)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._opened.close()

    def fresh(self, cores: tuple[int, ...] | None = None) -> Opened:
        """The same bundle in another process, on the given cores, or on the quietest ones."""
        wanted: Any = (list(cores) or None) if cores is not None else True
        return Opened(
            self.source,
            self.place.command,
            limit_s=self.plan.limit_s,
            threads=self.plan.threads,
            cores=wanted if self.plan.pin else None,
        )

    @property
    def engine(self) -> str:
        """The engine that the worker chose."""
        return self._opened.engine

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores that it is pinned to; empty if it is not."""
        return self._opened.cores

    def text(self, tokens: int) -> Any:
        """An input of exactly so many tokens by this bundle's tokenizer, or `None` if it takes no such length."""
        if isinstance(self._texts[0], bytes):
            return self._texts[0]
        if tokens not in self._composed:
            words = [item if isinstance(item, str) else " ".join(item) for item in self._texts]
            self._composed[tokens] = self._bench.request("compose", {"texts": words, "tokens": tokens})[0].get("input")
        return self._composed[tokens]

    def measure(self, against: "Subject | None" = None) -> Measurement:
        """All there is to know about it. The time until now, for opening, counts as part of the plan's."""
        throughput = self._throughput()
        energy = self._energy()
        until = max(self._started + self.plan.seconds, now() + self.plan.seconds / 2)  # half is for the turns at least
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
            cold_start_s=self._opened.start_s + self._first_s,
            energy_j=energy,
        )

    def _latencies(self, against: "Subject | None", until: float) -> tuple[Latency, ...]:
        texts = {tokens: (against or self).text(tokens) for tokens in sorted(set(self.plan.lengths))}
        known = {tokens: text for tokens, text in texts.items() if text is not None}
        count = self._legs(against)
        legs = [self._leg(list(known.values()), against, count, left, until) for left in range(count, 0, -1)]
        return tuple(
            interleave.latency(tokens, [leg[position] for leg in legs], seed=self.plan.seed)
            for position, tokens in enumerate(known)
        )

    def _legs(self, against: "Subject | None") -> int:
        """So many that starting processes takes no more than a third of the plan's time."""
        if against is None:
            return 1
        affordable = int(LEGS_SHARE * self.plan.seconds / (self._opened.start_s + against._opened.start_s))
        return max(1, min(self.plan.legs, 1 + affordable))

    def _leg(self, texts: list[Any], against: "Subject | None", count: int, left: int, until: float) -> list[Rounds]:
        """The rounds of one of `count` legs, `left` of which are still to run: the first in the open processes."""
        with ExitStack() as stack:
            candidate, original = self._opened, against._opened if against else None
            if left < count and against is not None:
                candidate, original = self.fresh(self.cores), against.fresh(self.cores)
                stack.callback(candidate.close)
                stack.callback(original.close)
            contests = [_contest(text, candidate, original) for text in texts]
            end = now() + (until - now()) / left
            least, most = -(-self.plan.least_rounds // count), -(-self.plan.most_rounds // count)
            return interleave.in_turns(contests, end, least, most)

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

    def _conditions(self, against: "Subject | None") -> Conditions:
        machine = take(self._bench.hello, "machine", dict)
        return Conditions(
            target=self.place.name,
            processor=str(machine.get("processor")),
            architecture=str(machine.get("architecture")),
            isa=tuple(map(str, machine.get("isa") or ())),
            engine=self.engine,
            engine_version=self._opened.engine_version,
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
    if not (texts := proof.inputs(source)):
        raise DataError(f"{source.path} carries no texts to measure with.", hint="Make the bundle anew.")
    if source.content.task["name"] == "classification":
        lengths = (IMAGE,)
    plan, place = Plan(lengths=lengths, seconds=seconds, threads=threads), Place(command=bench)
    if against is None:
        return measure(source, texts, plan, place)
    with Subject(against, texts, plan, place) as original:
        return measure(source, texts, plan, place, against=original)


def _contest(text: Any, candidate: Opened, original: Opened | None) -> Contest:
    """Both warmed up by the same text, and the same number of calls in a block for both."""
    seconds = min(min(process.block(text, 2)) for process in (candidate, original) if process is not None)
    repeats = interleave.calls_in_a_block(seconds)
    return Contest(
        candidate=lambda: candidate.block(text, repeats),
        original=None if original is None else lambda: original.block(text, repeats),
    )


def _inputs(source: Bundle, texts: Sequence[Any], most: int) -> list[Any]:
    """The texts to measure with: of all lengths, the longest among them; as pairs if the bundle scores pairs."""
    if not texts:
        raise DataError("There are no texts to measure with.", hint="Give one at least.")
    items = [tuple(text) if isinstance(text, list) else text for text in texts]
    if source.content.task["name"] == "scoring":
        items = [item if isinstance(item, tuple) else (item, items[index - 1]) for index, item in enumerate(items)]
    sizes = [len(item) if isinstance(item, str | bytes) else sum(map(len, item)) for item in items]
    return [items[position] for position in interleave.spread(sizes, most)]


def _middle(lengths: Sequence[int]) -> int:
    return sorted(lengths)[len(lengths) // 2]


def _bytes(answer: Message, when: str, name: str) -> int | None:
    value = take(answer, when, dict).get(name)
    if value is not None and type(value) is not int:
        raise BenchError(f"The bench says that {name} is {value!r:.40}.", hint="Update tightrope at both ends.")
    return value
