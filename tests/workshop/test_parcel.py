"""A model as two files: what comes out is what went in, and nothing else can be made of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tightrope.device.senses.image import ImageSenses
from tightrope.errors import DataError
from tightrope.workshop import parcel
from tightrope.workshop.network import Network, lower
from tightrope.workshop.numerics.quantized import Quantized, Scheme, values
from tightrope.workshop.numerics.rounding import round_to_nearest

LAYER = "encoder.layer.0.intermediate.dense.weight"


def annotated(model: Any) -> Any:
    """With codes in blocks, halves, and a scheme of every field."""
    rows = values(model.weights[LAYER])
    scheme = Scheme(bits=8, static=(-1.5, 2.0), smooth=rows[0] + 1, shift=rows[1], kept=np.array([1, 3]), rotation=16)
    codes = round_to_nearest(rows, bits=4, block=16, symmetric=False)
    return model.rewrite(weights={LAYER: codes}, schemes={LAYER: scheme})


@pytest.mark.parametrize("shape", ["network", "graph"])
def test_a_model_survives(tmp_path: Path, tiny_bert: Network, shape: str) -> None:
    model = annotated(tiny_bert)
    given = model if shape == "network" else lower(model)
    parcel.write(given, tmp_path)
    found = parcel.read(tmp_path)
    assert type(found) is type(given)
    assert (found.digest, found.origin, found.task, found.senses) == (
        given.digest,
        given.origin,
        given.task,
        given.senses,
    )
    assert list(found.weights) == list(given.weights)
    for name, weight in given.weights.items():
        assert np.array_equal(values(found.weights[name]), values(weight)), name
    codes, scheme = found.weights[LAYER], found.schemes[LAYER]
    assert isinstance(codes, Quantized) and (codes.bits, codes.block) == (4, 16)
    assert scheme.static == (-1.5, 2.0) and list(scheme.kept) == [1, 3] and scheme.rotation == 16
    assert lower(found).proto.SerializeToString(deterministic=True) == lower(given).proto.SerializeToString(
        deterministic=True
    )


def test_bfloat16_survives(tmp_path: Path, tiny_bert: Network) -> None:
    half = {LAYER: values(tiny_bert.weights[LAYER]).astype(ml_dtypes.bfloat16)}
    parcel.write(tiny_bert.rewrite(weights=half), tmp_path)
    assert parcel.read(tmp_path).weights[LAYER].dtype == ml_dtypes.bfloat16


def test_senses_of_images_survive(tmp_path: Path, tiny_bert: Network) -> None:
    halves = (0.5, 0.5, 0.5)
    senses = ImageSenses(height=8, width=8, resize=9, colours="rgb", layout="nchw", mean=halves, std=halves)
    parcel.write(replace(lower(tiny_bert), senses=senses), tmp_path)
    assert parcel.read(tmp_path).senses == senses


def test_only_values_of_a_model_are_built(tmp_path: Path, tiny_bert: Network) -> None:
    parcel.write(tiny_bert, tmp_path)
    good = json.loads((tmp_path / parcel.VALUES).read_text())
    for bad in (
        {"value": ["os", "system", {"command": "true"}]},
        {"value": ["tightrope.workshop.graph", "onnx", {}]},
        {"value": ["tightrope.workshop.network", "lower", {"model": 1}]},
        {"array": ["float32", [4], 10**12]},
        {"array": ["object", [1], 0]},
        {"unheard": 1},
        {"bytes": "?"},
    ):
        (tmp_path / parcel.VALUES).write_text(json.dumps(bad))
        with pytest.raises(DataError, match="holds no model"):
            parcel.read(tmp_path)
    (tmp_path / parcel.VALUES).write_text(json.dumps(good)[:100])
    with pytest.raises(DataError, match="holds no model"):
        parcel.read(tmp_path)
    with pytest.raises(DataError):
        parcel.read(tmp_path / "nowhere")


def test_arrays_are_mapped_and_cannot_be_changed(tmp_path: Path, tiny_bert: Network) -> None:
    parcel.write(replace(tiny_bert, digest="1" * 64), tmp_path)
    weight = parcel.read(tmp_path).weights[LAYER]
    assert not weight.flags.writeable
