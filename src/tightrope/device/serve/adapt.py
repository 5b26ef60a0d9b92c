"""How a model is run on this machine, chosen from a short measurement, and why, in words for people.

A model is asked a few batches of its bundle's own texts. The smallest batch that is nearly as fast as the best is
taken: a smaller one is over sooner, and a request that nobody waits for any more is given up between two of them. What
a batch may do to an answer is measured too: where company changes answers by more than the bundle's own tolerance,
there is none.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device.meter import memory
from tightrope.device.model import Embedder, Scorer, open_bundle
from tightrope.device.proof import Agreement
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.pace import Lane, Pace
from tightrope.units import show

Model = Embedder | Scorer
Clocks = Sequence[Callable[[], float]]

CLOCKS: Clocks = (time.perf_counter, time.process_time)
"""What passes, and what this process computes: the first is longer while others have the processor, as at a boot, the
second while several threads compute."""
SMALLEST_TOKENS = 64
"""No batch is made smaller than this, whatever runs short."""
BATCH_S = 0.1
"""A batch should not take longer: nobody's work can be given up in the midst of one."""
_AROUND_S = 0.001
"""What else a batch takes, which counts as a part of it: to be formed and handed out, to wake others, and what the
processor's caches forget meanwhile (64 clients of MiniLM int8 on one core, in batches of 2 and of 12 texts)."""
_TRIED_S = 0.01
"""What is shorter is timed up to three times, and the best counts."""
_SHARED = 0.75
"""Of the ideal speed-up: then threads that share a batch do as much as workers with one each, but sooner."""
_NEARLY = 0.97
"""Of the best throughput: what a smaller batch is worth."""
_TOKEN_BYTES = 20_000
"""What a batch is thought to take for each of its tokens, where the system does not tell."""
_ID_BYTES = 24
"""A token's id, mask and segment, as those engines take them that want 64 bits for each."""
_ANY = 1_000_000
_MOST_COMPANY = 64
"""As many texts are tried together; more are not taken, because nobody measured them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a model is run, what is known of its speed and memory, and the reasons.

    `batch_texts` is 1 where answers may not have company. `drift` says how much company changed them when it was
    measured, in the measure of the bundle's tolerance: the least cosine, or for scores the largest difference.
    """

    engine: str
    batch_tokens: int
    batch_texts: int
    batch_bytes: int
    parallel: bool
    pace: Pace
    tokens_per_s: float
    drift: float | None = None
    tolerance: float | None = None
    reasons: tuple[str, ...] = ()
    limited: str = ""
    """Why batches are smaller now than what was chosen; empty if they are not."""

    def lane(self) -> Lane:
        """The same for the scheduler."""
        return Lane(
            batch_tokens=self.batch_tokens, batch_texts=self.batch_texts, parallel=self.parallel, pace=self.pace
        )

    def smaller(self, why: str) -> "Choice":
        """With half the batch and the reason why, or the same value if it is small enough already."""
        tokens = max(SMALLEST_TOKENS, self.batch_tokens // 2)
        if tokens >= self.batch_tokens:
            return self
        return self.of(tokens, f"{tokens} tokens instead of {self.batch_tokens}: {why}")

    def of(self, tokens: int, limited: str) -> "Choice":
        """With batches of so many tokens, and why; the same value if it has no more than that."""
        if tokens >= self.batch_tokens:
            return self
        size = self.batch_bytes * tokens // self.batch_tokens
        return replace(self, batch_tokens=tokens, batch_bytes=size, limited=limited)


def measure(
    model: Model,
    limits: Limits,
    *,
    clocks: Clocks = CLOCKS,
    resident: Callable[[], int | None] = memory.resident_bytes,
) -> Choice:
    """Ask a model a few batches and choose. It is warm afterwards. Raises whatever the model raises."""
    samples = _samples(model)
    _timed(model, samples.slice(0, 1), clocks)
    before, pace = resident(), Pace().seen(*_timed(model, samples.slice(0, 1), clocks))
    company = _company(model, samples)
    speeds = _speeds(model, samples, company.texts, limits.batch_tokens, clocks)
    for used, seconds in speeds:
        pace = pace.seen(used, seconds)
    chosen, tokens_per_s, why = _chosen(speeds, min(limits.batch_tokens, model.batch_tokens))
    after = resident()
    if before is None or after is None:
        size = chosen * _TOKEN_BYTES
    else:  # the first batches make an engine's working memory grow; ids and rows come on top of it
        grown = max(0, after - before) * chosen // speeds[-1][0] if speeds else 0
        size = grown + chosen * (_ID_BYTES + 4 * model.width)
    return Choice(
        engine=model.engine,
        batch_tokens=chosen,
        batch_texts=company.texts,
        batch_bytes=size,
        parallel=model.parallel,
        pace=pace,
        tokens_per_s=tokens_per_s,
        drift=company.drift,
        tolerance=company.tolerance,
        reasons=(why, company.why),
    )


def _samples(model: Model) -> Encoded:
    """The bundle's own texts (or pairs); made-up ones where it has none."""
    inputs: Sequence[Any] = model.bundle.content.vectors.get("inputs", ())
    if isinstance(model, Scorer):
        return model.encode([tuple(pair) for pair in inputs] or [("a question", "an answer to it")])
    return model.encode(list(inputs) or ["a text of a few words"])


def _timed(model: Model, batch: Encoded, clocks: Clocks) -> tuple[int, float]:
    """The tokens of a batch, and the seconds that it takes by the clock that shows least."""
    started = [clock() for clock in clocks]
    model.answer(batch)
    return len(batch.ids.values), min(clock() - start for clock, start in zip(clocks, started, strict=True))


# Threads and workers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """How many threads work on one batch, how many batches are computed at once, and why."""

    threads: int
    workers: int
    reasons: tuple[str, ...] = ()


def crew(
    source: Bundle,
    cores: int,
    *,
    open_model: Callable[..., Model] = open_bundle,
    clocks: Clocks = CLOCKS,
) -> Crew:
    """Share the cores between threads and workers, as a batch tells that is timed with one thread and with all.

    Opens the bundle twice, unless there is one core. Raises as opening and answering do.
    """
    if cores <= 1:
        return Crew(threads=1, workers=1, reasons=("one core: one worker with one thread",))
    seconds, parallel = {}, False
    for threads in (1, cores):
        with open_model(source, threads=threads) as model:
            samples, parallel = _samples(model), model.parallel
            batch = samples.take(np.resize(np.arange(len(samples)), min(len(samples), _MOST_COMPANY)))
            seconds[threads] = min(_timed(model, batch, clocks)[1] for _ in range(3))
    return shared(cores, seconds[1] / seconds[cores], parallel=parallel)


def shared(cores: int, speedup: float, *, parallel: bool) -> Crew:
    """The crew for a model that so many threads make so much faster.

    >>> shared(4, 3.6, parallel=True).threads, shared(4, 1.8, parallel=True).workers
    (4, 4)
    """
    seen = f"{cores} threads make a batch {speedup:.2g} times as fast"
    if speedup >= _SHARED * cores:
        return Crew(threads=cores, workers=1, reasons=(f"{seen}: nearly all of it, so one batch after the other",))
    if parallel:
        return Crew(threads=1, workers=cores, reasons=(f"{seen}: as many batches at once do more",))
    threads = cores if speedup > 1 else 1
    return Crew(threads=threads, workers=1, reasons=(f"{seen}, and the engine takes one batch at a time",))


# Company --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Company:
    texts: int
    why: str
    drift: float | None = None
    tolerance: float | None = None


def _company(model: Model, samples: Encoded) -> _Company:
    """How many texts may be in a batch, so that none is answered otherwise than alone by more than the tolerance."""
    if model.exact:
        return _Company(texts=_ANY, why="any company: answers do not depend on it, to the bit")
    recorded = model.bundle.content.vectors.get("tolerance")
    if recorded is None:
        return _Company(texts=1, why="one text at a time: the bundle records no tolerance to measure company by")
    alone = np.concatenate([model.answer(samples.slice(row, row + 1)) for row in range(len(samples))])
    tolerance, drift, texts = float(recorded), 0.0, _MOST_COMPANY
    while texts > 1:
        rows = np.resize(np.arange(len(samples)), texts)
        found = Agreement.of(model.answer(samples.take(rows)), alone[rows])
        scores = isinstance(model, Scorer)
        drift = found.largest_difference if scores else found.cosine_min
        if drift <= tolerance if scores else drift >= tolerance:
            why = f"{texts} texts at most: together they were answered as alone, within the bundle's tolerance"
            return _Company(texts=texts, why=why, drift=drift, tolerance=tolerance)
        texts //= 2
    why = "one text at a time: company changes answers by more than the bundle's tolerance"
    return _Company(texts=1, why=why, drift=drift, tolerance=tolerance)


# Size -----------------------------------------------------------------------------------------------------


def _speeds(model: Model, samples: Encoded, texts: int, most: int, clocks: Clocks) -> list[tuple[int, float]]:
    """Tokens and seconds of batches, each twice as large as the one before, until that is of no more use."""
    lengths = samples.ids.lengths
    short = np.flatnonzero(lengths <= max(SMALLEST_TOKENS // 2, lengths.min()))
    found: list[tuple[int, float]] = []
    size = SMALLEST_TOKENS
    while texts > 1 and size <= most:
        rows = np.resize(short, size)  # no text is shorter than a token
        rows = rows[: min(texts, int(np.searchsorted(np.cumsum(lengths[rows]), size, "right")))]
        if not len(rows):
            size *= 2
            continue
        batch = samples.take(rows)
        found.append(_best(model, batch, clocks))
        rates = [_rate(*item) for item in found]
        no_better = len(rates) > 2 and max(rates[-2:]) * _NEARLY < rates[-3]
        if found[-1][1] > BATCH_S or len(rows) == texts or no_better:
            break
        size *= 2
    return found


def _best(model: Model, batch: Encoded, clocks: Clocks) -> tuple[int, float]:
    tried = [_timed(model, batch, clocks)]
    while len(tried) < 3 and sum(seconds for _, seconds in tried) < _TRIED_S:
        tried.append(_timed(model, batch, clocks))
    return min(tried, key=lambda item: item[1])


def _chosen(speeds: list[tuple[int, float]], otherwise: int) -> tuple[int, float, str]:
    """The smallest batch that is nearly as fast as the best and does not take too long; its rate, and why."""
    quick = [item for item in speeds if item[1] <= BATCH_S] or speeds[:1]
    if not quick:
        return otherwise, 0.0, f"{otherwise} tokens at once: the bundle's own wish, not measured"
    best = max(_rate(*item) for item in quick)
    tokens, seconds = next(item for item in quick if _rate(*item) >= _NEARLY * best)
    rate = tokens / seconds
    size = max(SMALLEST_TOKENS, 1 << (tokens - 1).bit_length())
    rates = ", ".join(f"{tokens}: {tokens / seconds:,.0f}/s" for tokens, seconds in speeds)
    return size, rate, f"{size} tokens at once: nearly the best throughput within {show(BATCH_S, 'seconds')} ({rates})"


def _rate(tokens: int, seconds: float) -> float:
    return tokens / (seconds + _AROUND_S)
