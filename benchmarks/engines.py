"""What each engine makes of the named recipes on the real MiniLM: one fit that tries exactly these, stored as its run.

python -m benchmarks.engines            # measure, store, write the table of docs/guide/engines.md
python -m benchmarks.engines --write    # write the table anew from what is stored
python -m benchmarks.engines --check    # fail if the page says anything else
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.documents import RESULTS, ROOT, command, read_stored, update
from tightrope import units
from tightrope.errors import DataError
from tightrope.recipe import Recipe
from tightrope.workshop import recipes
from tightrope.workshop.report.progress import Progress
from tightrope.workshop.report.run_file import write_run
from tightrope.workshop.search.fit import fit
from tightrope.workshop.search.trial import Run, Trial

MODEL = "all-MiniLM-L6-v2"
ENGINES = ("native", "onnxruntime", "openvino")
STORED = RESULTS / "engines.json"
PAGE = ROOT / "docs" / "guide" / "engines.md"
BEGIN, END = "<!-- engines:begin -->", "<!-- engines:end -->"
SECONDS = 400.0


def tried() -> dict[str, str]:
    """The written recipe of each named one on each engine, and its name."""
    return {
        str(Recipe(recipe.steps, engine)): name
        for name, recipe in recipes.named().items()
        for engine in ENGINES
        if recipe.steps
    }


def measure() -> Run:
    """Try all of them, with a budget that anything meets."""
    with tempfile.TemporaryDirectory() as folder, Progress() as watcher:
        wanted = tuple(map(Recipe.parse, tried()))
        out = Path(folder) / "best.bundle"
        return fit(MODEL, "loss<=99%", out=out, watcher=watcher, recipes=wanted, seconds=SECONDS).run


def block(run: Run) -> str:
    """What belongs between the markers, with them."""
    names = tried()
    measured = [trial for trial in run.trials if trial.measurement is not None and trial.recipe in names]
    if not measured:
        raise DataError("The stored run timed none of the named recipes.", hint="Run benchmarks.engines again.")
    rows = [_row(trial, names[trial.recipe]) for trial in sorted(measured, key=lambda trial: trial.recipe)]
    head = "| recipe | engine | speed at 12, 32, 128 tokens | cosine mean, least | peak memory | size |"
    return "\n".join([BEGIN, head, "|---|---|---:|---:|---:|---:|", *rows, "", _conditions(run, measured), END])


def _row(trial: Trial, name: str) -> str:
    found, close = trial.measurement, trial.parity
    assert found is not None
    speeds = ", ".join(f"{item.speedup.value:.2f}x" for item in found.latencies if item.speedup)
    cosines = f"{close.cosine_mean:.4f}, {close.cosine_min:.4f}" if close else "–"
    memory = units.show(found.memory_peak_bytes, "bytes") if found.memory_peak_bytes else "not measured"
    size = units.show(found.size_bytes, "bytes")
    return f"| {name} | {found.conditions.engine} | {speeds} | {cosines} | {memory} | {size} |"


def _conditions(run: Run, measured: list[Trial]) -> str:
    about = [trial.measurement.conditions for trial in measured if trial.measurement is not None]
    engines = " and ".join(sorted({f"{item.engine} {item.engine_version}" for item in about}))
    texts = measured[0].quality.n if measured[0].quality else 0
    return (
        f"{run.model}; {about[0].processor}, {about[0].threads} pinned thread; {engines}. Speed: beside the original "
        f"on {about[0].baseline}, in turns. Cosine: with the original, on {texts} built-in texts, the half that "
        "calibrated too. Peak memory: of a fresh process that opens the bundle and embeds 64 texts."
    )


def write(page: Path = PAGE, stored: Path = STORED, *, check: bool = False) -> bool:
    """Whether the page said the same already. It is written unless only a check was asked for."""
    run = Run.from_json(read_stored(stored, "python -m benchmarks.engines makes one."))
    return update(page, block(run), check=check)


def main() -> int:
    """Measure and write; or only write, or only check."""
    return command("The table of docs/guide/engines.md", write, lambda: write_run(measure(), STORED))


if __name__ == "__main__":
    sys.exit(main())
