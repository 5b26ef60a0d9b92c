"""Energy is read where there is a counter, wraps around, and is not guessed where there is none."""

from pathlib import Path

import pytest

from tightrope.device.meter import power
from tightrope.testing import FakeClock


def rapl(root: Path, zone: str, name: str, energy: int, wraps_at: int = 1_000_000) -> Path:
    folder = root / "class/powercap" / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    return folder / "energy_uj"


def hwmon(root: Path, chip: str, name: str, file: str, value: object) -> Path:
    folder = root / "class/hwmon" / chip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(name + "\n")
    (folder / file).write_text(f"{value}\n")
    return folder / file


def test_a_machine_without_counters_is_not_measured(tmp_path: Path) -> None:
    assert power.find(tmp_path) is None


def test_packages_and_their_memory_are_added_and_parts_are_not(tmp_path: Path) -> None:
    package = rapl(tmp_path, "intel-rapl:0", "package-0", 500)
    rapl(tmp_path, "intel-rapl:0:0", "core", 400)
    dram = rapl(tmp_path, "intel-rapl:0:1", "dram", 100)
    rapl(tmp_path, "intel-rapl:1", "psys", 9000)
    meter = power.find(tmp_path)
    assert meter is not None and meter.source.count("energy_uj") == 2
    meter.start()
    package.write_text("2500")
    dram.write_text("400")
    assert meter.stop() == pytest.approx(2300e-6)


def test_a_counter_that_wraps_around_between_two_looks(tmp_path: Path) -> None:
    counter = rapl(tmp_path, "intel-rapl:0", "package-0", 999_000)
    meter = power.find(tmp_path)
    assert meter is not None
    meter.start()
    for value in (999_900, 400, 900_000, 100):  # around twice
        counter.write_text(str(value))
        meter.sample()
    assert meter.stop() == pytest.approx((900 + 100 + 400 + 899_600 + 100_000 + 100) * 1e-6)


def test_a_counter_that_becomes_unreadable_gives_no_answer(tmp_path: Path) -> None:
    counter = rapl(tmp_path, "intel-rapl:0", "package-0", 1000)
    meter = power.find(tmp_path)
    assert meter is not None
    meter.start()
    counter.write_text("2000")
    meter.sample()
    counter.unlink()
    meter.sample()
    counter.write_text("3000")
    assert meter.stop() is None


def test_a_counter_that_stands_still_gives_no_answer(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1000)
    meter = power.find(tmp_path)
    assert meter is not None
    meter.start()
    assert meter.stop() is None


def test_one_unreadable_package_is_no_basis_for_a_sum(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1000)
    rapl(tmp_path, "intel-rapl:1", "package-1", 1000).unlink()
    assert power.find(tmp_path) is None


def test_a_power_sensor_is_a_mean_times_the_time(tmp_path: Path) -> None:
    sensor = hwmon(tmp_path, "hwmon1", "ina238", "power1_input", 2_000_000)
    clock = FakeClock()
    meter = power.find(tmp_path, clock)
    assert meter is not None
    meter.start()
    clock.advance(2)
    sensor.write_text("4000000")
    assert meter.stop() == pytest.approx(6.0)


def test_counters_come_before_averages_before_single_values(tmp_path: Path) -> None:
    hwmon(tmp_path, "hwmon0", "board", "power1_input", 1)
    assert "power1_input" in str(getattr(power.find(tmp_path), "source", None))
    hwmon(tmp_path, "hwmon0", "board", "power1_average", 1)
    assert "power1_average" in str(getattr(power.find(tmp_path), "source", None))
    hwmon(tmp_path, "hwmon0", "board", "energy1_input", 1)
    assert "energy1_input" in str(getattr(power.find(tmp_path), "source", None))


@pytest.mark.parametrize("name", ["amdgpu", "nvme", "BAT0"])
def test_a_part_that_does_not_run_the_model_is_not_asked(tmp_path: Path, name: str) -> None:
    hwmon(tmp_path, "hwmon0", name, "power1_average", 5_000_000)
    assert power.find(tmp_path) is None


def test_joules_of_one_call(tmp_path: Path) -> None:
    counter = rapl(tmp_path, "intel-rapl:0", "package-0", 0, wraps_at=10**9)
    clock, spent = FakeClock(), [0]

    def call() -> None:
        clock.advance(0.25)
        spent[0] += 3_000_000
        counter.write_text(str(spent[0]))

    meter = power.find(tmp_path, clock)
    assert meter is not None
    assert power.joules_per_call(meter, call, 1.0, clock) == (pytest.approx(3.0), 4)
