"""Our own bundles that the README makes promises about, made from their recipes."""

from collections.abc import Callable
from pathlib import Path

import tightrope
from benchmarks.peers.candidates import MODEL

RECIPES = {"onnxruntime_int8": "int8 -> onnxruntime", "openvino_int8": "int8 -> openvino"}


def promised(work: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Make each anew, as it is what is being measured: name to bundle. Calibrated on the texts that ship with us."""
    made = {}
    for name, recipe in RECIPES.items():
        say(f"compressing {MODEL}: {recipe}")
        made[name] = work / "ours" / f"{name}.bundle"
        made[name].parent.mkdir(parents=True, exist_ok=True)
        tightrope.compress(MODEL, recipe=recipe, out=made[name], force=True)
    return made
