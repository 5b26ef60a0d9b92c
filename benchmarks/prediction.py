"""How far predictions are from measurements, on models that the probe never saw, from the probe alone.

python -m benchmarks.prediction            # probe, measure, store, write the table of docs/guide/targets.md
python -m benchmarks.prediction --write    # write the table anew from what is stored
python -m benchmarks.prediction --check    # fail if the page says anything else

The unseen: all-MiniLM-L6-v2, encoders of other depths and widths, and convolutional networks of other shapes, real ones
where benchmarks.images.models wrote them.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import RESULTS, ROOT, command, read_stored, store, update
from benchmarks.peers.results import processor
from tightrope.device.meter.run import Place
from tightrope.workshop.benches.converting import Converters
from tightrope.workshop.load import load
from tightrope.workshop.model import Model
from tightrope.workshop.prediction import models
from tightrope.workshop.prediction.models import Convolutional, Encoder
from tightrope.workshop.prediction.predict import as_target, predict
from tightrope.workshop.prediction.probing import Prober, probe

STORED = RESULTS / "prediction.json"
PAGE = ROOT / "docs" / "guide" / "targets.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
ENGINES = ("native", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "int8")
LENGTHS = (8, 24, 64, 180)
IMAGES = ROOT / "build" / "images"


def unseen() -> Iterator[tuple[str, Model]]:
    """Models that no probe knows, by what they are called."""
    yield "all-MiniLM-L6-v2", load("all-MiniLM-L6-v2")
    yield "encoder, 3 layers of 192", models.encoder(Encoder(layers=3, width=192, heads=6))
    yield "encoder, 8 layers of 320", models.encoder(Encoder(layers=8, width=320, heads=5))
    yield "encoder, 2 layers of 512", models.encoder(Encoder(layers=2, width=512, heads=8))
    yield "CNN, 3 blocks of 40", models.convolutional(Convolutional(blocks=3, channels=40, side=48))
    yield "CNN, 6 blocks of 20", models.convolutional(Convolutional(blocks=6, channels=20, side=64))
    for path in sorted(IMAGES.glob("*/model.onnx")):
        yield path.parent.name, load(str(path))


def measure() -> None:
    """Probe this machine, then time what the probe has not seen."""
    found = probe(ENGINES, PRECISIONS, say=lambda text: print("probing", text, file=sys.stderr))
    device = as_target("here", found)
    rows: list[dict[str, Any]] = []
    with Converters() as converters, tempfile.TemporaryDirectory() as folder:
        prober = Prober(converters, Path(folder), Place(), 1)
        for name, model in unseen():
            for engine in ENGINES:
                if model.task.name == "classification" and engine == "native":
                    continue
                for precision in PRECISIONS:
                    print(name, engine, precision, file=sys.stderr)
                    for timed in prober.times(model, engine, precision, LENGTHS):
                        said = predict(model, device, engine, precision, (timed.tokens or 1,))[0]
                        row = {"model": name, "engine": engine, "precision": precision, "tokens": timed.tokens}
                        rows.append(row | {"timed_s": timed.seconds, "predicted_s": said.seconds})
    store(STORED, {"processor": processor(), "probe": asdict(found), "rows": rows})


def table(stored: Mapping[str, Any]) -> str:
    """The block of the page."""
    rows = stored["rows"]
    lines = [
        BEGIN,
        "",
        f"On {stored['processor']}, one thread; {len(rows)} pairs of model and length that the probe had not seen:",
        "",
        "| engine | precision | n | median error | worst | rank correlation |",
        "|---|---|---|---|---|---|",
    ]
    groups = [(engine, precision) for engine in ENGINES for precision in PRECISIONS]
    for engine, precision in groups:
        chosen = [row for row in rows if (row["engine"], row["precision"]) == (engine, precision)]
        lines.append(f"| {engine} | {precision} | {_figures(chosen)} |")
    lines += [f"| all | | {_figures(rows)} |", "", END]
    return "\n".join(lines)


def _figures(rows: list[Mapping[str, Any]]) -> str:
    errors = [abs(row["predicted_s"] / row["timed_s"] - 1) for row in rows]
    correlation = _spearman([row["predicted_s"] for row in rows], [row["timed_s"] for row in rows])
    return f"{len(rows)} | {statistics.median(errors):.0%} | {max(errors):.0%} | {correlation:.3f}"


def _spearman(a: list[float], b: list[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def write(*, check: bool) -> bool:
    """Bring the page up to date."""
    return update(PAGE, table(read_stored(STORED, "Make one: python -m benchmarks.prediction")), check=check)


if __name__ == "__main__":
    sys.exit(command("docs/guide/targets.md", write, measure))
