"""Parity of numbers, and the first layer that is to blame."""

from dataclasses import replace

import numpy as np
import pytest

from tightrope.workshop.model import Task
from tightrope.workshop.network import Network, lower
from tightrope.workshop.verify.answers import answers_of, open_reference
from tightrope.workshop.verify.parity import first_divergence, layer_errors, parity

TEXTS = ("the cat sat", "a dog", "the the the cat on a mat", "sat")


def test_parity_of_vectors() -> None:
    original = np.eye(4, dtype=np.float32)
    turned = original.copy()
    turned[0] = [0.6, 0.8, 0, 0]
    found = parity(turned, original)
    assert found.n == 4
    assert found.cosine_min == pytest.approx(0.6)
    assert found.cosine_mean == pytest.approx(0.9)
    assert found.cosine_min <= found.cosine_p1 <= found.cosine_mean
    assert found.largest_difference == pytest.approx(0.8)


def test_parity_does_not_see_length_but_states_it() -> None:
    original = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    found = parity(2 * original, original)
    assert found.cosine_min == pytest.approx(1)
    assert found.largest_difference == pytest.approx(np.abs(original).max())


def test_nothing_but_zeros_is_the_same_twice_and_unlike_anything_else() -> None:
    zeros = np.zeros((1, 3), np.float32)
    assert parity(zeros, zeros).cosine_min == 1
    assert parity(zeros, np.ones((1, 3), np.float32)).cosine_min == 0


def test_parity_of_scores_is_their_correlation() -> None:
    original = np.array([0.1, 0.9, 0.4, 0.6], np.float32)
    found = parity(original + 0.05, original)
    assert found.cosine_min == found.cosine_p1 == found.cosine_mean == pytest.approx(1)
    assert found.largest_difference == pytest.approx(0.05, rel=1e-5)
    assert parity(1 - original, original).cosine_min == pytest.approx(-1)
    assert parity(original[:, None], original[:, None]).cosine_min == 1
    assert parity(original[:1], original[:1]).cosine_min == 1


def spoilt(model: Network, weight: str) -> Network:
    values = model.weights[weight]
    noise = np.random.default_rng(1).normal(0, max(0.5, values.std()), values.shape).astype(np.float32)
    return model.rewrite(weights={weight: values + noise})


@pytest.fixture(scope="module")
def coarse(tiny_bert: Network) -> Network:
    """Every linear weight a little off, as after quantisation."""
    generator = np.random.default_rng(2)
    weights = {
        linear.weight: tiny_bert.weights[linear.weight]
        * generator.normal(1, 0.01, tiny_bert.weights[linear.weight].shape).astype(np.float32)
        for linear in tiny_bert.linears()
    }
    return tiny_bert.rewrite(weights=weights)


@pytest.mark.engine
@pytest.mark.parametrize("base", ["tiny_bert", "coarse"])
@pytest.mark.parametrize(
    "layer",
    [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.output.LayerNorm",
        "encoder.layer.1.attention.self.value",
        "encoder.layer.1.intermediate.dense",
        "encoder.layer.1.output.dense",
    ],
)
def test_the_layer_that_was_spoilt_is_named(
    request: pytest.FixtureRequest, tiny_bert: Network, base: str, layer: str
) -> None:
    candidate = spoilt(request.getfixturevalue(base), f"{layer}.weight")
    assert first_divergence(candidate, tiny_bert, TEXTS) == layer


@pytest.mark.engine
@pytest.mark.parametrize("table", ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"])
def test_a_spoilt_table_is_named(tiny_bert: Network, table: str) -> None:
    assert first_divergence(spoilt(tiny_bert, table), tiny_bert, TEXTS) == table


@pytest.mark.engine
def test_a_bias_belongs_to_its_layer_and_graphs_are_compared_too(tiny_bert: Network) -> None:
    candidate = lower(spoilt(tiny_bert, "encoder.layer.1.output.dense.bias"))
    assert first_divergence(candidate, lower(tiny_bert), TEXTS) == "encoder.layer.1.output.dense"


@pytest.mark.engine
def test_the_same_model_does_not_diverge(tiny_bert: Network) -> None:
    errors = layer_errors(tiny_bert, tiny_bert, TEXTS)
    assert set(errors.values()) == {0.0}
    assert {linear.name for linear in tiny_bert.linears()} < set(errors)
    assert next(iter(errors)) == "embeddings.word_embeddings.weight"
    assert first_divergence(tiny_bert, tiny_bert, TEXTS) is None


@pytest.mark.engine
def test_the_reference_answers_texts_in_order_and_pairs(tiny_bert: Network) -> None:
    model = open_reference(tiny_bert)
    together = model.embed(list(TEXTS))
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.allclose(together, np.concatenate([model.embed([text]) for text in TEXTS]), atol=1e-5)
    head = {
        f"{name}.{end}": np.random.default_rng(3).normal(size=shape).astype(np.float32)
        for name, width in (("pooler.dense", 32), ("classifier", 1))
        for end, shape in (("weight", (width, 32)), ("bias", (width,)))
    }
    scorer = replace(tiny_bert, weights={**tiny_bert.weights, **head}, task=Task(name="scoring", width=1))
    scores = open_reference(scorer).score([("the cat", "sat"), ("sat", "the cat")])
    assert scores.shape == (2,) and scores[0] != scores[1]
    assert layer_errors(scorer, scorer, [("the cat", "sat")])["classifier"] == 0


@pytest.mark.engine
def test_texts_that_are_cut_are_counted(tiny_bert: Network) -> None:
    from tightrope.samples import Texts

    answers = answers_of(open_reference(tiny_bert), Texts(("the " * 100, "cat")))
    assert answers.truncated == 1
