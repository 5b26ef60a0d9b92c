"""TensorRT: what the file says, what the parser's documentation allows, and what happens where no GPU is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tightrope import plugins
from tightrope.device.runtimes import tensorrt
from tightrope.errors import UnsupportedError
from tightrope.workshop.convert import _tensorrt_check
from tightrope.workshop.converted import convert
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.numerics.quantized import Quantized, Scheme
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.quantize import int8
from tightrope.workshop.reference import opened as executable
from tightrope.workshop.reference import reference
from tightrope.workshop.verify import stand_in

pytestmark = pytest.mark.engine
TEXTS = ("the cat sat", "a cat sat on the mat", "no", "dogs bark at the moon")


@pytest.fixture
def integers(tiny_bert) -> Any:
    """The tiny BERT on integers, with static asymmetric ranges."""
    return int8.apply(tiny_bert, int8.Options(activations="static"), Observer(tiny_bert, TEXTS))


def files_of(converted: Any, folder: Path) -> onnx.ModelProto:
    """The ONNX file with its weights."""
    return onnx.load(converted.write(folder)["model"])


def test_all_zero_points_are_zero_and_weights_keep_their_codes(integers, tmp_path: Path):
    converted = convert(integers, "tensorrt")
    proto = files_of(converted, tmp_path)
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}
    pairs = [item for item in proto.graph.node if item.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 12
    for item in pairs:
        assert len(item.input) < 3 or (stored[item.input[2]].dtype == np.int8 and not stored[item.input[2]].any())
    for linear in integers.linears():
        codes = integers.weights[linear.weight].codes.T
        assert any(value.shape == codes.shape and np.array_equal(value, codes) for value in stored.values())
    assert converted.precision == "int8"
    assert not converted.floats
    assert not converted.approximations


def test_a_profile_names_the_shapes_that_an_engine_is_built_for(integers):
    profile = convert(integers, "tensorrt").settings["profile"]
    assert profile["input_ids"] == {"least": [1, 1], "usual": [8, 64], "most": [32, 64]}
    assert profile.keys() == {"input_ids", "attention_mask"}


def test_the_file_refers_to_its_weights_by_the_name_in_a_bundle(integers, tmp_path: Path):
    converted = convert(integers, "tensorrt")
    assert converted.write(tmp_path)["weights"].name == converted.settings["weights_name"]


def test_a_convolution_on_integers_has_a_float_bias_and_a_symmetric_range(tmp_path: Path):
    random = np.random.default_rng(3)
    codes = random.integers(-127, 128, (4, 6, 3, 3)).astype(np.int8)
    weights: dict[str, Any] = {
        "w": Quantized(codes=codes, scale=random.uniform(1e-3, 3e-3, 4).astype(np.float32)),
        "b": random.normal(0, 0.5, 4).astype(np.float32),
    }
    inputs = [helper.make_tensor_value_info("x", 1, (1, 6, 8, 8))]
    outputs = [helper.make_tensor_value_info("y", 1, (1, 4, 8, 8))]
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    scheme = Scheme(bits=8, granularity="tensor", symmetric=False, static=(-3.0, 2.0))
    model = Graph(
        proto=helper.make_model(
            helper.make_graph(nodes, "small", inputs, outputs),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        ),
        weights=weights,
        schemes={"w": scheme},
        senses=TextSenses(tokenizer=b"", max_length=8),
        task=Task(name="embedding", width=1),
        origin="0" * 64,
        digest="0" * 64,
    )
    converted = convert(model, "tensorrt")
    assert converted.precision == "int8"
    assert converted.approximations.keys() == {"conv"}
    x = random.normal(0, 1, (1, 6, 8, 8)).astype(np.float32)
    session = stand_in.runtime("tensorrt").open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    expected = executable(reference(model.rewrite(schemes={"w": replace(scheme, symmetric=True)})), threads=1)
    assert np.allclose(session.run({"x": x})["y"], expected.run(None, {"x": x})[0], atol=0.01)


def small(
    *nodes: onnx.NodeProto, opset: int = 21, constants: Any = (), kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", kind, (1, 4, 8))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)]
    made = helper.make_graph(list(nodes), "small", inputs, outputs, list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def node(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, ["x", *inputs], ["y"], name="the.node", **attributes)


ONE, ZERO = np.array(1, np.float32), np.array(3, np.int8)


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (small(node("Det")), "has no Det"),
        (small(node("Unique")), "has no Unique"),
        (small(node("Gather", "x"), kind=TensorProto.UINT8), "its input is uint8"),
        (small(node("MaxPool", kernel_shape=[2])), "it has 1 dimensions, and the parser takes 2 or 3"),
        (
            small(
                node("QuantizeLinear", "s", "z"),
                constants=[onnx.numpy_helper.from_array(ONE, "s"), onnx.numpy_helper.from_array(ZERO, "z")],
            ),
            "its zero point is not zero",
        ),
        (
            small(helper.make_node("Shape", ["x"], ["a"], name="shape"), node("ReduceSum", "a")),
            "its axes are not constant",
        ),
    ],
)
def test_what_the_parser_does_not_document_is_refused_by_name(proto, reason):
    with pytest.raises(UnsupportedError, match=f"TensorRT cannot run the.node: .*{reason}") as caught:
        _tensorrt_check.check(proto)
    assert len(str(caught.value).splitlines()) == 2


def test_an_opset_out_of_reach_is_refused():
    with pytest.raises(UnsupportedError, match=r"opset ai.onnx 8"):
        _tensorrt_check.check(small(node("Relu"), opset=8))


def test_the_documented_list_has_its_source_and_version():
    known = _tensorrt_check.documented()
    assert known["source"]
    assert known["version"] == "10.15"
    names = [name for names in known["operators"].values() for name in names]
    assert len(names) == len(set(names)) > 120
    assert known["operators"].keys() == known["types"].keys()


@pytest.mark.skipif(tensorrt.runs_here(), reason="TensorRT runs here")
def test_without_a_gpu_it_is_refused_in_two_lines(integers, tmp_path: Path):
    converted = convert(integers, "tensorrt")
    with pytest.raises(UnsupportedError, match="needs an NVIDIA GPU") as caught:
        plugins.load("runtimes", "tensorrt").open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    assert len(str(caught.value).splitlines()) == 2
    assert stand_in.needed("tensorrt")
