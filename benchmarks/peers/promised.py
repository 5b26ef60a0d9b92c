"""Our own bundles that the README makes promises about, made from their recipes."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import tightrope
from benchmarks.peers.candidates import MODEL, WITHOUT_VNNI
from tightrope import bundle
from tightrope.device import engine
from tightrope.workshop.search.single import rebuild

RECIPES = {
    "native": "native -> native",
    "native_avx2": "native-avx2 -> native",
    "native_6_bit_table": "smooth + rotate + int8(compensation=gptq) + embedding(bits=6, block=32) -> native",
    "onnxruntime_int8": "int8 -> onnxruntime",
    "openvino_int8": "int8 -> openvino",
}
NATIVE = "native"
"""The one that is also measured on an instruction set that this processor would not choose …"""
NATIVE_AVX2 = "native_avx2"
"""… and the one for processors without VNNI, on what they have."""


def promised(work: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Make each anew, as it is what is being measured: name to bundle. Calibrated on the texts that ship with us.

    A bundle of the cache is built once more: the cache knows versions, but no changes between two of them.
    """
    made = {}
    for name, recipe in RECIPES.items():
        say(f"compressing {MODEL}: {recipe}")
        made[name] = work / "ours" / f"{name}.bundle"
        made[name].parent.mkdir(parents=True, exist_ok=True)
        known = tightrope.compress(MODEL, recipe=recipe, out=made[name], force=True)
        with tempfile.TemporaryDirectory(dir=made[name].parent) as folder:
            anew = rebuild(known, Path(folder) / made[name].name)
            bundle.copy(anew, made[name], {}, force=True)
    return made


def elsewhere() -> dict[str, list[str]]:
    """By bundle, the instruction sets to force the native engine to: AVX2, and the best without matrix tiles."""
    here = engine.isas()
    plainer = [name for name in here if name not in ("amx", WITHOUT_VNNI)][:1] if here[0] == "amx" else []
    old = [name for name in here if name == WITHOUT_VNNI]
    return {NATIVE: plainer + old, NATIVE_AVX2: old}
