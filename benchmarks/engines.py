"""Every installed engine side by side, as `tightrope compare` finds them, on a text encoder and on an image classifier.

python -m benchmarks.engines            # measure, store, write the tables of docs/guide/engines.md: half an hour
python -m benchmarks.engines --write    # write the tables anew from what is stored
python -m benchmarks.engines --check    # fail if the page says anything else
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.documents import RESULTS, ROOT, command, update
from tightrope.errors import DataError
from tightrope.workshop.comparison.compare import Settings, compare
from tightrope.workshop.comparison.outcome import Cell, Comparison, lengths
from tightrope.workshop.report import engines
from tightrope.workshop.report.progress import Progress
from tightrope.workshop.report.run_file import read_comparison, write_run

PAGE = ROOT / "docs" / "guide" / "engines.md"
PRECISIONS = ("fp32", "int8")
SECONDS = 900.0
TEXTS, PICTURES = RESULTS / "engines.json", RESULTS / "engines_images.json"
WAY_OUT = "python -m benchmarks.engines makes one."


IMAGES = ROOT / "build" / "images"
DATA = Path(os.environ.get("TIGHTROPE_DATA", ROOT.parent / "shared" / "data"))


def measure() -> None:
    """Compare on each model, and store what was found."""
    _compare("all-MiniLM-L6-v2", TEXTS, "all-MiniLM-L6-v2")
    classifier = IMAGES / "efficientnet-lite0" / "model.onnx"
    if not classifier.exists():
        print(f"There is no {classifier.relative_to(ROOT)}: python -m benchmarks.images.models makes it.")
        return
    from benchmarks.images.measure import imagenet  # it needs Pillow, which the tables do not

    imagenet(DATA, IMAGES / "imagenet")
    _compare(str(classifier), PICTURES, "efficientnet-lite0/model.onnx --images imagenet", data=IMAGES / "imagenet")


def _compare(source: str, stored: Path, asked: str, data: Path | None = None) -> None:
    words = f"tightrope compare {asked} --engines all --precision {','.join(PRECISIONS)}"
    settings = Settings(precisions=PRECISIONS, seconds=SECONDS, command=words, data=data)
    with Progress() as watcher:
        found = compare(source, watcher=watcher, settings=settings)
    write_run(replace(found, model=asked.partition("/")[0]), stored)


def block(name: str, found: Comparison) -> str:
    """What belongs between the markers of this name, with them."""
    timed = lengths(found.cells)
    if not timed:
        raise DataError(f"The stored comparison of {found.model} timed nothing.", hint=WAY_OUT)
    middle = engines.middle(found)
    assert middle is not None
    spoken = ", ".join(map(str, timed)) + " tokens" if len(timed) > 1 else "one image"
    named = (
        "times faster" if len(timed) == 1 else f"times faster at {middle}",
        "throughput",
        "peak memory",
        "start",
        "artefact",
        "cosine least, mean",
    )
    rows = [f"| engine | p50 with {spoken} | {' | '.join(named)} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for cell in engines.ordered(found):
        calls = ", ".join(engines.times(cell, tokens).partition(" / ")[0] for tokens in timed)
        cells = (engines.title(found, cell), calls, engines.faster(cell, middle), *engines.costs(cell), _close(cell))
        rows.append(f"| {' | '.join(cells)} |")
    begin, end = (f"<!-- {name}:{word} -->" for word in ("begin", "end"))
    told = f"`{found.command}`: {found.model}, {engines.headline(found)}. {engines.measured_how(found)}"
    return "\n".join([begin, *rows, "", told, "", *_failures(found), *_facts(found), end])


def _close(cell: Cell) -> str:
    close = cell.parity
    return f"{close.cosine_min:.4f}, {close.cosine_mean:.4f}" if close else engines.UNTOLD


def _failures(found: Comparison) -> list[str]:
    lost = engines.failures(found)
    if not lost:
        return []
    rows = [f"| {name} | {state} | {reason.replace('|', '/')} |" for name, state, reason in lost]
    return ["| not timed | | why |", "|---|---|---|", *rows, ""]


def _facts(found: Comparison) -> list[str]:
    rows = [f"| {' | '.join(row)} |" for row in engines.facts(found)]
    return ["| engine | version | on disk | licence | Python | architectures |", "|---|---|---:|---|---|---|", *rows]


def write(page: Path = PAGE, *, check: bool = False) -> bool:
    """Whether the page said the same already. It is written unless only a check was asked for."""
    same = True
    for stored in (TEXTS, PICTURES):
        if stored == TEXTS or stored.exists():
            same &= update(page, block(stored.stem, read_comparison(stored)), check=check)
    return same


def main() -> int:
    """Measure and write; or only write, or only check."""
    return command("The tables of docs/guide/engines.md", write, measure)


if __name__ == "__main__":
    sys.exit(main())
