"""What four bits, mixed widths and a smaller vocabulary cost and gain on the real MiniLM, by its plain reference.

python -m benchmarks.fewer_bits TEXTS [--count 300]    # measure, store, write the tables of docs/techniques
python -m benchmarks.fewer_bits --write                # write the tables anew from what is stored
python -m benchmarks.fewer_bits --check                # fail if a page says anything else

TEXTS is a UTF-8 file, a text a line: the corpus that the vocabulary is cut to. `--count` of them, evenly spread, are
answered. Calibration is on the built-in texts, and so is the coverage of text that the corpus has not seen.
"""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import RESULTS, command_on_texts, read_stored, update_all
from benchmarks.techniques import BEGIN, END, MODEL, PAGES, lines_of, spread, vectors, weight_bytes
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.convert.onnxruntime import convert
from tightrope.workshop.load import load
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.quantized import Quantized
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.mixed import sensitivity
from tightrope.workshop.passes.prune.vocab import coverage
from tightrope.workshop.texts import default_texts

STORED = RESULTS / "fewer_bits.json"
TABLE4 = "embedding(bits=4, block=64, symmetric=false)"

RECIPES: Mapping[str, Sequence[str]] = {
    "int4": (
        "int4(method=nearest)",
        "int4(method=hqq)",
        "int4",
        "int4(method=nearest, symmetric=true)",
        "int4(method=hqq, symmetric=true)",
        "int4(symmetric=true)",
        "int4(block=16)",
        "int4(block=64)",
        "int4(block=128)",
        "int4(activations=dynamic)",
        "smooth + int4(activations=dynamic)",
        f"{TABLE4} + int4",
        "embedding(bits=4) + int4",
    ),
    "mixed": (
        "mixed(loss=0.0005)",
        "mixed(loss=0.001)",
        "mixed(loss=0.002)",
        "mixed",
        "mixed(loss=0.002, method=nearest)",
        "mixed(method=nearest)",
        "mixed(loss=0.01, method=nearest)",
        "mixed(loss=0.002, activations=dynamic)",
        f"{TABLE4} + mixed(loss=0.002)",
    ),
    "vocab": (
        "vocab(corpus=texts)",
        "vocab(corpus=texts, letters=false)",
        "vocab(corpus=texts, common=10000)",
        "vocab(corpus=texts, common=16000)",
        f"vocab(corpus=texts, common=10000) + {TABLE4} + int4",
    ),
}
"""The recipes that each page shows, in its order; `texts` stands for the file."""


def measure(corpus: Path, count: int, threads: int) -> dict[str, Any]:
    """Each recipe once."""
    lines = lines_of(corpus)
    texts = spread(lines, count)
    original = load(MODEL)
    observer = Observer(original, default_texts(("en",), "seen"))
    before = vectors(original, texts, threads)
    found: dict[str, Any] = {"original": {"bytes": weight_bytes(original), "file": file_bytes(original)}}
    _ = observer.inputs
    for recipe in dict.fromkeys(item for items in RECIPES.values() for item in items):
        steps = Recipe.parse(recipe.replace("corpus=texts", f'corpus="{corpus}"')).steps
        started = time.process_time()
        model = compress(original, steps, observer)
        seconds = time.process_time() - started
        after = vectors(model, texts, threads)
        cosines = (after * before).sum(1)
        found[recipe] = {
            "min": float(cosines.min()),
            "p1": float(np.percentile(cosines, 1)),
            "mean": float(cosines.mean()),
            "identical": after.tobytes() == before.tobytes(),
            "bytes": weight_bytes(model),
            "file": file_bytes(model),
            "widths": widths(model),
            "cpu_s": seconds,
        }
        if recipe.startswith("vocab"):
            found[recipe] |= covered(original, model, lines)
        print(f"{recipe:80} {cosines.min():.4f} {cosines.mean():.5f} {seconds:.1f} s", flush=True)
    started = time.process_time()
    layers = sensitivity(original, Observer(original, observer.texts))  # a fresh one remembers nothing
    conditions = {
        "model": MODEL,
        "corpus_texts": len(lines),
        "texts": len(texts),
        "calibration_texts": len(observer.texts),
        "sensitivity_cpu_s": time.process_time() - started,
        "threads": threads,
        "onnxruntime": version("onnxruntime"),
        "tightrope": version("tightrope"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return {"conditions": conditions, "recipes": found, "sensitivity": layers}


def file_bytes(model: Model) -> int:
    """ONNX Runtime's form of the model, without the tokenizer."""
    return sum(len(data) for _, data in convert(model).files.values())


def widths(model: Model) -> dict[str, int]:
    """How many linear layers have which bits."""
    weights = (model.weights[linear.weight] for linear in model.linears())
    counts = Counter(weight.bits if isinstance(weight, Quantized) else 8 * weight.dtype.itemsize for weight in weights)
    return {str(bits): counts[bits] for bits in sorted(counts)}


def covered(original: Model, pruned: Model, lines: Sequence[str]) -> dict[str, Any]:
    """How much of the table is left, and how much of the corpus and of other text is cut as before."""
    table = next(item.weight for item in original.tables() if item.is_vocabulary)
    own = coverage(original.senses, pruned.senses, lines)
    other = coverage(original.senses, pruned.senses, default_texts(("en",), "report"))
    return {
        "rows": pruned.weights[table].shape[0],
        "rows_before": original.weights[table].shape[0],
        "own_texts": own.covered_texts,
        "other_texts": other.covered_texts,
        "other_tokens": other.covered_tokens,
        "tokenizer": len(pruned.senses.tokenizer),
    }


def block(results: Mapping[str, Any], page: str) -> str:
    """One page's table between its markers, and how its figures came about."""
    about, found = results["conditions"], results["recipes"]
    lines = _vocabulary(found) if page == "vocab" else _bits(found, page)
    return "\n".join(
        [
            BEGIN,
            *lines,
            "",
            f"{about['model']}, {about['texts']} of the {about['corpus_texts']:,} texts of the peers' corpus, "
            f"calibrated on {about['calibration_texts']} built-in texts of other kinds; the plain reference in "
            f"onnxruntime {about['onnxruntime']}, {about['date']}. Cosines are to the fp32 model; the file is ONNX "
            "Runtime's form, without the tokenizer.",
            *(_sensitive(results) if page == "mixed" else ()),
            END,
        ]
    )


def _bits(found: Mapping[str, Any], page: str) -> list[str]:
    head = "layers at 4 / 8 / 32 bits | " if page == "mixed" else ""
    lines = [f"| recipe | {head}cosine: min | p1 | mean | weights | file | CPU time |"]
    lines.append("|---|" + "---:|" * (lines[0].count("|") - 2))
    first = "| | " if page == "mixed" else "| "
    whole = found["original"]
    lines.append(f"| `original` {first}1 | 1 | 1 | {_mb(whole['bytes'])} | {_mb(whole['file'])} | |")
    for recipe in RECIPES[page]:
        item = found[recipe]
        layers = f"{' / '.join(str(item['widths'].get(bits, 0)) for bits in ('4', '8', '32'))} | " if head else ""
        lines.append(
            f"| `{recipe}` | {layers}{item['min']:.4f} | {item['p1']:.4f} | {item['mean']:.5f} "
            f"| {_mb(item['bytes'])} | {_mb(item['file'])} | {item['cpu_s']:.1f} s |"
        )
    return lines


def _vocabulary(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "| recipe | rows | table smaller by | answers on the corpus "
        "| other English texts covered | their pieces covered | file |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    lines.append(f"| `original` | 30,522 | | | | | {_mb(found['original']['file'])} |")
    for recipe in RECIPES["vocab"]:
        item = found[recipe]
        same = "bit-identical" if item["identical"] else f"cosine {item['min']:.4f} / {item['mean']:.5f}"
        lines.append(
            f"| `{recipe}` | {item['rows']:,} | {1 - item['rows'] / item['rows_before']:.1%} | {same} "
            f"| {item['other_texts']:.1%} | {item['other_tokens']:.1%} | {_mb(item['file'])} |"
        )
    return lines


def _sensitive(results: Mapping[str, Any]) -> list[str]:
    layers = sorted(results["sensitivity"].items(), key=lambda item: -item[1])
    chosen = [*layers[:5], *layers[-3:]]
    lines = ["", "The layers that lose most alone at four bits by plain rounding, and the three that lose least:", ""]
    lines += ["| layer | 1 - mean cosine |", "|---|---:|"]
    return lines + [f"| `{name}` | {loss:.5f} |" for name, loss in chosen]


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def write(*, check: bool) -> bool:
    """Whether all pages said the same already; they are written unless only a check was asked for."""
    results = read_stored(STORED, "Give a file of texts to measure with.")
    return update_all({PAGES / f"{page}.md": block(results, page) for page in RECIPES}, check=check)


def main() -> int:
    """Measure and write; or only write, or only check."""
    return command_on_texts("Tables of docs/techniques", write, measure, STORED, threads=1)


if __name__ == "__main__":
    sys.exit(main())
