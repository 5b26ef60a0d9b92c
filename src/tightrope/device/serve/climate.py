"""How warm the processor is, and whether it is slowed down for it, where Linux tells.

Nothing is guessed: a machine that says nothing has no temperature and is not throttled. What counts as throttled is
what the hardware itself reports: the Raspberry Pi's firmware, Intel's counters of thermal and power limits, or a
cooling device that holds the processor back (Linux' sysfs-class-thermal).
"""

from dataclasses import dataclass
from pathlib import Path

from tightrope.device.meter import power
from tightrope.device.serve.metrics import Metrics

SYS = Path("/sys")
_ZONES = ("cpu", "x86_pkg_temp", "soc", "package", "coretemp", "acpitz")
"""How kernels name the zones of a processor."""
_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal")
_FIRMWARE = ((0x1, "the supply voltage is low"), (0x4, "throttled"), (0x2, "its clock is capped"), (0x8, "it is hot"))
"""Bits of the Raspberry Pi's `get_throttled` that are about now, and what they say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climate:
    """One look at the processor: degrees, whether it is slowed down, why, and the counters for the next look."""

    celsius: float | None = None
    throttled: bool = False
    why: str = ""
    counters: tuple[int, ...] = ()


def look(root: Path = SYS, before: Climate | None = None) -> Climate:
    """The climate now. `before` is the look before, for counters; `root` is where a test puts a `/sys` of its own."""
    celsius = _celsius(root)
    counters = tuple(_number(path) or 0 for path in _counter_files(root))
    why = _firmware(root) or _counted(counters, before) or _cooled(root)
    if why and celsius is not None:
        why = f"{why} at {celsius:.0f} °C"
    return Climate(celsius=celsius, throttled=bool(why), why=why, counters=counters)


def _celsius(root: Path) -> float | None:
    """The warmest of the processor's zones and sensors."""
    zones = [
        zone / "temp"
        for zone in sorted((root / "class/thermal").glob("thermal_zone*"))
        if _text(zone / "type").lower().startswith(_ZONES)
    ]
    chips = [chip for chip in sorted((root / "class/hwmon").glob("hwmon*")) if _text(chip / "name") in _CHIPS]
    sensors = [path for chip in chips for path in sorted(chip.glob("temp*_input"))]
    found = [value / 1000 for path in (*zones, *sensors) if (value := _number(path)) is not None]
    return max((value for value in found if 0 < value < 150), default=None)


def _firmware(root: Path) -> str:
    """What the Raspberry Pi's firmware says about now."""
    text = _text(root / "devices/platform/soc/soc:firmware/get_throttled")
    try:
        bits = int(text, 16)
    except ValueError:
        return ""
    said = [words for bit, words in _FIRMWARE if bits & bit]
    return f"the board says: {', '.join(said)}" if said else ""


def _counter_files(root: Path) -> list[Path]:
    cores = (root / "devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    names = ("core_throttle_count", "core_power_limit_count", "package_throttle_count", "package_power_limit_count")
    return [folder / name for folder in sorted(cores) for name in names if (folder / name).is_file()]


def _counted(counters: tuple[int, ...], before: Climate | None) -> str:
    if before is None or len(before.counters) != len(counters):
        return ""
    grown = any(now > then for now, then in zip(counters, before.counters, strict=True))
    return "the processor counted thermal or power limits" if grown else ""


def _cooled(root: Path) -> str:
    for device in sorted((root / "class/thermal").glob("cooling_device*")):
        kind = _text(device / "type")
        if kind.lower().startswith(("processor", "cpufreq", "thermal-cpufreq")) and (
            _number(device / "cur_state") or 0
        ):
            return f"the kernel cools by {kind}"
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


class Weather:
    """Looks at the climate again and again, and shows temperature and energy among the metrics."""

    def __init__(self, metrics: Metrics, root: Path = SYS) -> None:
        self._metrics = metrics
        self._root = root
        self._last: Climate | None = None
        self._meter = power.find(root)
        if self._meter is not None:
            self._meter.start()

    def look(self) -> Climate:
        """The climate now, and the energy since the look before."""
        self._last = look(self._root, self._last)
        if self._last.celsius is not None:
            self._metrics.temperature_celsius.set(self._last.celsius)
        if self._meter is not None:
            joules = self._meter.stop()
            self._meter.start()
            if joules is not None:
                self._metrics.energy_joules.add(joules, source=self._meter.source)
        return self._last
