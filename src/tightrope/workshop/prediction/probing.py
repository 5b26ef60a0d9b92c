"""The probe: small models timed on each engine of a device, in a process of their own, and the rates that follow.

A worker opens each model as the device would, so a device elsewhere is probed by the command that starts one there.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device.machine import Machine
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.opened import Opened
from tightrope.device.meter.protocol import take
from tightrope.device.meter.run import Place
from tightrope.device.senses.image import ImageSenses
from tightrope.device.senses.text import Tokenizer, of_length
from tightrope.errors import BenchError, EngineError, MissingExtraError, UnsupportedError
from tightrope.workshop.assemble import Origin, Vectors, assemble
from tightrope.workshop.benches.converting import Converters
from tightrope.workshop.compress import compress
from tightrope.workshop.model import Model
from tightrope.workshop.observe import Observer
from tightrope.workshop.prediction import models, rates
from tightrope.workshop.prediction.costs import costs
from tightrope.workshop.prediction.rates import Rates, Timed
from tightrope.workshop.search.precisions import recipe_for

LENGTHS = (4, 12, 40, 100, 250)
"""Tokens of the texts that each encoder is timed with."""
BLOCK_S = 0.12
BLOCKS = 3
MOST_REPEATS = 400
BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
"""Of a weight, in the precisions that can be probed."""
COPIED_BYTES = 64_000_000
"""More than a core's own caches hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a probe learned of one engine in one precision.

    `small_per_s`, `large_per_s`: multiply-adds in a second of a layer 768 wide, for texts of 4 and 250 tokens.
    `missing`: why there are no rates.
    """

    engine: str
    precision: str
    rates: Rates | None = None
    timed: int = 0
    small_per_s: float | None = None
    large_per_s: float | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A device as it was measured. `start_s`: from nothing to a worker that answers."""

    machine: Machine
    threads: int
    copy_bytes_per_s: float
    start_s: float
    found: tuple[Found, ...]


def probe(
    engines: Sequence[str],
    precisions: Sequence[str],
    *,
    place: Place | None = None,
    threads: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Probe:
    """Time the probe's models on each engine in each precision. What cannot be done there is said, not raised."""
    where = place or Place()
    with Bench(where.command) as bench:
        described = take(bench.hello, "machine", dict)
        start_s = take(bench.hello, "since_start_s", float)
    known = {**described, "isa": tuple(described["isa"])}
    found = []
    with Converters() as converters, tempfile.TemporaryDirectory(prefix="tightrope-") as folder:
        for engine in engines:
            for precision in precisions:
                say(f"{engine}, {precision}")
                prober = Prober(converters, Path(folder), where, threads)
                found.append(prober.probe(engine, precision))
    return Probe(
        machine=Machine(**known),
        threads=threads,
        copy_bytes_per_s=copy_rate(),
        start_s=start_s,
        found=tuple(found),
    )


def copy_rate() -> float:
    """Bytes that one core reads and writes in a second, the best of five copies."""
    source, target = np.ones(COPIED_BYTES, np.uint8), np.zeros(COPIED_BYTES, np.uint8)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * COPIED_BYTES / best


class Prober:
    """Makes, opens and times models on one engine in one precision; its folder is for the bundle of the moment."""

    def __init__(self, converters: Converters, folder: Path, place: Place, threads: int) -> None:
        self._converters, self._folder, self._place, self._threads = converters, folder, place, threads

    def probe(self, engine: str, precision: str) -> Found:
        """Time the probe's own models, and fit the rates."""
        timed: list[Timed] = []
        widest: list[Timed] = []
        try:
            for like in models.ENCODERS:
                widest = self.times(models.encoder(like), engine, precision)
                timed += widest
        except (UnsupportedError, MissingExtraError, BenchError, EngineError) as error:
            return Found(engine=engine, precision=precision, missing=f"{error.message} {error.hint}")
        try:
            for stack in models.CONVOLUTIONALS:
                timed += self.times(models.convolutional(stack), engine, precision)
        except UnsupportedError:
            pass  # an engine of encoders: its rates are theirs
        small, large = (item.costs.linear / item.seconds for item in (widest[0], widest[-1]))
        return Found(
            engine=engine,
            precision=precision,
            rates=rates.fit(timed),
            timed=len(timed),
            small_per_s=small,
            large_per_s=large,
        )

    def times(self, model: Model, engine: str, precision: str, lengths: Sequence[int] = LENGTHS) -> list[Timed]:
        """The costs and seconds of texts of these lengths, or of one image."""
        made, inputs = self._bundle(model, engine, precision), _inputs(model, lengths)
        works = [costs(model, tokens or 1, bits=BITS[precision]) for tokens in inputs]
        seconds = self._seconds(made, list(inputs.values()))
        rows = zip(inputs, works, seconds, strict=True)
        return [Timed(costs=work, seconds=took, tokens=tokens) for tokens, work, took in rows]

    def _bundle(self, model: Model, engine: str, precision: str) -> Bundle:
        recipe = recipe_for(precision, engine, model)
        seen: Sequence[Any] = models.images(model) if isinstance(model.senses, ImageSenses) else models.texts()
        observer = Observer(model, (), (), seen) if isinstance(model.senses, ImageSenses) else Observer(model, seen)
        ready = compress(model, recipe.steps, observer)
        converted = self._converters.convert(ready, engine)
        origin, vectors = Origin(source="probe", recipe=recipe, calibration={}), Vectors(inputs=seen[:2])
        return assemble(ready, converted, origin, vectors, self._folder / "probe.bundle", force=True)

    def _seconds(self, made: Bundle, inputs: Sequence[Any]) -> list[float]:
        """The seconds of one call for each input: of several blocks of calls, the least of their medians."""
        opened = Opened(made, self._place.command, limit_s=60.0, threads=self._threads, cores=True)
        try:
            first = [statistics.median(opened.block(item, 3)) for item in inputs]
            repeats = [int(min(max(BLOCK_S / took, 5), MOST_REPEATS)) for took in first]
            blocks = [
                [statistics.median(opened.block(item, count)) for item, count in zip(inputs, repeats, strict=True)]
                for _ in range(BLOCKS)
            ]
            return [min(of_one) for of_one in zip(*blocks, strict=True)]
        finally:
            opened.close()


def _inputs(model: Model, lengths: Sequence[int]) -> Mapping[int | None, Any]:
    """An input for each length; of a model of images one, under no length."""
    if isinstance(model.senses, ImageSenses):
        return {None: models.images(model, 1)[0]}
    tokenizer = Tokenizer(model.senses.tokenizer, model.senses.max_length)
    return {tokens: of_length(tokenizer, models.texts(), tokens, pair=False, before="") for tokens in lengths}
