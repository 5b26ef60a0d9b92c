"""What eight bits and merged branches cost and gain image classifiers, for each engine: accuracy and time in one run.

    python -m benchmarks.images.models && python -m benchmarks.images.train_repvgg
    python -m benchmarks.images.measure --data ../shared/data        # about ten minutes on one core

Images to calibrate by and images to report share none: of CIFAR they are the parts of `cifar` (the network that was
trained here saw neither), of the ImageNet sample the quarter and the half that `split_images` deals out. Times are of
the whole call on pixels of the model's own size, in turns with the fp32 original on the same engine, each in a process
of its own.
"""

import argparse
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.documents import RESULTS, read_stored, store
from benchmarks.images import cifar
from benchmarks.peers.results import processor
from tightrope.device.meter.run import Place, Plan, Subject, measure
from tightrope.device.senses.image import packed
from tightrope.measurement import IMAGE, Measurement
from tightrope.recipe import Recipe
from tightrope.samples import LabelledImages
from tightrope.workshop.data import read_images, split_images
from tightrope.workshop.load import load
from tightrope.workshop.model import Model, image_senses
from tightrope.workshop.pictures import pictures
from tightrope.workshop.search.laboratory import Laboratory
from tightrope.workshop.search.question import Part, Question
from tightrope.workshop.verify.answers import Answers

STORED = RESULTS / "images.json"
ENGINES = ("onnxruntime", "openvino")
INT8 = "int8(activations=static)"
RECIPES: Mapping[str, tuple[str, ...]] = {
    "efficientnet-lite0": (INT8, "int8(activations=static, calibration=percentile)", "int8(activations=none)"),
    "resnet8": (INT8, "int8(activations=static, calibration=percentile)", "int8(activations=none)"),
    "repvgg": ("reparameterize", INT8, f"reparameterize + {INT8}"),
}
MOST_CALIBRATING = 256
SECONDS = 8.0


def parts(name: str, model: Model, data: Path, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Images to calibrate by, and images to report."""
    labels = model.task.labels
    if name == "efficientnet-lite0":
        calibrating, _, quoted = split_images(read_images(imagenet(data, folder / "imagenet"), labels))
        return calibrating, quoted
    place = cifar.unpack(data, folder / "cifar")
    chosen = read_images(place / cifar.CHOOSE, labels)
    every = max(1, len(chosen.labels) // MOST_CALIBRATING)
    fields = {part: getattr(chosen, part)[::every] for part in ("paths", "digests", "labels")}
    return LabelledImages(**fields), read_images(place / cifar.REPORT, labels)


def imagenet(data: Path, folder: Path) -> Path:
    """The sample's images with a list of those that are there."""
    if not (folder / "labels.csv").is_file():
        with tarfile.open(data / "imagenet_sample" / "images_256short_q90.tar") as archive:
            archive.extractall(folder, filter="data")
        head, *rows = (data / "imagenet_sample" / "labels.csv").read_text().splitlines()
        there = [row for row in rows if (folder / row.partition(",")[0]).is_file()]
        (folder / "labels.csv").write_text("\n".join([head, *there]) + "\n")
    return folder


def laboratory(name: str, data: Path, folder: Path) -> Laboratory:
    """A laboratory that calibrates on the one part and reports on the other."""
    source = str(folder / name / "model.onnx")
    model = load(source)
    calibrating, quoted = parts(name, model, data, folder)
    question = Question(
        seen=Part(samples=calibrating, name="calibration"),
        report=Part(samples=quoted, name=f"{name}, the part for the report"),
        calibrating=calibrating,
    )
    return Laboratory.of(source, model, question, plan=Plan(lengths=(IMAGE,)), patience_s=600.0)


def rows(name: str, laboratory: Laboratory) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row for each recipe on each engine: the original first, against which the others are timed."""
    senses = image_senses(laboratory.model)
    images = [packed(item) for item in pictures(senses.height, senses.width, senses.channels, 8)]
    plan = Plan(lengths=(IMAGE,), seconds=SECONDS, limit_s=120.0)
    for engine in ENGINES:
        first, _ = laboratory.make(Recipe((), engine))
        with Subject(first, images, plan, Place()) as subject:
            for recipe in ("original", *RECIPES[name]):
                made = first if recipe == "original" else laboratory.make(Recipe.parse(recipe, engine=engine))[0]
                quality, close, _ = laboratory.quality(made, laboratory.question.report)
                against = subject if recipe != "original" else None
                found = subject.measure() if against is None else measure(made, images, plan, Place(), against=against)
                yield (
                    f"{recipe} -> {engine}",
                    {
                        "quality": quality.to_json(),
                        "cosine": None if close is None else {"min": close.cosine_min, "mean": close.cosine_mean},
                        "size_bytes": made.size_bytes,
                        **times(found),
                    },
                )


def times(found: Measurement) -> dict[str, Any]:
    """What is stored of a measurement."""
    latency = found.latency(IMAGE)
    assert latency is not None
    speedup = latency.speedup
    return {
        "p50_s": latency.p50_s,
        "n": latency.n,
        "speedup": None if speedup is None else [speedup.value, speedup.low, speedup.high],
        "memory_peak_bytes": found.memory_peak_bytes,
    }


def reference_accuracy(laboratory: Laboratory) -> dict[str, Any]:
    """The fp32 reference itself on the part for the report."""
    part = laboratory.question.report
    given = laboratory._original_given(part)
    assert isinstance(given, Answers) and isinstance(part.samples, LabelledImages)
    labels = np.array(part.samples.labels)
    return {"top1": float((given.values.argmax(1) == labels).mean()), "n": len(labels)}


def main() -> int:
    """Measure all, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=Path, default=Path("build/images"))
    parser.add_argument("--only", default=",".join(RECIPES))
    said = parser.parse_args()
    found: dict[str, Any] = read_stored(STORED, "")["models"] if STORED.is_file() else {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TIGHTROPE_CACHE"] = cache  # a measurement is made anew, whatever an earlier version kept
        for name in said.only.split(","):
            with laboratory(name, said.data, said.models) as made:
                found[name] = {
                    "reference": reference_accuracy(made),
                    "calibration_images": len(made.question.calibration(made.model)),
                    "parameters": int(sum(np.prod(weight.shape) for weight in made.model.weights.values())),
                    "rows": {},
                }
                for row, value in rows(name, made):
                    found[name]["rows"][row] = value
                    quality = value["quality"]
                    print(f"{name:20} {row:60} top-1 {quality['score']:.4f} {value['p50_s'] * 1e3:.3f} ms", flush=True)
    conditions = {
        "processor": processor(),
        "threads": 1,
        "seconds": SECONDS,
        "command": "python -m benchmarks.images.measure",
        "versions": {item: version(item) for item in ("tightrope", "onnxruntime", "openvino", "pillow")},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    store(STORED, {"conditions": conditions, "models": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
