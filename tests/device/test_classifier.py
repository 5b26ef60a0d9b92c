"""A bundle of images from the door to the proof: made, opened, asked, verified, measured, and refused when broken."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tightrope
from tightrope import bundle, plugins
from tightrope.device.classifier import Classifier, open_any
from tightrope.device.meter.run import measure_bundle
from tightrope.device.model import open_bundle
from tightrope.device.proof import inputs, prove
from tightrope.device.senses.image import packed
from tightrope.errors import BundleError, DataError, UnsupportedError
from tightrope.manifest import canonical
from tightrope.measurement import IMAGE
from tightrope.workshop.pictures import pictures
from tightrope.workshop.search.single import compress, rebuild

IMAGES = pictures(16, 16, 3, 6, seed=7)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures as arrays in files, in five classes that mean nothing."""
    folder = tmp_path_factory.mktemp("photos")
    lines = ["file,label"]
    for place, pixels in enumerate(pictures(16, 16, 3, 40, seed=3)):
        (folder / f"{place}.npy").write_bytes(packed(pixels))
        lines.append(f"{place}.npy,{place % 5}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session", params=["onnxruntime", "openvino"])
def made(
    request: pytest.FixtureRequest,
    tiny_cnn: Path,
    photos: Path,
    need: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny classifier in eight bits, as a bundle for each engine."""
    need(request.param)
    path = tmp_path_factory.mktemp(request.param) / "tiny.bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIGHTROPE_CACHE", str(path.parent / "cache"))
        compress(str(tiny_cnn), f"reparameterize + int8(activations=static) -> {request.param}", path, data=photos)
    return path


def test_it_classifies_arrays_and_files(made: Path, need: Callable[..., None], tmp_path: Path) -> None:
    with tightrope.open(made) as model:
        assert isinstance(model, Classifier)
        scores = model.classify(IMAGES)
        assert scores.shape == (6, 5) and scores.dtype == np.float32
        assert np.allclose(scores.sum(1), 1, atol=1e-5)  # the original ends with a softmax
        logits = model.classify(IMAGES, softmax=False)
        assert np.array_equal(logits, model.logits(IMAGES)) and not np.allclose(logits.sum(1), 1)
        assert np.array_equal(model.classify(IMAGES[2:3]), scores[2:3])
        first = model.top(IMAGES[:1], 2)[0]
        assert [name for name, _ in first] == [model.labels[place] for place in np.argsort(-scores[0])[:2]]
        assert model.classify([]).shape == (0, 5)
        need("PIL")
        from PIL import Image

        Image.fromarray(IMAGES[0]).resize((40, 30)).save(tmp_path / "one.png")
        assert model.classify([tmp_path / "one.png"]).shape == (1, 5)


def test_what_is_no_list_of_images_is_refused(made: Path) -> None:
    with open_any(made) as model:
        assert isinstance(model, Classifier)
        for wrong in ("one.jpg", b"\xff\xd8", IMAGES[0]):
            with pytest.raises(DataError, match="a list of images"):
                model.classify(wrong)  # type: ignore[arg-type]
        with pytest.raises(DataError):
            model.top(IMAGES, 0)


def test_quality_is_judged_on_images_that_calibrated_nothing(made: Path) -> None:
    found = bundle.read(made)
    quality = found.attachment("quality")
    assert quality["kind"] == "classification" and quality["metric"] == "top1" and quality["n"] == 20
    assert found.attachment("parity")["cosine_min"] > 0.98
    assert found.content.senses["kind"] == "image" and found.content.models[0].name == "classifier"
    assert found.content.models[0].artefacts[0].precision == "int8"


def test_it_proves_itself_with_pictures_of_its_own(made: Path, photos: Path) -> None:
    source = bundle.read(made)
    assert prove(source).holds
    own = {path.read_bytes() for path in photos.glob("*.npy")}
    assert own.isdisjoint(inputs(source))


def test_it_is_measured_by_the_image(made: Path) -> None:
    found = measure_bundle(bundle.read(made), seconds=1.0)
    assert [item.tokens for item in found.latencies] == [IMAGE]
    assert found.throughput_per_s is not None and found.throughput_per_s > 0


def test_it_is_built_anew_with_the_same_digest(
    made: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path / "cache"))
    source = bundle.read(made)
    assert rebuild(source, tmp_path / "again.bundle", data=photos).digest == source.digest


def test_the_door_for_text_says_where_images_go(made: Path) -> None:
    with pytest.raises(UnsupportedError, match="classifies images"):
        open_bundle(made)


@pytest.mark.parametrize(
    "change",
    [
        {"senses": {"resample": "sinc"}},
        {"senses": {"layout": "chw"}},
        {"senses": {"mean": [1.0]}},
        {"senses": {"gamma": 2.2}},
        {"senses": {"resize": 3}},
        {"senses": {"height": 17}},
        {"task": {"activation": "sparsemax"}},
        {"task": {"labels": ["a"]}},
        {"task": {"labels": [1, 2, 3, 4, 5]}},
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    made: Path, tmp_path: Path, change: dict[str, dict[str, Any]]
) -> None:
    source = bundle.read(made)
    path = tmp_path / "changed.bundle"
    bundle.copy(source, path)
    manifest = json.loads((path / "manifest.json").read_bytes())
    for part, fields in change.items():
        manifest["content"][part] |= fields
    manifest["digest"] = hashlib.sha256(canonical(manifest["content"])).hexdigest()
    (path / "manifest.json").write_bytes(canonical(manifest))
    with pytest.raises(BundleError) as error:
        open_any(path)
    assert error.value.hint


def test_the_engine_tells_that_convolutions_run_on_integers(made: Path) -> None:
    source = bundle.read(made)
    artefact = source.content.models[0].artefacts[0]
    files = {role: source.file(path) for role, path in artefact.files.items()}
    with open_any(made) as model:
        assert isinstance(model, Classifier)
        feeds = model.feeds(IMAGES[0])
    found = plugins.load("runtimes", artefact.engine).executed(files, artefact.settings, feeds)
    layers = list(found.by_layer.values())
    assert len(layers) == 6 and layers.count("int8") >= 5
    assert not found.share or found.share["int8"] > 0.5
