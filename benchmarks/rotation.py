"""What centring and rotating earn on the real MiniLM, and what they cost at run time: through the native engine.

python -m benchmarks.rotation            # measure, store, write the tables of docs/techniques
python -m benchmarks.rotation --write    # write the tables anew from what is stored
python -m benchmarks.rotation --check    # fail if a page says anything else

The texts are those of the peers' benchmark and the sentences of STS-B's dev part, in `$TIGHTROPE_DATA`. Calibration is
on the built-in texts, which are of other kinds than both.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.documents import RESULTS, command, read_stored, store, update_all
from benchmarks.peers.corpus import corpus_folder
from benchmarks.peers.results import processor
from benchmarks.techniques import BEGIN, END, MODEL, PAGES, lines_of, vectors
from tightrope.device import engine
from tightrope.device.runtimes.native import NativeSession, open_artefact
from tightrope.device.senses.text import Tokenizer
from tightrope.device.session import Ragged
from tightrope.errors import DataError
from tightrope.recipe import Recipe
from tightrope.samples import ScoredPairs
from tightrope.workshop.compress import compress
from tightrope.workshop.convert.native import convert
from tightrope.workshop.data import read
from tightrope.workshop.load import load
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.quantized import Floats
from tightrope.workshop.observe import Observer
from tightrope.workshop.texts import default_texts
from tightrope.workshop.verify import ranks

STORED = RESULTS / "rotation.json"
G8 = "int8(compensation=gptq)"

RECIPES: Mapping[str, Sequence[str]] = {
    "rotate": (
        "int8",
        "rotate(block=8) + int8",
        "rotate(block=32) + int8",
        "rotate + int8",
        "rotate(block=512) + int8",
        G8,
        f"rotate + {G8}",
        "smooth + int8",
        "smooth + rotate + int8",
        f"smooth + {G8}",
        f"smooth + rotate + {G8}",
        f"center + rotate + {G8}",
    ),
    "center": (
        "int8",
        "center + int8",
        G8,
        f"center + {G8}",
        "rotate + int8",
        "center + rotate + int8",
        f"rotate + {G8}",
        f"center + rotate + {G8}",
        f"center + smooth + {G8}",
        f"center + smooth + rotate + {G8}",
    ),
}
"""The recipes that each page shows, in its order."""

ROUNDS = 400
TIMED_TOKENS = 32


def measure() -> None:
    """Each recipe once for its answers, and all of them in turn for their time."""
    texts, pairs = lines_of(corpus_folder() / "corpus.txt"), graded_pairs()
    original, calibration = load(MODEL), default_texts(("en",), "seen")
    observer = Observer(original, calibration)
    everything = (*texts, *pairs.texts)
    before = vectors(original, everything, 2)
    found: dict[str, Any] = {"original": {"spearman": spearman(pairs, before[len(texts) :])}}
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, tuple[Path, Mapping[str, Any]]] = {}
        for recipe in dict.fromkeys(item for items in RECIPES.values() for item in items):
            converted = convert(compress(original, Recipe.parse(recipe).steps, observer))
            paths[recipe] = converted.write(Path(folder))["model"], converted.settings
            with opened(*paths[recipe]) as session:
                after = answers(session, original, everything)
            cosines = (after * before).sum(1)
            found[recipe] = {
                **summary("corpus", cosines[: len(texts)]),
                **summary("sentences", cosines[len(texts) :]),
                "spearman": spearman(pairs, after[len(texts) :]),
            }
            print(f"{recipe:60} {found[recipe]}", flush=True)
        for recipe, ratio in times(paths, original).items():
            found[recipe]["time"] = ratio
    conditions = {
        "model": MODEL,
        "texts": len(texts),
        "sentences": len(pairs.texts),
        "pairs": len(pairs.pairs),
        "calibration_texts": len(calibration),
        "processor": processor(),
        "isa": engine.isa(),
        "rounds": ROUNDS,
        "tokens": TIMED_TOKENS,
        "tightrope": version("tightrope"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    store(STORED, {"conditions": conditions, "recipes": found})


def graded_pairs() -> ScoredPairs:
    """STS-B's dev part. Raises `DataError` when it is nowhere."""
    folder = Path(os.environ.get("TIGHTROPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    samples = read(folder / "stsbenchmark" / "sts-dev.csv")
    if not isinstance(samples, ScoredPairs):
        raise DataError("sts-dev.csv holds no graded pairs.", hint="Set TIGHTROPE_DATA to the folder of STS-B.")
    return samples


def summary(name: str, cosines: Floats) -> dict[str, float]:
    """The least and the mean of some cosines, under names that begin alike."""
    return {f"{name}_min": float(cosines.min()), f"{name}_mean": float(cosines.mean())}


def spearman(pairs: ScoredPairs, rows: Floats) -> float:
    """The rank correlation of the pairs' cosines with their scores; `rows` [texts, width] of unit length."""
    place = {text: index for index, text in enumerate(pairs.texts)}
    first, second = (rows[[place[pair[side]] for pair in pairs.pairs]] for side in (0, 1))
    given, gold = (first * second).sum(1, dtype=np.float64), np.array(pairs.scores, np.float64)
    ones = np.ones((1, len(gold)))
    return float(ranks.spearman(ranks.Order.of(given), ranks.Order.of(gold), ones)[0])


@contextmanager
def opened(path: Path, settings: Mapping[str, Any]) -> Iterator[NativeSession]:
    """The engine's own session on one thread, closed at the end."""
    session = open_artefact({"model": path}, settings, threads=1)
    try:
        yield session
    finally:
        session.close()


def answers(session: NativeSession, model: Model, texts: Sequence[str]) -> Floats:
    """What the engine answers: float32 [n, width], of unit length."""
    ids = Tokenizer(model.senses.tokenizer, model.senses.max_length).encode(texts).ids
    return fed(session, ids)


def fed(session: NativeSession, ids: Ragged) -> Floats:
    """Rows for ragged ids."""
    found: Floats = session.run({"input_ids": ids.values.astype(np.int32), "offsets": ids.offsets})["embedding"]
    return found


def times(paths: Mapping[str, tuple[Path, Mapping[str, Any]]], model: Model) -> dict[str, float]:
    """How long each takes for one text, over how long `int8` does: turn by turn, the median of the ratios."""
    ids = Tokenizer(model.senses.tokenizer, TIMED_TOKENS).encode([" ".join(["the cat sat on a mat"] * 9)]).ids
    sessions = {recipe: open_artefact({"model": path}, how, threads=1) for recipe, (path, how) in paths.items()}
    ratios: dict[str, list[float]] = {recipe: [] for recipe in sessions}
    for _ in range(ROUNDS):
        took = {recipe: seconds(session, ids) for recipe, session in sessions.items()}
        for recipe, value in took.items():
            ratios[recipe].append(value / took["int8"])
    for session in sessions.values():
        session.close()
    return {recipe: median(values) for recipe, values in ratios.items()}


def seconds(session: NativeSession, ids: Ragged) -> float:
    """The best of three, after one that is not counted: the weights are then as near as they get."""
    fed(session, ids)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        fed(session, ids)
        best = min(best, time.perf_counter() - start)
    return best


def block(results: Mapping[str, Any], page: str) -> str:
    """One page's table between its markers, and how its figures came about."""
    about, found = results["conditions"], results["recipes"]
    whole = found["original"]["spearman"]
    lines = [
        BEGIN,
        "| recipe | corpus: mean | min | STS-B sentences: mean | min | STS-B Spearman | time |",
        "|---|---:|---:|---:|---:|---:|---:|",
        f"| `original` | 1 | 1 | 1 | 1 | {100 * whole:.2f} | |",
    ]
    for recipe in RECIPES[page]:
        item = found[recipe]
        lines.append(
            f"| `{recipe}` | {item['corpus_mean']:.5f} | {item['corpus_min']:.4f} | {item['sentences_mean']:.5f} "
            f"| {item['sentences_min']:.4f} | {100 * item['spearman']:.2f} | {item['time']:.2f} |"
        )
    lines += [
        "",
        f"{about['model']}, the {about['texts']:,} texts of the peers' corpus, and the {about['sentences']:,} "
        f"sentences of STS-B's dev part in {about['pairs']:,} pairs; calibrated on {about['calibration_texts']} "
        f"built-in texts of other kinds. The native engine by {about['isa']} on {about['processor']}, {about['date']}. "
        f"Cosines are to the fp32 model. Time is that of one text of {about['tokens']} tokens over that of `int8`, "
        f"the median of {about['rounds']} turns.",
        END,
    ]
    return "\n".join(lines)


def write(*, check: bool) -> bool:
    """Whether the pages said the same already; they are written unless only a check was asked for."""
    results = read_stored(STORED, "Measure: python -m benchmarks.rotation")
    return update_all({PAGES / f"{page}.md": block(results, page) for page in RECIPES}, check=check)


def main() -> int:
    """Measure and write; or only write, or only check."""
    return command("Tables of docs/techniques", write, measure)


if __name__ == "__main__":
    sys.exit(main())
