"""Our own bundles that the README makes promises about, made from their recipes."""

from collections.abc import Callable
from pathlib import Path

import tightrope
from benchmarks.peers.candidates import MODEL

RECIPES = {
    "onnxruntime_int8": "smooth + int8 -> onnxruntime",
    "openvino_int8": "smooth + int8(activations=static) -> openvino",
}


def promised(work: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Make them anew, as they are what is being measured: name to bundle."""
    made = {}
    for name, recipe in RECIPES.items():
        say(f"compressing {MODEL}: {recipe}")
        made[name] = work / "ours" / f"{name}.bundle"
        tightrope.compress(MODEL, recipe=recipe, out=made[name], force=True)
    return made
