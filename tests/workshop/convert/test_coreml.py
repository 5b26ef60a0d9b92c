"""Core ML: each operation, each form of a weight and whole files, as the interpreted program has them."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

pytest.importorskip("coremltools", reason="needs coremltools: pip install 'tightrope[coreml]'")

from tightrope import plugins
from tightrope.device.mlpackage import write_package
from tightrope.device.runtimes import coreml
from tightrope.errors import EngineError, UnsupportedError
from tightrope.workshop.converted import convert
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.numerics.quantized import Quantized, Scheme
from tightrope.workshop.reference import opened as executable
from tightrope.workshop.reference import reference
from tightrope.workshop.verify import mil_program, stand_in

pytestmark = pytest.mark.engine
IMAGE = (1, 6, 9, 8)


def graph(nodes: list[onnx.NodeProto], weights: Mapping[str, Any], shape: tuple[Any, ...]) -> Graph:
    """A graph from `x` to `y`, a float of any shape."""
    inputs = [helper.make_tensor_value_info("x", 1, shape)]
    outputs = [helper.make_tensor_value_info("y", 1, None)]
    inferred = helper.make_model(
        helper.make_graph(nodes, "small", inputs, outputs), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    return Graph(
        proto=inferred,
        weights=weights,
        senses=TextSenses(tokenizer=b"", max_length=16),
        task=Task(name="embedding", width=1),
        origin="0" * 64,
        digest="0" * 64,
    )


def both(model: Graph, folder: Path, x: Any) -> tuple[Any, Any]:
    """What the program gives and what the reference gives."""
    converted = convert(model, "coreml")
    session = mil_program.open_artefact(converted.write(folder), converted.settings, threads=1)
    return session.run({"x": x})["y"], executable(reference(model), threads=1).run(None, {"x": x})[0]


def node(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, ["x", *inputs], ["y"], name=f"the.{op}", **attributes)


RANDOM = np.random.default_rng(11)
KERNEL = RANDOM.normal(0, 0.3, (4, 6, 3, 3)).astype(np.float32)
DEPTH = RANDOM.normal(0, 0.3, (6, 1, 3, 3)).astype(np.float32)
GROUPED = RANDOM.normal(0, 0.3, (4, 3, 1, 5)).astype(np.float32)
SIX, FOUR = RANDOM.uniform(0.5, 2, 6).astype(np.float32), RANDOM.normal(0, 1, 4).astype(np.float32)
MATRIX = RANDOM.normal(0, 0.3, (8, 5)).astype(np.float32)
ints = np.array

IMAGES: dict[str, tuple[onnx.NodeProto, dict[str, Any]]] = {
    "conv": (node("Conv", "w", "b"), {"w": KERNEL, "b": FOUR}),
    "conv, strides and pads": (node("Conv", "w", strides=[2, 1], pads=[1, 0, 2, 1]), {"w": KERNEL}),
    "conv, dilated": (node("Conv", "w", dilations=[2, 2]), {"w": KERNEL}),
    "conv, same upper": (node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), {"w": KERNEL}),
    "conv, same lower": (node("Conv", "w", auto_pad="SAME_LOWER", strides=[2, 2]), {"w": KERNEL}),
    "conv by channel": (node("Conv", "w", "b", group=6, pads=[1, 1, 1, 1]), {"w": DEPTH, "b": SIX}),
    "conv in groups": (node("Conv", "w", group=2), {"w": GROUPED}),
    "batch norm": (node("BatchNormalization", "g", "b", "m", "v"), {"g": SIX, "b": -SIX, "m": SIX / 3, "v": SIX * 2}),
    "max pool": (node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]), {}),
    "max pool, ceil": (node("MaxPool", kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1), {}),
    "average pool": (node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    "average pool, pads counted": (
        node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        {},
    ),
    "global average pool": (node("GlobalAveragePool"), {}),
    "global max pool": (node("GlobalMaxPool"), {}),
    "relu": (node("Relu"), {}),
    "relu6": (node("Clip", "low", "high"), {"low": np.float32(0), "high": np.float32(6)}),
    "clip": (node("Clip", "low", "high"), {"low": np.float32(-0.3), "high": np.float32(0.4)}),
    "clip from below": (node("Clip", "low"), {"low": np.float32(-0.3)}),
    "hard swish": (node("HardSwish"), {}),
    "hard sigmoid": (node("HardSigmoid", alpha=0.3, beta=0.4), {}),
    "leaky relu": (node("LeakyRelu", alpha=0.2), {}),
    "sigmoid": (node("Sigmoid"), {}),
    "tanh": (node("Tanh"), {}),
    "erf": (node("Erf"), {}),
    "exp": (node("Exp"), {}),
    "abs": (node("Abs"), {}),
    "neg": (node("Neg"), {}),
    "reciprocal": (node("Reciprocal"), {}),
    "round": (node("Round"), {}),
    "floor": (node("Floor"), {}),
    "ceil": (node("Ceil"), {}),
    "softsign": (node("Softsign"), {}),
    "gelu": (node("Gelu"), {}),
    "gelu by tanh": (node("Gelu", approximate="tanh"), {}),
    "softmax": (node("Softmax", axis=1), {}),
    "flatten": (node("Flatten"), {}),
    "flatten at 2": (node("Flatten", axis=2), {}),
    "reshape": (node("Reshape", "s"), {"s": ints([0, -1, 8])}),
    "transpose": (node("Transpose", perm=[0, 3, 1, 2]), {}),
    "squeeze": (node("Squeeze", "a"), {"a": ints([0])}),
    "unsqueeze": (node("Unsqueeze", "a"), {"a": ints([3])}),
    "concat": (node("Concat", "x", axis=1), {}),
    "slice": (
        node("Slice", "b", "e", "a", "s"),
        {"b": ints([1, 2]), "e": ints([-1, 8]), "a": ints([2, 3]), "s": ints([2, 3])},
    ),
    "gather": (node("Gather", "i", axis=2), {"i": ints([[3, -1], [0, 0]])}),
    "expand": (node("Expand", "s"), {"s": ints([1, 6, 9, 8])}),
    "pad": (node("Pad", "p", "v"), {"p": ints([0, 0, 1, 2, 0, 0, 0, 3]), "v": np.float32(0.5)}),
    "sum of squares": (node("ReduceSumSquare", "a", keepdims=0), {"a": ints([2])}),
    "mean": (node("ReduceMean", "a"), {"a": ints([2, 3])}),
    "most": (node("ReduceMax", "a"), {"a": ints([1])}),
    "least": (node("ReduceMin", "a", keepdims=0), {"a": ints([-1])}),
    "length": (node("ReduceL2", "a"), {"a": ints([1])}),
    "sum": (node("ReduceSum", "a"), {"a": ints([3])}),
    "layer norm": (
        node("LayerNormalization", "g", "b", axis=-1),
        {"g": np.ones(8, np.float32), "b": np.arange(8, dtype=np.float32)},
    ),
    "linear": (node("MatMul", "w"), {"w": MATRIX}),
    "maximum of three": (node("Max", "a", "x"), {"a": np.float32(0.1)}),
    "power": (node("Pow", "a"), {"a": np.float32(2)}),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the program gives and what the reference gives for every operation, all in one graph."""
    nodes, weights = [], {}
    for index, (one, own) in enumerate(IMAGES.values()):
        copy = onnx.NodeProto()
        copy.CopyFrom(one)
        copy.name = copy.output[0] = f"y{index}"
        names = [f"{name}.{index}" if name in own else name for name in one.input]
        del copy.input[:]
        copy.input.extend(names)
        weights |= {f"{name}.{index}": value for name, value in own.items()}
        nodes.append(copy)
    model = graph(nodes, weights, IMAGE)
    del model.proto.graph.output[:]
    model.proto.graph.output.extend(helper.make_tensor_value_info(item.output[0], 1, None) for item in nodes)
    x = np.random.default_rng(5).normal(0.2, 1, IMAGE).astype(np.float32)
    converted = convert(model, "coreml")
    files = converted.write(tmp_path_factory.mktemp("operations"))
    got = mil_program.open_artefact(files, converted.settings, threads=1).run({"x": x})
    expected = executable(reference(model), threads=1).run(None, {"x": x})
    return got, {item.output[0]: value for item, value in zip(nodes, expected, strict=True)}


@pytest.mark.parametrize("name", IMAGES)
def test_an_operation_is_what_onnx_says(name, answers):
    output = f"y{list(IMAGES).index(name)}"
    got, expected = answers[0][output], answers[1][output]
    assert got.shape == expected.shape
    assert np.allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_several_outputs_and_comparisons(tmp_path: Path):
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=3, num_outputs=2),
        helper.make_node("Greater", ["a", "b"], ["more"]),
        helper.make_node("Not", ["more"], ["less"]),
        helper.make_node("Where", ["less", "a", "b"], ["y"]),
    ]
    x = np.random.default_rng(6).normal(0, 1, IMAGE).astype(np.float32)
    got, expected = both(graph(nodes, {}, IMAGE), tmp_path, x)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    ("one", "weights", "reason"),
    [
        (node("Det"), {}, "has no Det, as the.Det is"),
        (node("Conv", "x"), {}, "Conv the.Conv reads its x at run time"),
        (node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), {}, "MaxPool the.MaxPool: its window has gaps"),
        (node("Cast", to=onnx.TensorProto.DOUBLE), {}, "Cast the.Cast: it has no type DOUBLE"),
    ],
)
def test_what_core_ml_lacks_is_refused_by_name(one, weights, reason):
    with pytest.raises(UnsupportedError, match=reason) as caught:
        convert(graph([one], weights, IMAGE), "coreml")
    assert len(str(caught.value).splitlines()) == 2


def integer_network() -> Graph:
    """Two convolutions on integers with a Relu and a sum between them, as a pass for images annotates them."""
    random = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "x"], ["s"], name="sum"),
        helper.make_node("Conv", ["s", "w2"], ["y"], name="second"),
    ]
    codes = [random.integers(-127, 128, shape).astype(np.int8) for shape in ((6, 6, 3, 3), (4, 6, 1, 1))]
    weights: dict[str, Any] = {
        "w": Quantized(codes=codes[0], scale=random.uniform(1e-3, 3e-3, 6).astype(np.float32)),
        "w2": Quantized(codes=codes[1], scale=random.uniform(1e-3, 3e-3, 4).astype(np.float32)),
        "b": random.normal(0, 0.5, 6).astype(np.float32),
    }

    def grid(low: float, high: float) -> Scheme:
        return Scheme(bits=8, granularity="tensor", symmetric=False, static=(low, high))

    made = graph(nodes, weights, IMAGE)
    return replace(made, schemes={"w": grid(-3, 3), "w2": grid(-3, 6), "r": grid(0, 4)})


def test_convolutions_run_on_integers_and_keep_their_codes(tmp_path: Path):
    model = integer_network()
    x = np.random.default_rng(9).normal(0, 1, IMAGE).astype(np.float32)
    got, expected = both(model, tmp_path, x)
    assert np.abs(got - expected).max() <= 0.02 * np.abs(expected).max()  # a value between two codes may take either
    assert np.abs(got - expected).mean() <= 0.001 * np.abs(expected).max()
    converted = convert(model, "coreml")
    files = converted.write(tmp_path)
    assert mil_program.executed(files, converted.settings, {"x": x}).share == {"int8": 1.0}
    assert converted.precision == "int8"
    for weight in ("w", "w2"):
        assert model.weights[weight].codes.tobytes() in converted.files["weights"][1] + converted.files["model"][1]


def test_the_settings_name_units_and_arithmetic(tiny_bert):
    assert convert(tiny_bert, "coreml").settings == {"compute_units": "ALL", "compute_precision": "fp32"}
    halves = {name: weight.astype(np.float16) for name, weight in tiny_bert.weights.items() if weight.size >= 1024}
    converted = convert(tiny_bert.rewrite(weights=halves), "coreml")
    assert converted.settings["compute_precision"] == converted.precision == "fp16"


def test_lengths_are_open_up_to_the_longest_text(tiny_bert):
    spec = coreml.Model_pb2.Model.FromString(convert(tiny_bert, "coreml").files["model"][1])
    for item in spec.description.input:
        batch, length = item.type.multiArrayType.shapeRange.sizeRanges
        assert (batch.lowerBound, batch.upperBound) == (1, 1)
        assert (length.lowerBound, length.upperBound) == (1, tiny_bert.senses.max_length)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_elsewhere_core_ml_says_that_it_does_not_run(tiny_bert, tmp_path: Path):
    converted = convert(tiny_bert, "coreml")
    with pytest.raises(UnsupportedError, match="runs on Apple's systems only") as caught:
        plugins.load("runtimes", "coreml").open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    assert len(str(caught.value).splitlines()) == 2
    assert stand_in.needed("coreml")


def test_a_package_has_the_files_and_a_table_of_contents(tiny_bert, tmp_path: Path):
    files = convert(tiny_bert, "coreml").write(tmp_path)
    packages = [write_package(files, tmp_path / f"{name}.mlpackage") for name in ("a", "b")]
    for inside in ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"):
        assert (packages[0] / inside).read_bytes() == (packages[1] / inside).read_bytes()
    import coremltools

    spec = coremltools.utils.load_spec(str(packages[0]))
    assert [item.name for item in spec.description.input] == ["input_ids", "attention_mask"]


def test_a_program_of_another_kind_is_refused(tmp_path: Path):
    other = coreml.Model_pb2.Model()
    other.neuralNetwork.SetInParent()
    path = tmp_path / "other.mlmodel"
    path.write_bytes(other.SerializeToString())
    with pytest.raises(EngineError, match="holds no ML program"):
        mil_program.open_artefact({"model": path, "weights": path}, {}, threads=1)


def test_an_operation_that_cannot_be_interpreted_is_named(monkeypatch, tmp_path: Path):
    from tightrope.workshop.verify import _mil_numpy

    reduced: dict[str, Callable[..., Any]] = {key: rule for key, rule in _mil_numpy.TABLE.items() if key != "tanh"}
    monkeypatch.setattr(mil_program, "TABLE", reduced)
    with pytest.raises(EngineError, match="tanh, as y is, cannot be interpreted"):
        both(graph([node("Tanh")], {}, IMAGE), tmp_path, np.zeros(IMAGE, np.float32))
