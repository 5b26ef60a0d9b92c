"""The run: everybody open on one core, and round after round the same questions to all, in a shuffled order.

Before the rounds each candidate answers the same questions in fresh processes, with nobody in between. A block in a
round begins with calls that are not counted, and is long: after its neighbours the caches are cold, which costs a
runtime of much code and data up to a third of its speed in a short block.

Seconds are processor time of all of a candidate's threads: on an idle core that is what a clock shows, and on a busy
one it leaves the neighbours out. What a clock showed is kept beside it.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.candidates import Candidate
from benchmarks.peers.conversation import Conversation
from benchmarks.peers.corpus import LENGTHS, Corpus
from benchmarks.peers.limit import Limit, fastest
from tightrope.errors import BenchError

CORPUS = "corpus"
QUANTITIES = (*map(str, LENGTHS), CORPUS)
TRIED = 4
"""Every fourth text is enough to find a candidate's best batching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure: rounds of latency, how many of them also embed the corpus, and fresh processes each."""

    rounds: int
    corpus_rounds: int
    cold_starts: int
    seconds: float = 0.15
    """Processor time that one candidate gets for one length in one round."""

    def with_corpus(self, index: int) -> bool:
        """Whether this round embeds the corpus too; such rounds are spread evenly."""
        return (index + 1) * self.corpus_rounds // self.rounds > index * self.corpus_rounds // self.rounds


def _empty() -> dict[str, list[float]]:
    return {name: [] for name in QUANTITIES}


@dataclass(slots=True)
class Seen:
    """Seconds by quantity: of each block the median of its calls, and the calls themselves."""

    cpu_s: dict[str, list[float]] = field(default_factory=_empty)
    engine_cpu_s: dict[str, list[float]] = field(default_factory=_empty)
    """Without the tokenizer; empty where a library has no such door, and for the corpus."""
    calls_cpu_s: dict[str, list[float]] = field(default_factory=_empty)
    calls_wall_s: dict[str, list[float]] = field(default_factory=_empty)

    def add(self, quantity: str, answer: dict[str, list[float]]) -> None:
        """One block's answer."""
        self.cpu_s[quantity].append(median(answer["cpu_s"]))
        self.calls_cpu_s[quantity] += answer["cpu_s"]
        self.calls_wall_s[quantity] += answer["wall_s"]
        if answer["engine_cpu_s"]:
            self.engine_cpu_s[quantity].append(median(answer["engine_cpu_s"]))


@dataclass(slots=True)
class Record:
    """What was seen of one candidate."""

    candidate: Candidate
    about: dict[str, Any] = field(default_factory=dict)
    batching: int = 0
    tried: dict[int, float] = field(default_factory=dict)
    """Seconds of processor time for a part of the corpus, by batching."""
    cold: list[dict[str, float]] = field(default_factory=list)
    corpus_peak_bytes: int = 0
    cosine: dict[str, float] = field(default_factory=dict)
    alone: Seen = field(default_factory=Seen)
    """In fresh processes, one value each."""
    rounds: Seen = field(default_factory=Seen)
    """One value a round."""
    failure: BenchError | None = None


@dataclass(slots=True)
class Run:
    """A run in progress and all that it has seen."""

    work: Path
    corpus: Corpus
    plan: Plan
    limit: Limit
    say: Callable[[str], None]
    records: dict[str, Record] = field(default_factory=dict)
    limit_per_s: dict[str, list[dict[str, float]]] = field(default_factory=_empty)
    """By quantity, one measurement a round: int8 multiply-adds a second by instructions."""

    @property
    def instructions(self) -> str:
        """Those that multiply fastest on this processor."""
        return next((fastest(seen[0]) for seen in self.limit_per_s.values() if seen), "")

    def measure(self, candidates: Sequence[Candidate]) -> None:
        """Everything, in order: who is there and how they batch best, fresh processes, then the rounds."""
        self.records = {item.name: Record(item) for item in candidates}
        with ExitStack() as stack:
            talks = {}
            for record in self.records.values():
                with self._survive(record):
                    talk = stack.enter_context(Conversation(self.work, record.candidate))
                    self._get_ready(record, talk)
                    talks[record.candidate.name] = talk
            self._cold_starts()
            for index in range(self.plan.rounds):
                self._round(index, talks)

    def _get_ready(self, record: Record, talk: Conversation) -> None:
        record.about = talk.ask("open", text=self.corpus.probes[LENGTHS[0]])
        talk.ask("texts", texts=self.corpus.texts)
        for batching in record.about["batchings"]:
            # Twice: the first pass makes what a runtime keeps for each new shape.
            passes = [talk.ask("throughput", batching=batching, every=TRIED)["cpu_s"] for _ in range(2)]
            record.tried[batching] = min(passes)
        record.batching = min(record.tried, key=record.tried.__getitem__)
        talk.ask("throughput", batching=record.batching, every=1)
        self.say(f"{record.candidate.label}: open, batching {record.batching}")

    def _cold_starts(self) -> None:
        """Fresh processes, one at a time: start to first vector, memory, and what each does with nobody beside it."""
        for index in range(self.plan.cold_starts):
            self.say(f"fresh processes, {index + 1} of {self.plan.cold_starts}")
            for record in self._alive():
                with self._survive(record):
                    self._cold_start(record)

    def _cold_start(self, record: Record) -> None:
        started = time.perf_counter()
        with Conversation(self.work, record.candidate) as talk:
            answer = talk.ask("open", text=self.corpus.probes[LENGTHS[0]])
            passed = time.perf_counter() - started
            record.cold.append({"wall_s": passed, "cpu_s": answer["cpu_s"], "peak_bytes": answer["peak_bytes"]})
            out = self.work / "vectors.npy"
            talk.ask("texts", texts=self.corpus.texts)
            talk.ask("encode", batching=record.batching, out=str(out.resolve()))
            record.corpus_peak_bytes = max(record.corpus_peak_bytes, talk.ask("memory")["peak_bytes"])
            record.cosine = cosines(np.load(self.work / "models" / "reference.npy"), np.load(out))
            for quantity in QUANTITIES:
                record.alone.add(quantity, self._ask(record, talk, quantity))

    def _round(self, index: int, talks: dict[str, Conversation]) -> None:
        with_corpus = self.plan.with_corpus(index)
        self.say(f"round {index + 1} of {self.plan.rounds}" + (", with the corpus" if with_corpus else ""))
        for quantity in QUANTITIES if with_corpus else QUANTITIES[:-1]:
            self.limit_per_s[quantity].append(self.limit.measure())
            order = self._alive()
            random.Random(f"{index} {quantity}").shuffle(order)
            for record in order:
                with self._survive(record):
                    record.rounds.add(quantity, self._ask(record, talks[record.candidate.name], quantity))

    def _ask(self, record: Record, talk: Conversation, quantity: str) -> dict[str, list[float]]:
        if quantity != CORPUS:
            return talk.ask("latency", text=self.corpus.probes[int(quantity)], seconds=self.plan.seconds)
        answer = talk.ask("throughput", batching=record.batching, every=1)
        return {"cpu_s": [answer["cpu_s"]], "wall_s": [answer["wall_s"]], "engine_cpu_s": []}

    def _alive(self) -> list[Record]:
        return [record for record in self.records.values() if record.failure is None]

    @contextmanager
    def _survive(self, record: Record) -> Iterator[None]:
        """One candidate's failure is a result; the others go on."""
        try:
            yield
        except BenchError as error:
            record.failure = error
            self.say(error.message)


def cosines(reference: np.ndarray, vectors: np.ndarray) -> dict[str, float]:
    """The least and the mean cosine, row by row; both are [n, width]."""
    reference, vectors = reference.astype(np.float64), vectors.astype(np.float64)
    lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(vectors, axis=1)
    values = (reference * vectors).sum(axis=1) / lengths
    return {"min": float(values.min()), "mean": float(values.mean())}


def pin(core: int | None) -> int | None:
    """Keep this process, and all that it starts, on one core: the last one unless told. `None` where that cannot be."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    return chosen
