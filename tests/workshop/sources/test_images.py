"""A classifier's ONNX file: read with its settings, made plain, and refused where anything is not understood."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.load import load
from tightrope.workshop.reference import opened, reference

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def copy(tiny_cnn: Path, tmp_path: Path) -> Path:
    """The tiny classifier's folder, to be changed."""
    shutil.copytree(tiny_cnn.parent, tmp_path / "model")
    return tmp_path / "model" / "model.onnx"


def graph_at(path: Path) -> Graph:
    found = load(str(path))
    assert isinstance(found, Graph)
    return found


def rewrite(path: Path, name: str, **fields: Any) -> None:
    file = path.with_name(name)
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_classifier_is_read_with_its_senses_and_labels(tiny_cnn: Path) -> None:
    graph = graph_at(tiny_cnn)
    assert graph.inputs[0].shape == (1, 3, 16, 16) and graph.outputs[0].name == "logits"
    assert graph.task.name == "classification" and graph.task.labels == ("ant", "bee", "cat", "dog", "eel")
    assert graph.task.activation == "softmax"
    assert graph.senses.to_json() == {
        "kind": "image",
        "height": 16,
        "width": 16,
        "resize": 18,
        "colours": "rgb",
        "layout": "nchw",
        "mean": pytest.approx([127.5, 102.0, 76.5]),
        "std": pytest.approx([51.0, 76.5, 63.75]),
        "resample": "bilinear",
    }


def test_padding_and_batch_norms_are_taken_in_and_answers_stay(tiny_cnn: Path) -> None:
    graph = graph_at(tiny_cnn)
    operators = [node.op_type for node in graph.proto.graph.node]
    assert "Pad" not in operators and "Softmax" not in operators
    assert operators.count("BatchNormalization") == 1  # the branch that is the input itself
    pixels = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    original = ort.InferenceSession(str(tiny_cnn), providers=["CPUExecutionProvider"]).run(None, {"image": pixels})[0]
    logits = opened(reference(graph), threads=1).run(None, {"image": pixels})[0]
    powers = np.exp(logits - logits.max())
    assert np.allclose(powers / powers.sum(), original, atol=1e-6)


def test_the_same_file_has_the_same_digest_and_another_normalisation_another(copy: Path) -> None:
    first, again = graph_at(copy), graph_at(copy)
    assert first.digest == again.digest
    rewrite(copy, "preprocessor_config.json", image_mean=[0.5, 0.4, 0.31])
    assert graph_at(copy).digest != first.digest


def test_shapes_worked_out_at_run_time_are_known_beforehand(copy: Path) -> None:
    model = onnx.load(str(copy))
    nodes = list(model.graph.node)
    flat = next(node for node in nodes if node.op_type == "Flatten")
    flat.CopyFrom(onnx.helper.make_node("Reshape", ["average", "sizes"], ["flat"], name="flat"))
    before = [
        onnx.helper.make_node("Shape", ["average"], ["all"]),
        onnx.helper.make_node("Gather", ["all", "first"], ["one"], axis=0),
        onnx.helper.make_node("Concat", ["one", "rest"], ["sizes"], axis=0),
    ]
    place = nodes.index(flat)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *before, *nodes[place:]])
    for name, value in (("first", [0]), ("rest", [-1])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    onnx.save(model, str(copy))
    operators = {node.op_type for node in graph_at(copy).proto.graph.node}
    assert not operators & {"Shape", "Gather", "Concat"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"do_pad": True}, UnsupportedError),
        ({"crop_pct": 0.9}, UnsupportedError),
        ({"resample": 9}, SourceError),
        ({"image_mean": [0.5]}, SourceError),
        ({"image_std": [0.5, 0, 0.5]}, SourceError),
        ({"image_std": None}, SourceError),
        ({"rescale_factor": 0}, SourceError),
        ({"crop_size": {"height": 12, "width": 16}}, SourceError),
        ({"crop_size": -1}, SourceError),
        ({"size": {"shortest_edge": 9}}, SourceError),
        ({"size": {"longest_edge": 30}}, UnsupportedError),
        ({"size": {"height": 18, "width": 18}}, UnsupportedError),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(
    copy: Path, fields: dict[str, Any], error: type[Exception]
) -> None:
    rewrite(copy, "preprocessor_config.json", **fields)
    with pytest.raises(error):
        load(str(copy))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"do_flip_channel_order": True}, {"colours": "bgr"}),
        ({"do_rescale": False, "do_normalize": False}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
        ({"size": {"height": 16, "width": 16}}, {"resize": 0}),
        ({"do_center_crop": False, "size": 16}, {"resize": 16}),
        ({"resample": 3, "image_processor_type": "X", "data_format": "channels_first"}, {"resample": "bicubic"}),
    ],
)
def test_what_image_processors_write_is_understood(
    copy: Path, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    rewrite(copy, "preprocessor_config.json", **fields)
    found = graph_at(copy).senses.to_json()
    assert {name: found[name] for name in expected} == expected


def test_a_file_without_preprocessing_says_what_is_missing(copy: Path) -> None:
    copy.with_name("preprocessor_config.json").unlink()
    with pytest.raises(SourceError, match=r"preprocessor_config\.json"):
        load(str(copy))


def test_labels_that_belong_to_another_model(copy: Path) -> None:
    rewrite(copy, "config.json", id2label={"0": "ant", "1": "bee"})
    with pytest.raises(SourceError, match="tells 5 classes apart"):
        load(str(copy))
    copy.with_name("config.json").unlink()
    assert graph_at(copy).task.labels == ("0", "1", "2", "3", "4")


def test_an_image_to_image_model_is_refused(copy: Path) -> None:
    model = onnx.load(str(copy))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("residual", 1, None))
    onnx.save(model, str(copy))
    with pytest.raises((SourceError, UnsupportedError)):
        load(str(copy))
