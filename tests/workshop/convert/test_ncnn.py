"""ncnn: what is written into its files, and what is refused by name."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from tightrope import plugins
from tightrope.errors import EngineError, UnsupportedError
from tightrope.workshop.converted import convert
from tightrope.workshop.numerics.quantized import Scheme
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.reference import opened, reference

pytestmark = pytest.mark.engine
WEIGHT = "encoder.layer.0.output.dense.weight"


@pytest.fixture(autouse=True)
def _ncnn(need_engine):
    need_engine("ncnn")


@pytest.fixture
def image():
    return {"image": np.random.default_rng(1).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}


def lines(found):
    """The layers of the structure, by name."""
    return {line.split()[1]: line.split() for line in found.files["model"][1].decode().splitlines()[2:]}


def test_the_codes_stored_are_ours(tiny_bert):
    weight = round_to_nearest(tiny_bert.weights[WEIGHT], bits=8, block=None, symmetric=True)
    found = convert(tiny_bert.rewrite(weights={WEIGHT: weight}, schemes={WEIGHT: Scheme(bits=8)}), "ncnn")
    assert weight.codes.tobytes() in found.files["weights"][1]
    assert weight.scale.tobytes() in found.files["weights"][1]
    assert "18=2" in lines(found)["encoder.layer.0.output.dense.int8"]
    assert not found.approximations
    assert not found.floats


def test_codes_that_it_multiplies_wrongly_take_another_way(tiny_bert):
    weight = round_to_nearest(tiny_bert.weights[WEIGHT], bits=8, block=None, symmetric=True)
    weight.codes[0, 0] = -128
    found = convert(tiny_bert.rewrite(weights={WEIGHT: weight}, schemes={WEIGHT: Scheme(bits=8)}), "ncnn")
    assert "18=802" in lines(found)["encoder.layer.0.output.dense.wint8"]
    assert list(found.approximations) == ["encoder.layer.0.output.dense"]


def test_a_value_taken_twice_goes_through_a_split_and_nothing_is_left_over(tiny_bert):
    layers = lines(convert(tiny_bert, "ncnn"))
    given = [name for line in layers.values() for name in line[4 + int(line[2]) :][: int(line[3])]]
    taken = [name for line in layers.values() for name in line[4:][: int(line[2])]]
    assert len(set(given)) == len(given)
    assert len(set(taken)) == len(taken)
    assert set(given) - set(taken) == {"embedding"}


def test_convolutions(cnn, image, answers_of):
    expected = opened(reference(cnn), threads=1).run(None, image)[0]
    assert np.abs(answers_of(convert(cnn, "ncnn"), image) - expected).max() <= 1e-5


def test_convolutions_on_integers(coded_cnn, image, answers_of):
    """With a range for what enters a convolution it runs on integers, if its scales are as ncnn has them."""
    ranges = {"depthwise": (0.0, 4.0), "pointwise": (-1.0, 4.0), "grouped": (0.0, 6.0)}
    schemes = {
        f"{name}.weight": Scheme(bits=8, granularity="tensor", symmetric=False, static=limits)
        for name, limits in ranges.items()
    }
    found = convert(coded_cnn.rewrite(schemes=schemes), "ncnn")
    expected = opened(reference(coded_cnn), threads=1).run(None, image)[0]
    assert np.abs(answers_of(found, image) - expected).max() <= 0.03
    assert {"depthwise", "pointwise"} <= set(found.approximations)
    assert found.floats["grouped"] == "its scales belong to outputs, ncnn's to groups"
    assert set(found.floats) == {"stem", "gate", "grouped"}


def test_several_images_are_answered_one_by_one(cnn, image, answers_of):
    two = {"image": np.concatenate([image["image"], 2 * image["image"]])}
    found = convert(cnn, "ncnn")
    assert np.array_equal(answers_of(found, two)[:1], answers_of(found, image))


def test_what_it_has_no_layer_for_is_refused_by_name(cnn):
    proto = type(cnn.proto)()
    proto.CopyFrom(cnn.proto)
    for node in proto.graph.node:
        if node.op_type == "HardSwish":
            node.CopyFrom(helper.make_node("Hardmax", node.input, node.output, name=node.name))
    with pytest.raises(UnsupportedError, match=r"Hardmax \(depthwise\.swish\)") as caught:
        convert(replace(cnn, proto=proto), "ncnn")
    assert len(str(caught.value).splitlines()) == 2


def test_offsets_that_do_not_fit_are_refused(tiny_bert, tmp_path):
    found = convert(tiny_bert, "ncnn")
    session = plugins.load("runtimes", "ncnn").open_artefact(found.write(tmp_path), found.settings, threads=1)
    for offsets in ([0, 2], [1, 3], [0, 0, 3], [0, 4], [0]):
        with pytest.raises(EngineError, match="offsets"):
            session.run({"input_ids": np.ones(3, np.int32), "offsets": np.array(offsets)})
    session.close()
