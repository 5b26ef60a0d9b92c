"""Units: base units inside (seconds, bytes, joules, fractions), people's units at the border.

Bytes are decimal as on a data sheet (1 MB = 1,000,000 bytes); KiB, MiB and GiB are understood too.
"""

import math
import re

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_JOULES = {"uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0}
_FRACTIONS = {"%": 1e-2, "": 1.0}
_RATIOS = {"x": 1.0, "×": 1.0, "": 1.0}
_RATES = {"/s": 1.0, "": 1.0}

DIMENSIONS: dict[str, dict[str, float]] = {
    "seconds": _SECONDS,
    "bytes": _BYTES,
    "joules": _JOULES,
    "fraction": _FRACTIONS,
    "ratio": _RATIOS,
    "rate": _RATES,
}
"""What a quantity can be measured in: the unit as people write it, and its size in the base unit."""

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d]*)\s*")


def parse(text: str, dimension: str) -> float:
    """Read a finite quantity such as `35 ms` into base units; `ValueError` says what was expected.

    >>> parse("35 ms", "seconds"), parse("100MB", "bytes"), parse("1%", "fraction"), parse("1.8x", "ratio")
    (0.035, 100000000.0, 0.01, 1.8)
    """
    units = DIMENSIONS[dimension]
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        known = ", ".join(unit or "a bare number" for unit in units)
        raise ValueError(f"{text!r} is not a quantity in {known}")
    value = float(f"{match[1]}") * units[match[2]]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large")
    return float(f"{value:.12g}")


def show(value: float, dimension: str) -> str:
    """Write a base-unit value the way people read it.

    >>> show(0.0314, "seconds"), show(22_700_000, "bytes"), show(0.0042, "fraction"), show(1.83, "ratio")
    ('31.4 ms', '22.7 MB', '0.42 %', '1.83x')
    """
    if dimension == "fraction":
        return f"{_digits(value * 100)} %"
    if dimension == "ratio":
        return f"{value:.2f}x"
    if dimension == "rate":
        return f"{_digits(value)}/s"
    scales = {
        "seconds": (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)),
        "bytes": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
        "joules": (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6)),
    }[dimension]
    unit, size = next((item for item in scales if abs(value) >= item[1]), scales[-1])
    return f"{_digits(value / size)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
