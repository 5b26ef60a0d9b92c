"""Predict: seconds of a model on a target, from rates that a probe found there, or from what its makers state."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from tightrope.errors import UnsupportedError
from tightrope.target import Target
from tightrope.workshop.model import Model
from tightrope.workshop.prediction.costs import NAMES, Costs, costs
from tightrope.workshop.prediction.probing import BITS, Found, Probe
from tightrope.workshop.prediction.rates import Rates

ERROR = "error"
SHARE_OF_PEAK = 0.5
"""Of a core's products, what engines reach in layers of usual sizes on the machines that were probed."""
SHARE_IN_GROUPS = 0.1
"""The same in convolutions of one channel each."""
SHARE_OF_BANDWIDTH = 0.4
BYTES_PER_CYCLE = 4.0
"""Read and written by steps that do little else: their numbers lie in caches."""
CYCLES_PER_STEP = 3_000.0
CYCLES_PER_CALL = 60_000.0

Basis = Literal["probe", "specification"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Seconds for one input. Nobody measured them: `basis` says what they follow from.

    `error`: the median error of the probe on its own models; `None` for a specification, whose error nobody knows.
    """

    target: str
    engine: str
    precision: str
    tokens: int | None
    seconds: float
    basis: Basis
    error: float | None
    costs: Costs


def predict(
    model: Model, device: Target, engine: str, precision: str, lengths: tuple[int, ...]
) -> tuple[Prediction, ...]:
    """One prediction for each length; for a model of images one in all.

    Raises `UnsupportedError` if the target has neither rates for
    this engine in this precision nor figures of its maker.
    """
    known, basis = rates_of(device, engine, precision)
    sizes: tuple[int | None, ...] = lengths if model.task.name != "classification" else (None,)
    found = []
    for tokens in sizes:
        work = costs(model, tokens or 1, bits=BITS[precision])
        found.append(
            Prediction(
                target=device.name,
                engine=engine,
                precision=precision,
                tokens=tokens,
                seconds=known.predict(work),
                basis=basis,
                error=known.error if basis == "probe" else None,
                costs=work,
            )
        )
    return tuple(found)


def rates_of(device: Target, engine: str, precision: str) -> tuple[Rates, Basis]:
    """The rates of an engine on a target, and what they follow from."""
    probed = device.rates.get(key(engine, precision))
    if probed is not None:
        return Rates(seconds=tuple(probed.get(name, 0.0) for name in NAMES), error=probed.get(ERROR, 0.0)), "probe"
    if device.rates or engine not in device.engines:
        known = ", ".join(device.rates or device.engines)
        raise UnsupportedError(
            f"Nothing is known of {engine} in {precision} on {device.name}.",
            hint=f"Known there: {known}. Probe it with: tightrope probe --engines {engine}.",
        )
    return _specified(device, precision), "specification"


def key(engine: str, precision: str) -> str:
    """What rates are called in a target's file."""
    return f"{engine} {precision}"


def _specified(device: Target, precision: str) -> Rates:
    numbers = (device.clock_hz, device.float_macs_per_cycle, device.int8_macs_per_cycle, device.bandwidth_bytes_per_s)
    if None in numbers:
        raise UnsupportedError(f"{device.name} states no figures.", hint="Probe it there with: tightrope probe.")
    clock, floats, integers, bandwidth = (float(number or 0) for number in numbers)
    product = 1 / (clock * SHARE_OF_PEAK * (integers if precision.startswith("int") else floats))
    seconds = {
        "once": CYCLES_PER_CALL / clock,
        "steps": CYCLES_PER_STEP / clock,
        "linear": product,
        "convolution": product,
        "attention": 1 / (clock * SHARE_OF_PEAK * floats),
        "depthwise": 1 / (clock * SHARE_IN_GROUPS * floats),
        "weight_bytes": 1 / (bandwidth * SHARE_OF_BANDWIDTH),
        "moved_bytes": 1 / (clock * BYTES_PER_CYCLE),
    }
    return Rates(seconds=tuple(seconds[name] for name in NAMES), error=0.0)


def as_target(name: str, found: Probe) -> Target:
    """A probed device as a target, with its rates and the figures that were measured."""
    here, engines = found.machine, tuple(dict.fromkeys(item.engine for item in found.found if item.rates))
    measured = {"threads": float(found.threads), "start_s": found.start_s, "copy_bytes_per_s": found.copy_bytes_per_s}
    for item in found.found:
        measured |= _speeds(item)
    return Target(
        name=name,
        description=f"{here.processor}, {here.system}, as probed",
        architecture=here.architecture,
        isa=here.isa,
        cores=here.cores,
        memory_bytes=here.memory_bytes or 0,
        engines=engines,
        measured=measured,
        rates={key(item.engine, item.precision): _table(item.rates) for item in found.found if item.rates},
    )


def _speeds(item: Found) -> dict[str, float]:
    named = {"small": item.small_per_s, "large": item.large_per_s}
    return {f"{key(item.engine, item.precision)} {size} macs_per_s": rate for size, rate in named.items() if rate}


def _table(found: Rates) -> Mapping[str, float]:
    return dict(zip(NAMES, found.seconds, strict=True)) | {ERROR: found.error}


def to_json(item: Prediction) -> dict[str, object]:
    """A prediction as JSON, which says what it is."""
    return {"predicted": True, **asdict(item)}
