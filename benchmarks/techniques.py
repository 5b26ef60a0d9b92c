"""What each technique costs and gains on the real MiniLM, by its plain reference: no engine's own rounding is in it.

python -m benchmarks.techniques TEXTS [--count 300]    # measure, store, write the tables of docs/techniques
python -m benchmarks.techniques --write                # write the tables anew from what is stored
python -m benchmarks.techniques --check                # fail if a page says anything else

TEXTS is a UTF-8 file, a text a line; `--count` of them are taken, evenly spread. Calibration is on the built-in texts.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import RESULTS, ROOT, command_on_texts, read_stored, update_all
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.load import load
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Floats, size_bytes
from tightrope.workshop.observe import Observer
from tightrope.workshop.texts import default_texts
from tightrope.workshop.verify.plain import Plain

STORED = RESULTS / "techniques.json"
PAGES = ROOT / "docs" / "techniques"
MODEL = "all-MiniLM-L6-v2"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"

A8 = "inputs=asymmetric"
RECIPES: Mapping[str, Sequence[str]] = {
    "int8": (
        "int8(activations=none)",
        "int8(activations=none, weights=asymmetric)",
        "int8(inputs=symmetric)",
        f"int8({A8})",
        f"int8(outliers=4, {A8})",
        "int8(granularity=tensor, inputs=symmetric)",
        f"int8(granularity=tensor, {A8})",
        f"int8(granularity=tensor, outliers=4, {A8})",
        *(
            f"int8(activations=static, calibration={calibration}, inputs={inputs})"
            for calibration in ("minmax", "percentile", "entropy", "mse")
            for inputs in ("symmetric", "asymmetric")
        ),
        f"int8(activations=static, outliers=4, {A8})",
        f"int8(activations=static, calibration=mse, outliers=4, {A8})",
    ),
    "smooth": (
        "int8(inputs=symmetric)",
        "smooth(alpha=0.3) + int8(inputs=symmetric)",
        "smooth + int8(inputs=symmetric)",
        "smooth(alpha=0.7) + int8(inputs=symmetric)",
        "smooth(inputs=all) + int8(inputs=symmetric)",
        "smooth(statistic=rms) + int8(inputs=symmetric)",
        "smooth(shift=true) + int8(inputs=symmetric)",
        f"int8({A8})",
        f"smooth + int8({A8})",
        f"smooth(alpha=0.7) + int8({A8})",
        f"smooth(inputs=all) + int8({A8})",
        f"smooth(alpha=0.7, shift=true) + int8({A8})",
        f"int8(granularity=tensor, {A8})",
        f"smooth + int8(granularity=tensor, {A8})",
        f"smooth(alpha=0.7, shift=true) + int8(granularity=tensor, outliers=4, {A8})",
        f"smooth + int8(activations=static, {A8})",
        f"smooth(alpha=0.7, shift=true) + int8(activations=static, {A8})",
        f"smooth(alpha=0.7, shift=true) + int8(activations=static, outliers=4, {A8})",
    ),
    "gptq": (
        "int8(activations=none)",
        "int8(activations=none, compensation=gptq)",
        f"int8({A8})",
        f"int8(compensation=gptq, {A8})",
        f"smooth + int8({A8})",
        f"smooth + int8(compensation=gptq, {A8})",
        f"smooth(alpha=0.7, shift=true) + int8(compensation=gptq, {A8})",
        f"smooth(alpha=0.7, shift=true) + int8(activations=static, compensation=gptq, outliers=4, {A8})",
        "int4(method=nearest)",
        "int4(method=gptq)",
    ),
    "half": ("half", "half(format=bf16)"),
    "embedding": (
        "embedding",
        "embedding(bits=6)",
        "embedding(bits=6, symmetric=false)",
        "embedding(bits=6, block=32)",
        "embedding(bits=4)",
        "embedding(bits=4, symmetric=false)",
        "embedding(bits=4, block=32)",
        "embedding(bits=4, block=32, symmetric=false)",
        "embedding(bits=4, block=16, symmetric=false)",
    ),
}
"""The recipes that each page shows, in its order."""


def measure(corpus: Path, count: int, threads: int) -> dict[str, Any]:
    """Each recipe once: cosines to the fp32 model, the size of all weights, and the CPU time it took to make."""
    texts, calibration = spread(lines_of(corpus), count), default_texts(("en",), "seen")
    original = load(MODEL)
    observer = Observer(original, calibration)
    before = vectors(original, texts, threads)
    started = time.process_time()
    _ = observer.inputs
    observed_s = time.process_time() - started
    found: dict[str, dict[str, float]] = {"original": {"bytes": weight_bytes(original)}}
    for recipe in dict.fromkeys(item for items in RECIPES.values() for item in items):
        started = time.process_time()
        model = compress(original, Recipe.parse(recipe).steps, observer)
        made_s = time.process_time() - started
        cosines = (vectors(model, texts, threads) * before).sum(1)
        found[recipe] = {
            "min": float(cosines.min()),
            "p1": float(np.percentile(cosines, 1)),
            "mean": float(cosines.mean()),
            "bytes": weight_bytes(model),
            "cpu_s": made_s,
        }
        print(f"{recipe:100} {cosines.min():.4f} {cosines.mean():.5f} {made_s:.1f} s", flush=True)
    conditions = {
        "model": MODEL,
        "texts": len(texts),
        "calibration_texts": len(calibration),
        "observed_cpu_s": observed_s,
        "threads": threads,
        "onnxruntime": version("onnxruntime"),
        "tightrope": version("tightrope"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return {"conditions": conditions, "recipes": found}


def lines_of(corpus: Path) -> list[str]:
    """The texts of a file, a line each."""
    return [line for line in corpus.read_text(encoding="utf-8").splitlines() if line.strip()]


def spread(texts: Sequence[str], count: int) -> Sequence[str]:
    """So many of the texts, evenly spread."""
    return texts[:: max(1, len(texts) // count)][:count]


def vectors(model: Model, texts: Sequence[str], threads: int) -> Floats:
    """What the plain reference answers: float32 [n, width], of unit length, in the order of the texts."""
    answers = np.zeros((len(texts), model.task.width), np.float32)
    for rows, _, (batch,) in Plain(lower(model), threads=threads).run(texts):
        answers[rows] = batch
    return answers / np.linalg.norm(answers, axis=1, keepdims=True)


def weight_bytes(model: Model) -> int:
    """All weights, packed."""
    return sum(size_bytes(weight) for weight in model.weights.values())


def block(results: Mapping[str, Any], page: str) -> str:
    """One page's table between its markers, and how its figures came about."""
    about, found = results["conditions"], results["recipes"]
    lines = [BEGIN, "| recipe | cosine: min | p1 | mean | weights |", "|---|---:|---:|---:|---:|"]
    lines.append(f"| `original` | 1 | 1 | 1 | {found['original']['bytes'] / 1e6:.1f} MB |")
    for recipe in RECIPES[page]:
        item = found[recipe]
        lines.append(
            f"| `{recipe}` | {item['min']:.4f} | {item['p1']:.4f} | {item['mean']:.5f} | {item['bytes'] / 1e6:.1f} MB |"
        )
    lines += [
        "",
        f"{about['model']}, {about['texts']} texts of the peers' corpus, calibrated on {about['calibration_texts']} "
        f"built-in texts of other kinds; the plain reference in onnxruntime {about['onnxruntime']}, {about['date']}. "
        "Cosines are to the fp32 model; differences under 0.0005 in the minimum are noise (one text's rounding). "
        f"Watching the texts took {about['observed_cpu_s']:.0f} s of CPU time, and the dearest recipe "
        f"{max(found[recipe]['cpu_s'] for recipe in RECIPES[page]):.1f} s.",
        END,
    ]
    return "\n".join(lines)


def write(*, check: bool) -> bool:
    """Whether all pages said the same already; they are written unless only a check was asked for."""
    results = read_stored(STORED, "Give a file of texts to measure with.")
    return update_all({PAGES / f"{page}.md": block(results, page) for page in RECIPES}, check=check)


def main() -> int:
    """Measure and write; or only write, or only check."""
    return command_on_texts("Tables of docs/techniques", write, measure, STORED, threads=2)


if __name__ == "__main__":
    sys.exit(main())
