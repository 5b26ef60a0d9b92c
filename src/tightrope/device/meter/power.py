"""Energy, where the machine can tell: RAPL counters of the processor, or a power sensor on the board.

What is read is the whole package or board, idle share included: nothing here can tell one process from another, and
nothing is guessed. Where no counter can be read (most virtual machines, and Linux since CVE-2020-8694 without root),
there is no meter, and the answer is "not measured".
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tightrope.device.meter.clock import Clock, now

SYS = Path("/sys")
_NOT_THE_BOARD = frozenset({"amdgpu", "nouveau", "i915", "xe", "nvme", "drivetemp"})
"""Sensors of a part that does not run the model; a laptop's battery (`BAT0`) is left out as well."""


class PowerMeter(Protocol):
    """Measures the energy spent between `start` and `stop`."""

    @property
    def source(self) -> str:
        """Which counter is read."""
        ...

    def start(self) -> None:
        """Begin to count."""
        ...

    def sample(self) -> None:
        """Look at the sensor; to be called often while something runs, as power sensors and short counters ask."""
        ...

    def stop(self) -> float | None:
        """Joules since `start`, or `None` if the counter could not be read or did not move."""
        ...


def find(root: Path = SYS, clock: Clock = now) -> PowerMeter | None:
    """The best meter of this machine: counters before sensors; `None` if there is none that may be read."""
    for counters in (_rapl(root), _energy_sensors(root)):
        if counters:
            return EnergyCounters(counters)
    sensor = next(_readable(_hwmon(root, "power*_average")), None) or next(
        _readable(_hwmon(root, "power*_input")), None
    )
    return PowerSensor(sensor, clock) if sensor else None


@dataclass(frozen=True, slots=True)
class Counter:
    """A file that counts microjoules upwards and begins again at `wraps_at` (0: never)."""

    path: Path
    wraps_at: int


class EnergyCounters:
    """Counters of microjoules, added up; each may wrap around between two looks, but only once."""

    def __init__(self, counters: list[Counter]) -> None:
        self.source = ", ".join(str(counter.path) for counter in counters)
        self._counters = counters
        self._last: list[int | None] = []
        self._sum = 0

    def start(self) -> None:
        """Remember where the counters stand."""
        self._last = [_number(counter.path) for counter in self._counters]
        self._sum = 0

    def sample(self) -> None:
        """Add what was spent since the last look."""
        for position, counter in enumerate(self._counters):
            before, after = self._last[position], _number(counter.path)
            if before is None or after is None:
                self._last[position] = None  # once unreadable, the sum would be short: no answer
                continue
            self._sum += after - before + (counter.wraps_at if after < before else 0)
            self._last[position] = after

    def stop(self) -> float | None:
        """Joules since `start`."""
        self.sample()
        known = bool(self._last) and None not in self._last and self._sum > 0
        return self._sum * 1e-6 if known else None


class PowerSensor:
    """A sensor of microwatts, looked at again and again: energy is the mean power times the time."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.source = str(path)
        self._path = path
        self._clock = clock
        self._started = 0.0
        self._seen: list[int] = []

    def start(self) -> None:
        """Begin with one look."""
        self._seen = []
        self._started = self._clock()
        self.sample()

    def sample(self) -> None:
        """Look once more."""
        value = _number(self._path)
        if value is not None:
            self._seen.append(value)

    def stop(self) -> float | None:
        """Joules since `start`."""
        self.sample()
        mean = sum(self._seen) / len(self._seen) if self._seen else 0
        return mean * 1e-6 * (self._clock() - self._started) if mean > 0 else None


def joules_per_call(
    meter: PowerMeter, call: Callable[[], object], seconds: float, clock: Clock = now
) -> tuple[float | None, int]:
    """Call again and again for about `seconds`; joules of one call (or `None`), and how many calls there were."""
    meter.start()
    end, calls = clock() + seconds, 0
    while calls == 0 or clock() < end:
        call()
        meter.sample()
        calls += 1
    joules = meter.stop()
    return (None if joules is None else joules / calls), calls


def _rapl(root: Path) -> list[Counter]:
    """Packages and their memory. `core` and `uncore` are parts of the package, `psys` holds it: not added again."""
    counters = []
    for path in sorted((root / "class/powercap").glob("intel-rapl:*")):
        name = _text(path / "name")
        if name.startswith("package") or name == "dram":
            counters.append(Counter(path / "energy_uj", _number(path / "max_energy_range_uj") or 0))
    return counters if all(_number(counter.path) is not None for counter in counters) else []


def _energy_sensors(root: Path) -> list[Counter]:
    """The first counter of the first chip that has one: further ones may be parts of it."""
    return [Counter(path, 0) for path in _readable(_hwmon(root, "energy*_input"))][:1]


def _hwmon(root: Path, pattern: str) -> list[Path]:
    chips = sorted((root / "class/hwmon").glob("hwmon*"))
    names = {chip: _text(chip / "name") for chip in chips}
    fit = [chip for chip in chips if names[chip] not in _NOT_THE_BOARD and not names[chip].startswith("BAT")]
    return [path for chip in fit for path in sorted(chip.glob(pattern))]


def _readable(paths: list[Path]) -> "filter[Path]":
    return filter(lambda path: _number(path) is not None, paths)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
