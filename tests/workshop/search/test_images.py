"""Fitting a classifier of images: three parts of the data, recipes that make sense, and one fit from end to end."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tightrope
from tightrope.device.senses.image import packed
from tightrope.errors import BudgetError, DataError
from tightrope.measurement import IMAGE
from tightrope.samples import LabelledImages
from tightrope.workshop.load import languages_of, load
from tightrope.workshop.pictures import pictures
from tightrope.workshop.search import space
from tightrope.workshop.search.question import ask
from tightrope.workshop.verify.answers import ReferenceClassifier, open_reference

ENGINES = ("onnxruntime", "openvino")


def photos(folder: Path, count: int, seed: int = 3) -> Path:
    folder.mkdir()
    lines = ["file,label"]
    for place, pixels in enumerate(pictures(16, 16, 3, count, seed=seed)):
        (folder / f"{place}.npy").write_bytes(packed(pixels))
        lines.append(f"{place}.npy,{place % 5}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_calibrating_choosing_and_quoted_images_are_others(tiny_cnn: Path, tmp_path: Path) -> None:
    model = load(str(tiny_cnn))
    assert languages_of(str(tiny_cnn), model) == ()
    question = ask(model, (), photos(tmp_path / "photos", 40))
    parts = [question.calibrating, question.seen.samples, question.report.samples]
    digests = [set(part.digests) for part in parts if isinstance(part, LabelledImages)]
    assert [len(part) for part in digests] == [10, 10, 20]
    assert len(set.union(*digests)) == 40
    assert len(question.calibration(model)) == 10 and len(question.proof(model)) == 8


def test_quoted_images_of_their_own_must_be_others(tiny_cnn: Path, tmp_path: Path) -> None:
    model = load(str(tiny_cnn))
    first, second = photos(tmp_path / "first", 40), photos(tmp_path / "second", 20, seed=4)
    assert len(getattr(ask(model, (), first, second).report.samples, "labels", ())) == 20
    with pytest.raises(DataError, match="images are in"):
        ask(model, (), first, first)
    with pytest.raises(DataError, match="calibrated and judged on images"):
        ask(model, (), None)


def test_recipes_are_for_images_and_merge_where_there_are_branches(tiny_cnn: Path) -> None:
    model = load(str(tiny_cnn))
    recipes = [*space.first(model, ENGINES), *space.others(model, ENGINES)]
    assert len({str(recipe) for recipe in recipes}) == len(recipes)
    assert {recipe.engine for recipe in recipes} == set(ENGINES)
    assert all(str(recipe).startswith("reparameterize") for recipe in recipes)
    assert "gptq" not in " ".join(map(str, recipes))


@pytest.mark.engine
@pytest.mark.slow
def test_a_fit_from_end_to_end(
    tiny_cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Callable[..., None]
) -> None:
    need("openvino")
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path / "cache"))
    folder, original = photos(tmp_path / "photos", 60), open_reference(load(str(tiny_cnn)))
    assert isinstance(original, ReferenceClassifier)
    said = [original.logits([(folder / f"{place}.npy").read_bytes()]).argmax() for place in range(60)]
    rows = [f"{place}.npy,{label}" for place, label in enumerate(said)]  # so that the original itself is always right
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    result = tightrope.fit(
        str(tiny_cnn),
        "size<=100MB, loss<=30%",
        out=tmp_path / "tiny.bundle",
        data=folder,
        engines=ENGINES,
        seconds=30.0,
    )
    run = result.run
    timed = [trial for trial in run.trials if trial.measurement is not None]
    assert timed and run.report is not None
    assert run.report.kind == "classification" and run.report.n == 30 and run.report.original == 1
    for trial in timed:
        assert trial.quality is not None and trial.quality.n == 15  # other images than those that are quoted
        assert trial.measurement is not None and [item.tokens for item in trial.measurement.latencies] == [IMAGE]
    # so small a network is smaller in eight bits only where nothing is written around its few weights
    assert result or any("neither smaller nor faster" in reason for reason in run.breaches)


def test_a_budget_by_length_of_text_is_refused(tiny_cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="takes images"):
        tightrope.fit(
            str(tiny_cnn),
            "latency[128]<=1ms",
            out=tmp_path / "no.bundle",
            data=photos(tmp_path / "photos", 40),
            engines=("onnxruntime",),
        )
