"""ExecuTorch's program: the model's own codes in it, for texts of all lengths, its work told as it was made."""

from dataclasses import replace

import numpy as np
import pytest

from tightrope.errors import EngineError, UnsupportedError
from tightrope.workshop.numerics.quantized import Scheme
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.reference import opened, reference

pytestmark = pytest.mark.engine

WORDS = "embeddings.word_embeddings.weight"
QUERY, UP, DOWN = (
    f"encoder.layer.0.{part}.weight" for part in ("attention.self.query", "intermediate.dense", "output.dense")
)


@pytest.fixture(scope="module")
def executorch(need_engine):
    """The converter and the runtime."""
    need_engine("executorch")
    from tightrope.device.runtimes import executorch as runtime
    from tightrope.workshop.convert import executorch as converter

    return converter, runtime


@pytest.fixture(scope="module")
def model(tiny_bert):
    """The tiny BERT with weights of 8 bits by row, of 4 in blocks, and halves; a table of 4 bits; 24 tokens."""

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
def converted(executorch, model):
    """The model for ExecuTorch."""
    return executorch[0].convert(model)


@pytest.fixture
def session(executorch, converted, tmp_path):
    """An open session."""
    opened = executorch[1].open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    yield opened
    opened.close()


def texts(rows: int, length: int) -> dict[str, np.ndarray]:
    """Random ids, the last row two tokens shorter than the others."""
    ids = np.random.default_rng(length).integers(5, 60, (rows, length))
    mask = np.ones_like(ids)
    mask[-1, max(1, length - 2) :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 7), (3, 17), (1, 24)])
def test_texts_of_any_length_and_number(session, model, rows, length):
    given = texts(rows, length)
    expected = opened(reference(model.rewrite(schemes={QUERY: Scheme()})), threads=1).run(None, given)[0]
    got = session.run(given)["embedding"]
    assert got.shape == expected.shape
    assert (got * expected).sum(1).min() >= 0.999


def test_the_codes_in_the_file_are_the_models_own(converted, model):
    assert model.weights[QUERY].codes.tobytes() in converted.files["model"][1]


def test_what_is_approximate_is_said(converted):
    assert set(converted.approximations) == {QUERY.removesuffix(".weight"), UP.removesuffix(".weight")}
    assert "bfloat16" in converted.approximations[UP.removesuffix(".weight")]
    assert not converted.floats


def test_it_tells_what_runs_in_which_precision(executorch, converted, tmp_path):
    files = converted.write(tmp_path)
    found = executorch[1].executed(files, converted.settings, texts(1, 10))
    per_token = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    attention = 2 * 2 * 10 * 10 * 32
    total = 10 * per_token + attention
    assert found.share["wint8"] == pytest.approx(10 * 32 * 32 / total)
    assert found.share["wint4"] == pytest.approx(10 * 32 * 64 / total)
    assert found.attention == pytest.approx(attention / total)


def test_a_text_that_is_too_long_is_an_error(session, two_lines):
    with pytest.raises(EngineError) as caught:
        session.run(texts(1, 60))
    assert "60 tokens" in two_lines(caught)[0]


def test_another_delegate_is_refused(executorch, converted, tmp_path, two_lines):
    with pytest.raises(UnsupportedError) as caught:
        executorch[1].open_artefact(converted.write(tmp_path), {**converted.settings, "delegate": "vulkan"}, threads=1)
    assert "vulkan" in two_lines(caught)[0]


def test_weights_that_have_no_kernel_are_refused_by_name(executorch, model, tiny_bert, two_lines):
    blocks = round_to_nearest(tiny_bert.weights[QUERY], bits=8, block=16, symmetric=True)
    with pytest.raises(UnsupportedError) as caught:
        executorch[0].convert(model.rewrite(weights={QUERY: blocks}))
    assert "encoder.layer.0.attention.self.query" in two_lines(caught)[0]


def test_convolutions_run_in_float_and_say_so(executorch, tiny_cnn, tmp_path):
    from tightrope.workshop.load import load
    from tightrope.workshop.pictures import pictures

    graph = load(str(tiny_cnn))
    weights = {}
    for conv in graph.convolutions():
        weight = graph.weights[conv.weight]
        rows = round_to_nearest(weight.reshape(len(weight), -1), bits=8, block=None, symmetric=True)
        weights[conv.weight] = replace(rows, codes=rows.codes.reshape(weight.shape))
    model = graph.rewrite(weights=weights)
    made = executorch[0].convert(model)
    assert set(made.floats) == {conv.name for conv in graph.convolutions()}
    session = executorch[1].open_artefact(made.write(tmp_path), made.settings, threads=1)
    truth = opened(reference(model), threads=1)
    for image in pictures(16, 16, 3, 2, seed=3):
        feeds = {graph.inputs[0].name: graph.senses.prepare(image)}
        expected = truth.run(None, feeds)[0]
        assert np.abs(session.run(feeds)[graph.outputs[0].name] - expected).max() <= 1e-4
    session.close()
