"""LiteRT's file: the model's own codes in it, one set of weights for all lengths, and a session that picks a length."""

import numpy as np
import pytest
from onnx import helper

from tightrope.errors import EngineError, UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.numerics.rounding import round_to_nearest

pytestmark = pytest.mark.engine

WORDS = "embeddings.word_embeddings.weight"
QUERY, UP, DOWN = (
    f"encoder.layer.0.{part}.weight" for part in ("attention.self.query", "intermediate.dense", "output.dense")
)


@pytest.fixture(scope="module")
def litert(need_engine):
    """The converter and the runtime."""
    need_engine("litert")
    from tightrope.device.runtimes import litert as runtime
    from tightrope.workshop.convert import litert as converter

    return converter, runtime


@pytest.fixture(scope="module")
def converted(litert, mixed_bert):
    """The model for LiteRT."""
    return litert[0].convert(mixed_bert)


@pytest.fixture
def session(litert, converted, tmp_path):
    """An open session."""
    opened = litert[1].open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    yield opened
    opened.close()


def test_the_codes_in_the_file_are_the_models_own(converted, mixed_bert):
    from tightrope.workshop.convert import _tflite

    found = _tflite.codes(converted.files["model"][1])
    codes, scale = found[QUERY]
    assert np.array_equal(codes, mixed_bert.weights[QUERY].codes)
    assert np.array_equal(scale, mixed_bert.weights[QUERY].scale)
    codes, scale = found[UP]
    assert np.array_equal(codes, mixed_bert.weights[UP].codes)
    assert np.allclose(
        scale.reshape(64, 1), mixed_bert.weights[UP].scale, rtol=2**-8
    )  # bfloat16, as its kernels want it
    codes, scale = found[WORDS]  # its blocks are rows of their own, around zero
    assert np.array_equal(codes, mixed_bert.weights[WORDS].codes.astype(int).reshape(120, 16) - 8)


def test_a_file_holds_its_weights_once_for_all_lengths(converted, mixed_bert):
    data = converted.files["model"][1]
    assert converted.settings["lengths"] == [16, 24]
    assert b"length_16" in data and b"length_24" in data
    assert data.count(mixed_bert.weights[QUERY].codes.tobytes()) == 1
    assert data.count(mixed_bert.weights[DOWN].tobytes()) == 1


def test_a_text_is_run_at_the_shortest_length_that_holds_it(session, texts):
    session.run(texts(1, 9))
    assert set(session._signatures) == {16}
    padded = texts(1, 24)
    padded["attention_mask"][:, 5:] = 0
    session.run(padded)
    assert set(session._signatures) == {16}
    session.run(texts(1, 20))
    assert set(session._signatures) == {16, 24}


def test_a_text_longer_than_the_longest_length_is_an_error(session, two_lines, texts):
    with pytest.raises(EngineError) as caught:
        session.run(texts(1, 25) | {"attention_mask": np.ones((1, 25), np.int64)})
    assert "25 tokens" in two_lines(caught)[0] and "24" in two_lines(caught)[0]


@pytest.mark.parametrize("delegate", ["gpu", "nnapi"])
def test_a_phones_delegate_is_refused_here(litert, converted, tmp_path, delegate, two_lines):
    with pytest.raises(UnsupportedError) as caught:
        litert[1].open_artefact(converted.write(tmp_path), {**converted.settings, "delegate": delegate}, threads=1)
    assert delegate in two_lines(caught)[0]


def test_an_unknown_delegate_is_refused(litert, converted, tmp_path, two_lines):
    with pytest.raises(EngineError) as caught:
        litert[1].open_artefact(converted.write(tmp_path), {**converted.settings, "delegate": "tpu"}, threads=1)
    assert "tpu" in two_lines(caught)[0]


def test_its_quantizer_would_choose_the_codes_of_plain_rounding(litert, tmp_path):
    """What is stored by hand is what LiteRT's own tool stores: the same codes, scales and types for one layer."""
    quantizer = pytest.importorskip("ai_edge_quantizer")
    from tightrope.workshop.convert import _tflite

    weight = np.random.default_rng(3).normal(0, 0.1, (48, 64)).astype(np.float32)
    floats = litert[0].convert(layer(weight))
    stored = round_to_nearest(weight, bits=8, block=None, symmetric=True)
    codes, scale = _tflite.codes(litert[0].convert(layer(stored)).files["model"][1])["w"]
    (tmp_path / "floats.tflite").write_bytes(floats.files["model"][1])
    tool = quantizer.quantizer.Quantizer(str(tmp_path / "floats.tflite"))
    tool.load_quantization_recipe(quantizer.recipe.dynamic_wi8_afp32())
    theirs = _tflite.codes(bytes(tool.quantize().quantized_model))
    ((their_codes, their_scale),) = theirs.values()
    assert np.array_equal(codes, their_codes)
    assert np.allclose(scale, their_scale, rtol=1e-6)


def layer(weight) -> Graph:
    """y = x·Wᵀ for one row of 64 numbers."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="dense", transB=1)
    inputs = [helper.make_tensor_value_info("x", 1, [1, 64])]
    outputs = [helper.make_tensor_value_info("y", 1, [1, 48])]
    proto = helper.make_model(
        helper.make_graph([node], "layer", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    senses, task = TextSenses(tokenizer=b"", max_length=8), Task(name="embedding", width=48)
    return Graph(proto=proto, weights={"w": weight}, senses=senses, task=task, origin="0" * 64, digest="0" * 64)


def test_convolutions_keep_their_codes_in_the_file(litert, coded_pictures):
    from tightrope.workshop.convert import _tflite

    found = _tflite.codes(litert[0].convert(coded_pictures).files["model"][1])
    weights = {conv.weight: coded_pictures.weights[conv.weight] for conv in coded_pictures.convolutions()}
    assert set(found) == set(weights)
    for name, weight in weights.items():
        assert sorted(found[name][0].ravel()) == sorted(weight.codes.ravel())  # channels last
