"""LiteRT's file: the model's own codes in it, one set of weights for all lengths, and a session that picks a length."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from tightrope.errors import EngineError, UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.numerics.quantized import Scheme
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.reference import opened, reference

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
def model(tiny_bert):
    """The tiny BERT with weights of 8 bits by row, of 4 in blocks, and halves; a table in blocks; 24 tokens."""

    def on_grid(name, **grid):
        return round_to_nearest(tiny_bert.weights[name], **grid)

    weights = {
        QUERY: on_grid(QUERY, bits=8, block=None, symmetric=True),
        UP: on_grid(UP, bits=4, block=32, symmetric=True),
        DOWN: tiny_bert.weights[DOWN].astype(np.float16),
        WORDS: on_grid(WORDS, bits=4, block=16, symmetric=False),
    }
    senses = replace(tiny_bert.senses, max_length=24)
    return tiny_bert.rewrite(weights=weights, schemes={QUERY: Scheme(bits=8)}, senses=senses)


@pytest.fixture(scope="module")
def converted(litert, model):
    """The model for LiteRT."""
    return litert[0].convert(model)


@pytest.fixture
def session(litert, converted, tmp_path):
    """An open session."""
    opened = litert[1].open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    yield opened
    opened.close()


def texts(rows: int, length: int) -> dict[str, np.ndarray]:
    """Random ids, the last row two tokens shorter than the others."""
    ids = np.random.default_rng(length).integers(5, 60, (rows, length))
    mask = np.ones_like(ids)
    mask[-1, max(1, length - 2) :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 7), (1, 16), (3, 17), (1, 24)])
def test_texts_of_any_length_and_number(session, model, rows, length):
    given = texts(rows, length)
    expected = opened(reference(model.rewrite(schemes={QUERY: Scheme()})), threads=1).run(None, given)[0]
    got = session.run(given)["embedding"]
    assert got.shape == expected.shape
    assert (got * expected).sum(1).min() >= 0.999


def test_the_codes_in_the_file_are_the_models_own(converted, model):
    from tightrope.workshop.convert import _tflite

    found = _tflite.codes(converted.files["model"][1])
    codes, scale = found[QUERY]
    assert np.array_equal(codes, model.weights[QUERY].codes)
    assert np.array_equal(scale, model.weights[QUERY].scale)
    codes, scale = found[UP]
    assert np.array_equal(codes, model.weights[UP].codes)
    assert np.allclose(scale.reshape(64, 1), model.weights[UP].scale, rtol=2**-8)  # bfloat16, as its kernels want it
    codes, scale = found[WORDS]  # its blocks are rows of their own, around zero
    assert np.array_equal(codes, model.weights[WORDS].codes.astype(int).reshape(120, 16) - 8)


def test_a_file_holds_its_weights_once_for_all_lengths(converted, model):
    data = converted.files["model"][1]
    assert converted.settings["lengths"] == [16, 24]
    assert b"length_16" in data and b"length_24" in data
    assert data.count(model.weights[QUERY].codes.tobytes()) == 1
    assert data.count(model.weights[DOWN].tobytes()) == 1


def test_what_is_approximate_is_said(converted):
    assert set(converted.approximations) == {QUERY.removesuffix(".weight"), UP.removesuffix(".weight")}
    assert "bfloat16" in converted.approximations[UP.removesuffix(".weight")]
    assert not converted.floats


def test_a_text_is_run_at_the_shortest_length_that_holds_it(session):
    session.run(texts(1, 9))
    assert set(session._signatures) == {16}
    padded = texts(1, 24)
    padded["attention_mask"][:, 5:] = 0
    session.run(padded)
    assert set(session._signatures) == {16}
    session.run(texts(1, 20))
    assert set(session._signatures) == {16, 24}


def test_a_text_longer_than_the_longest_length_is_an_error(session, two_lines):
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


def test_weights_that_have_no_kernel_are_refused_by_name(litert, model, tiny_bert, two_lines):
    blocks = round_to_nearest(tiny_bert.weights[QUERY], bits=8, block=16, symmetric=True)
    with pytest.raises(UnsupportedError) as caught:
        litert[0].convert(model.rewrite(weights={QUERY: blocks}))
    assert "encoder.layer.0.attention.self.query" in two_lines(caught)[0]


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


def test_convolutions_keep_their_codes_in_the_file_and_run_in_float(litert, tiny_cnn, tmp_path):
    from tightrope.workshop.convert import _tflite
    from tightrope.workshop.load import load
    from tightrope.workshop.pictures import pictures

    graph = load(str(tiny_cnn))
    weights = {}
    for conv in graph.convolutions():
        weight = graph.weights[conv.weight]
        rows = round_to_nearest(weight.reshape(len(weight), -1), bits=8, block=None, symmetric=True)
        weights[conv.weight] = replace(rows, codes=rows.codes.reshape(weight.shape))
    model = graph.rewrite(weights=weights)
    made = litert[0].convert(model)
    assert set(made.floats) == {conv.name for conv in graph.convolutions()}
    found = _tflite.codes(made.files["model"][1])
    assert set(found) == set(weights)
    for conv in graph.convolutions():
        codes = weights[conv.weight].codes
        assert sorted(found[conv.weight][0].ravel()) == sorted(codes.ravel())  # channels last
    session = litert[1].open_artefact(made.write(tmp_path), made.settings, threads=1)
    truth = opened(reference(model), threads=1)
    for image in pictures(16, 16, 3, 2, seed=3):
        feeds = {graph.inputs[0].name: graph.senses.prepare(image)}
        expected = truth.run(None, feeds)[0]
        assert np.abs(session.run(feeds)[graph.outputs[0].name] - expected).max() <= 1e-4
    session.close()
