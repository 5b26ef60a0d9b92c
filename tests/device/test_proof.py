"""What a bundle says about its own answers is believed only if it is of the right form."""

import io
from dataclasses import replace

import numpy as np
import pytest

from tightrope.device import machine
from tightrope.device.proof import prove, saturating_layers
from tightrope.errors import BundleError

INPUTS = ["the cat", "sat"]


def npy(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_a_bundle_that_answers_as_recorded_holds(seal_for_engine):
    right = np.array([[2 + 57 + 58 + 3, 4], [2 + 59 + 3, 3]], np.float32)
    vectors = {"inputs": INPUTS, "expected": npy(right), "original": npy(right * 2), "tolerance": 0.999}
    proof = prove(seal_for_engine(vectors=vectors))
    assert proof.holds
    assert proof.original is not None
    assert proof.original.cosine_min > 0.999
    assert not prove(seal_for_engine(vectors=vectors | {"expected": npy(-right)})).holds
    assert not prove(seal_for_engine(vectors=vectors | {"expected": npy(right * np.nan)})).holds


@pytest.mark.parametrize(
    "wrong",
    [
        {"expected": npy(np.zeros((2, 3), np.float32))},
        {"expected": npy(np.zeros(2, np.float32))},
        {"expected": npy(np.array([["a", "b"], ["c", "d"]]))},
        {"expected": npy(np.zeros((2, 2), [("a", "f4"), ("b", "f4")]))},
        {"expected": b"\x93NUMPY"},
        {"expected": npy(np.zeros((2, 2), np.float32)).replace(b"(2, 2), ", b"(9999999999999, 2), ")},
        {"expected": "files/0123456789abcdef.npy"},
        {"original": npy(np.zeros((3, 2), np.float32))},
        {"inputs": []},
    ],
)
def test_what_is_no_proof_is_refused(seal_for_engine, wrong):
    vectors = {"inputs": INPUTS, "expected": npy(np.zeros((2, 2), np.float32)), "tolerance": 0.9}
    with pytest.raises(BundleError) as caught:
        prove(seal_for_engine(vectors=vectors | wrong))
    assert len(str(caught.value).splitlines()) == 2


def test_layers_whose_products_may_saturate_are_counted_where_they_may(seal_for_engine):
    made = seal_for_engine()
    (model,) = made.content.models
    artefact = replace(model.artefacts[0], settings={"saturating_layers": 5})
    wide = replace(made, content=replace(made.content, models=(replace(model, artefacts=(artefact,)),)))
    old = replace(machine.this_machine(), architecture="x86_64", isa=("avx2",))
    for source, here, layers in (
        (wide, old, 5),
        (wide, replace(old, isa=("avx2", "avx512_vnni")), 0),
        (wide, replace(old, architecture="aarch64", isa=("neon",)), 0),
        (made, old, 0),
    ):
        assert saturating_layers(source, "fake", here) == layers


def test_without_a_tolerance_nothing_is_proved(seal_for_engine):
    with pytest.raises(BundleError, match="no texts with expected answers"):
        prove(seal_for_engine(vectors={"inputs": INPUTS, "expected": npy(np.zeros((2, 2), np.float32))}))
