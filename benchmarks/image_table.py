"""The tables of image classifiers in docs/guide/images.md and docs/techniques/reparameterize.md, from the stored run.

python -m benchmarks.image_table --write    # write them anew
python -m benchmarks.image_table --check    # fail if a page says anything else

What is stored is measured by `python -m benchmarks.images.measure`, which needs torch only for the models.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.documents import RESULTS, ROOT, command, read_stored, update_all
from tightrope import units

STORED = RESULTS / "images.json"
GUIDE, PAGE = ROOT / "docs" / "guide" / "images.md", ROOT / "docs" / "techniques" / "reparameterize.md"
NAMES = {
    "efficientnet-lite0": "EfficientNet-lite0, ImageNet",
    "resnet8": "ResNet-8, CIFAR-10",
    "repvgg": "RepVGG, CIFAR-10",
}


def guide(found: Mapping[str, Any]) -> str:
    """Every model, recipe and engine."""
    lines = [
        "<!-- images:begin -->",
        "| model | recipe | engine | top-1 | loss | agreement | size | p50 | speed |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, model in found["models"].items():
        for row, value in model["rows"].items():
            recipe, _, engine = row.rpartition(" -> ")
            lines.append(f"| {NAMES[name]} | `{recipe}` | {engine} | {_row(value)} |")
    counts = ", ".join(
        f"{NAMES[name]}: {model['calibration_images']} and {model['reference']['n']}"
        for name, model in found["models"].items()
    )
    return "\n".join(
        [*lines, "", f"{_about(found)} Images to calibrate by and to report: {counts}.", "<!-- images:end -->"]
    )


def technique(found: Mapping[str, Any]) -> str:
    """RepVGG alone, with the share of its time that is left."""
    lines = [
        "<!-- reparameterize:begin -->",
        "| recipe | engine | top-1 | loss | agreement | size | p50 | speed |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row, value in found["models"]["repvgg"]["rows"].items():
        recipe, _, engine = row.rpartition(" -> ")
        lines.append(f"| `{recipe}` | {engine} | {_row(value)} |")
    return "\n".join([*lines, "", _about(found), "<!-- reparameterize:end -->"])


def _row(value: Mapping[str, Any]) -> str:
    return " | ".join(_cells(value))


def _cells(value: Mapping[str, Any]) -> Iterator[str]:
    quality, loss = value["quality"], value["quality"]["loss"]
    low, high = (units.show(loss[end], "fraction") for end in ("low", "high"))
    yield f"{100 * quality['score']:.1f} %"
    yield f"{units.show(loss['value'], 'fraction')} [{low}, {high}]"
    yield f"{100 * quality['beside']['agreement']:.1f} %"
    yield units.show(value["size_bytes"], "bytes")
    yield units.show(value["p50_s"], "seconds")
    speed = value["speedup"]
    yield "1" if speed is None else f"{speed[0]:.2f}x [{speed[1]:.2f}, {speed[2]:.2f}]"


def _about(found: Mapping[str, Any]) -> str:
    about = found["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if name != "tightrope")
    return (
        f"{about['processor']}, {about['threads']} pinned thread, {about['date']}; {versions}; `{about['command']}`, "
        f"{about['seconds']:g} s a row. Speed is against the fp32 original on the same engine, in turns, with its 95 % "
        "interval; loss is relative, with its paired-bootstrap interval."
    )


def write(*, check: bool) -> bool:
    """Bring both pages up to date; whether they were."""
    found = read_stored(STORED, "Measure: python -m benchmarks.images.measure")
    return update_all({GUIDE: guide(found), PAGE: technique(found)}, check=check)


if __name__ == "__main__":
    sys.exit(command("docs/guide/images.md and docs/techniques/reparameterize.md", write))
