"""How models are run: as a measurement says, within memory and heat, and with the reasons."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.device.model import open_bundle
from tightrope.device.serve.adapt import BATCH_S, SMALLEST_TOKENS, Choice, crew, measure, shared
from tightrope.device.serve.climate import Climate, Weather, look
from tightrope.device.serve.ledger import PROCESS, Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.pace import Pace
from tightrope.device.serve.sizing import Sizing
from tightrope.errors import RefusedError
from tightrope.testing import FakeClock

CHOICE = Choice(
    engine="native", batch_tokens=256, batch_texts=1000, batch_bytes=1024, parallel=True, pace=Pace(), tokens_per_s=1.0
)


def write(root: Path, files: dict[str, str | int]) -> Path:
    """A `/sys` with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


# Batches ----------------------------------------------------------------------------------------------------


class Engine:
    """Time that passes as a batch needs it, on the made-up engine: so much a batch and so much a token."""

    def __init__(self, engine: Any, batch_s: float, token_s: float, drift: float = 0.0) -> None:
        self.clock = FakeClock()
        good = engine.answer

        def answer(feeds: Any) -> dict[str, Any]:
            count = len(feeds["input_ids"])
            self.clock.advance(batch_s + token_s * int(feeds["attention_mask"].sum()))
            rows = good(feeds)["rows"]
            rows[:, 0] *= 1 + drift * (count > 4)
            return {"rows": rows}

        engine.answer = answer


def vectors(texts: int = 8, **given: Any) -> dict[str, Any]:
    return {"inputs": [f"the cat sat {'on ' * number}" for number in range(texts)], **given}


def test_the_smallest_batch_that_is_nearly_the_fastest_is_taken(seal_for_engine: Any, made_up_engine: Any) -> None:
    engine = Engine(made_up_engine, batch_s=0.010, token_s=0.00005)
    with open_bundle(seal_for_engine(vectors=vectors(tolerance=0.99))) as model:
        choice = measure(model, Limits(batch_tokens=4096), clocks=(engine.clock,))
    assert choice.batch_texts == 64
    assert 512 <= choice.batch_tokens <= 1024
    assert choice.tokens_per_s > 10_000
    assert choice.pace.seconds(100) == pytest.approx(0.015, rel=0.05)
    assert any("nearly the best throughput" in reason for reason in choice.reasons)
    assert choice.lane().batch_tokens == choice.batch_tokens


def test_no_batch_takes_longer_than_people_wait(seal_for_engine: Any, made_up_engine: Any) -> None:
    engine = Engine(made_up_engine, batch_s=0.1, token_s=0.0005)
    with open_bundle(seal_for_engine(vectors=vectors(tolerance=0.99))) as model:
        choice = measure(model, Limits(), clocks=(engine.clock,))
    assert choice.batch_tokens == SMALLEST_TOKENS, "even the smallest takes too long: then none larger"
    quick = Engine(made_up_engine, batch_s=0.0, token_s=0.0003)
    with open_bundle(seal_for_engine(vectors=vectors(tolerance=0.99))) as model:
        choice = measure(model, Limits(), clocks=(quick.clock,))
    assert choice.batch_tokens * 0.0003 <= BATCH_S


@pytest.mark.parametrize(
    ("given", "texts", "words"),
    [
        ({"tolerance": 0.999}, 64, "answered as alone"),
        ({"tolerance": 0.999, "drift": -2.0}, 4, "4 texts at most"),
        ({}, 1, "no tolerance"),
    ],
)
def test_company_is_kept_within_the_bundle_s_own_tolerance(
    seal_for_engine: Any, made_up_engine: Any, given: dict[str, float], texts: int, words: str
) -> None:
    drift = given.pop("drift", 0.0)
    engine = Engine(made_up_engine, 0.001, 0.0001, drift)
    with open_bundle(seal_for_engine(vectors=vectors(**given))) as model:
        choice = measure(model, Limits(), clocks=(engine.clock,))
    assert choice.batch_texts == texts
    assert any(words in reason for reason in choice.reasons)
    assert choice.tolerance == given.get("tolerance")
    assert (choice.drift is None) == (not given)


def test_company_that_changes_any_answer_is_none_at_all(seal_for_engine: Any, made_up_engine: Any) -> None:
    good = made_up_engine.answer

    def answer(feeds: Any) -> dict[str, Any]:
        rows = good(feeds)["rows"]
        rows[:, 0] *= len(rows)
        return {"rows": rows}

    made_up_engine.answer = answer
    with open_bundle(
        seal_for_engine(task="scoring", vectors=vectors(tolerance=0.01) | {"inputs": [["a", "b"]] * 3})
    ) as model:
        choice = measure(model, Limits())
    assert choice.batch_texts == 1 and choice.drift and choice.drift > 0.01
    assert "company changes answers" in choice.reasons[1]


def test_the_native_engine_takes_any_company(native_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    with open_bundle(native_bundle(tmp_path / "tiny.bundle")) as model:
        choice = measure(model, Limits())
    assert choice.batch_texts > 1000 and choice.parallel and choice.drift is None
    assert "to the bit" in choice.reasons[1]
    assert choice.batch_bytes >= choice.batch_tokens * 4 * 32


def test_a_bundle_without_texts_of_its_own_is_measured_too(seal_for_engine: Any, made_up_engine: Any) -> None:
    with open_bundle(seal_for_engine()) as model:
        choice = measure(model, Limits(batch_tokens=100), resident=lambda: None)
    assert (choice.batch_texts, choice.batch_tokens, choice.tokens_per_s) == (1, 100, 0.0)
    assert choice.batch_bytes == 100 * 20_000


# Threads ----------------------------------------------------------------------------------------------------


def test_cores_go_to_threads_where_those_share_a_batch_well(native_bundle: Any, tmp_path: Path) -> None:
    assert crew(None, 1).workers == crew(None, 1).threads == 1  # type: ignore[arg-type]
    assert (shared(4, 3.2, parallel=True).threads, shared(4, 3.2, parallel=True).workers) == (4, 1)
    assert (shared(4, 2.9, parallel=True).threads, shared(4, 2.9, parallel=True).workers) == (1, 4)
    assert (shared(4, 2.0, parallel=False).threads, shared(4, 0.9, parallel=False).threads) == (4, 1)
    found = crew(native_bundle(tmp_path / "tiny.bundle"), 2)
    assert found.threads * found.workers == 2
    assert "2 threads make a batch" in found.reasons[0]


# Memory and heat --------------------------------------------------------------------------------------------


def sizing(budget: int, workers: int = 1) -> tuple[Sizing, Ledger, dict[str, int]]:
    told: dict[str, int] = {}
    ledger = Ledger(budget, resident=lambda: 0, trim=lambda: None)
    return Sizing(ledger, told.__setitem__, workers), ledger, told


def test_batches_are_reserved_for_each_model_and_each_further_worker() -> None:
    sizes, ledger, _ = sizing(10_000, workers=2)
    sizes.add("a", CHOICE)
    sizes.add("b", replace(CHOICE, batch_bytes=2000))
    assert ledger.usage() == {PROCESS: 0, "batches": 1024 + 2000 + 2000}
    sizes.remove("b")
    assert ledger.usage() == {PROCESS: 0, "batches": 2048}
    sizes.remove("a")
    sizes.remove("a")
    assert ledger.usage() == {PROCESS: 0}


def test_batches_shrink_when_memory_is_short_and_grow_again() -> None:
    sizes, ledger, told = sizing(1200)
    assert sizes.add("a", CHOICE) is CHOICE
    held = ledger.reserve("model:b", 600)
    assert told == {"a": 128}
    choice = sizes.choices()["a"]
    assert choice.batch_bytes == 512 and choice.limited == "128 tokens instead of 256: memory is short"
    sizes.adapt(Climate())
    assert sizes.choices()["a"].batch_tokens == 128, "there is no room yet"
    with pytest.raises(RefusedError):
        ledger.reserve("c", 500)
    assert told == {"a": SMALLEST_TOKENS}
    held.release()
    for tokens in (128, 256, 256):
        sizes.adapt(Climate())
        assert sizes.choices()["a"].batch_tokens == told["a"] == tokens
    assert sizes.choices()["a"] is CHOICE


def test_a_model_whose_batches_do_not_fit_gets_smaller_ones_or_is_refused() -> None:
    sizes, ledger, _ = sizing(300)
    assert sizes.add("a", CHOICE).batch_tokens == 64
    assert ledger.usage()["batches"] == 256
    tight, _, _ = sizing(200)
    with pytest.raises(RefusedError) as caught:
        tight.add("a", CHOICE)
    assert caught.value.reason == "memory"
    assert not tight.choices()


def test_heat_makes_batches_smaller_and_says_so(logged: StringIO) -> None:
    sizes, ledger, told = sizing(10_000)
    sizes.add("a", CHOICE)
    hot = Climate(celsius=84.0, throttled=True, why="the board says: throttled at 84 °C")
    for tokens in (128, 64, 64):
        sizes.adapt(hot)
        assert told["a"] == tokens
    assert "throttled at 84 °C" in sizes.choices()["a"].limited
    assert ledger.usage()["batches"] == 256
    assert logged.getvalue().count("batches.smaller") == 2
    sizes.adapt(Climate(celsius=60.0))
    assert told["a"] == 128


# Climate ----------------------------------------------------------------------------------------------------


def test_a_machine_that_says_nothing_is_neither_warm_nor_throttled(tmp_path: Path) -> None:
    assert look(tmp_path) == Climate()


def test_the_warmest_of_the_processor_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "class/thermal/thermal_zone0/type": "cpu-thermal",
            "class/thermal/thermal_zone0/temp": 61234,
            "class/thermal/thermal_zone1/type": "battery",
            "class/thermal/thermal_zone1/temp": 99000,
            "class/hwmon/hwmon0/name": "coretemp",
            "class/hwmon/hwmon0/temp1_input": 63000,
            "class/hwmon/hwmon0/temp2_input": "nonsense",
            "class/hwmon/hwmon1/name": "nvme",
            "class/hwmon/hwmon1/temp1_input": 90000,
        },
    )
    assert look(root) == Climate(celsius=63.0)


@pytest.mark.parametrize(
    ("bits", "words"), [("0x50000", ""), ("0x4", "throttled"), ("0x50005", "voltage is low, throttled"), ("?", "")]
)
def test_a_raspberry_pi_says_what_is_wrong_now(tmp_path: Path, bits: str, words: str) -> None:
    found = look(write(tmp_path, {"devices/platform/soc/soc:firmware/get_throttled": bits}))
    assert found.throttled == bool(words) and words in found.why


def test_counters_of_limits_that_grow_are_throttling(tmp_path: Path) -> None:
    name = "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    first = look(write(tmp_path, {name: 7}))
    assert not first.throttled
    assert not look(tmp_path, first).throttled
    second = look(
        write(
            tmp_path,
            {name: 8, "class/thermal/thermal_zone0/type": "x86_pkg_temp", "class/thermal/thermal_zone0/temp": 95000},
        ),
        first,
    )
    assert second.throttled and second.why == "the processor counted thermal or power limits at 95 °C"


def test_a_kernel_that_cools_the_processor_is_throttling(tmp_path: Path) -> None:
    fan = {"class/thermal/cooling_device0/type": "pwm-fan", "class/thermal/cooling_device0/cur_state": 3}
    assert not look(write(tmp_path, fan)).throttled
    cooling = {"class/thermal/cooling_device1/type": "cpufreq-cpu0", "class/thermal/cooling_device1/cur_state": 2}
    assert look(write(tmp_path, cooling)).why == "the kernel cools by cpufreq-cpu0"


def test_the_weather_is_shown(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "class/thermal/thermal_zone0/type": "soc_thermal",
            "class/thermal/thermal_zone0/temp": 55500,
            "class/powercap/intel-rapl:0/name": "package-0",
            "class/powercap/intel-rapl:0/energy_uj": 1_000_000,
            "class/powercap/intel-rapl:0/max_energy_range_uj": 10**12,
        },
    )
    metrics = Metrics()
    weather = Weather(metrics, root)
    write(root, {"class/powercap/intel-rapl:0/energy_uj": 3_500_000})
    assert weather.look().celsius == 55.5
    write(root, {"class/powercap/intel-rapl:0/energy_uj": 4_000_000})
    weather.look()
    assert metrics.temperature_celsius.value() == 55.5
    assert metrics.energy_joules.total() == pytest.approx(3.0)
    assert np.isfinite(metrics.energy_joules.total())
