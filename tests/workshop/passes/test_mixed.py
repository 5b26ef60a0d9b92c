import math
from dataclasses import replace

import numpy as np
import pytest

from tightrope.device.senses.text import Tokenizer
from tightrope.errors import DataError, RecipeError
from tightrope.workshop.model import Task
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, size_bytes, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.mixed import Options, apply, sensitivity
from tightrope.workshop.probe import Probe
from tightrope.workshop.reference import opened, reference

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain", "the sun sat down")
pytestmark = pytest.mark.engine


def linear_bytes(model):
    return sum(size_bytes(model.weights[linear.weight]) for linear in model.linears())


def integers(model):
    found = {linear.weight: model.weights[linear.weight] for linear in model.linears()}
    return {name: weight for name, weight in found.items() if isinstance(weight, Quantized)}


def answered(model):
    session = opened(reference(model), threads=1)
    ids, mask = Tokenizer(model.senses.tokenizer, 32).encode(TEXTS).ids.padded()
    return session.run(None, {"input_ids": ids, "attention_mask": mask})[0].astype(np.float64)


@pytest.fixture(scope="module")
def observer(tiny_bert):
    return Observer(tiny_bert, TEXTS)


@pytest.fixture(scope="module")
def whole(tiny_bert, observer):
    """What all layers together lose, by bits, if losses add up."""
    return {bits: sum(sensitivity(tiny_bert, observer, bits=bits).values()) for bits in (4, 8)}


def test_the_answers_stay_within_the_limit_and_more_room_gives_fewer_bytes(tiny_bert, observer, whole):
    probe = Probe(tiny_bert, tiny_bert.linears(), observer)
    sizes = []
    for limit in (0.0, whole[8] / 2, whole[4] / 4, whole[4] / 2, 1.0):
        model = apply(tiny_bert, Options(loss=limit, method="nearest", block=16), observer)
        changed = {name: weight.dequantize() for name, weight in integers(model).items()}
        assert probe.loss(changed) <= limit + 1e-12
        sizes.append(linear_bytes(model))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 5
    assert {weight.bits for weight in integers(model).values()} == {4}


def test_the_probe_meets_texts_behind_the_default_prompt(tiny_bert):
    def answers(model, texts):
        return Probe(model, model.linears(), Observer(model, texts))._answers

    long = "the cat " * 20
    senses = replace(tiny_bert.senses, prompts={"query": long}, default_prompt="query")
    prompted = answers(replace(tiny_bert, senses=senses), TEXTS)
    assert len(np.unique(prompted.round(6), axis=0)) == len(TEXTS)  # a long prompt leaves room for the texts
    senses = replace(tiny_bert.senses, prompts={"query": "the cat "}, default_prompt="query")
    np.testing.assert_array_equal(
        answers(replace(tiny_bert, senses=senses), ["sat"]), answers(tiny_bert, ["the cat sat"])
    )


def test_layers_get_different_widths_by_what_they_can_bear(tiny_bert, observer, whole):
    model = apply(tiny_bert, Options(loss=whole[4] / 2, method="nearest", block=16), observer)
    widths = {weight.bits for weight in integers(model).values()}
    assert widths == {4, 8}


def test_float_layers_keep_float_inputs(tiny_bert, observer, whole):
    options = Options(loss=whole[8] / 2, method="nearest", activations="dynamic")
    model = apply(tiny_bert, options, observer)
    assert set(model.schemes) == set(integers(model))
    assert 0 < len(model.schemes) < len(model.linears())


def test_sensitivity_is_measured_a_layer_at_a_time(tiny_bert, observer):
    four, eight = sensitivity(tiny_bert, observer), sensitivity(tiny_bert, observer, bits=8)
    assert set(four) == set(eight) == {linear.name for linear in tiny_bert.linears()}
    assert all(loss > 0 for loss in four.values())
    assert sum(eight.values()) < sum(four.values()) / 20
    assert max(four.values()) > 2 * min(four.values())


def test_a_graph_is_as_sensitive_as_its_network(tiny_bert, observer):
    graph = lower(tiny_bert)
    again = {
        linear.name: loss
        for linear, loss in zip(graph.linears(), sensitivity(graph, Observer(graph, TEXTS)).values(), strict=True)
    }
    np.testing.assert_allclose(list(again.values()), list(sensitivity(tiny_bert, observer).values()), rtol=1e-3)


def test_a_probe_sees_what_the_reference_answers(tiny_bert, observer):
    probe = Probe(tiny_bert, tiny_bert.linears(), observer)
    assert abs(probe.loss({})) < 1e-12
    name = tiny_bert.linears()[-1].weight
    changed = values(tiny_bert.weights[name])[::-1]
    answers = [answered(model) for model in (tiny_bert, tiny_bert.rewrite(weights={name: changed.copy()}))]
    expected = 1 - (answers[0] * answers[1]).sum(1).mean()
    assert probe.loss({name: changed}) == pytest.approx(expected, rel=1e-4)


def test_a_scoring_model_is_judged_by_the_correlation_of_its_scores(tiny_bert):
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    weights = {**tiny_bert.weights, "pooler.dense.weight": np.eye(32, dtype=np.float32)}
    weights |= {"pooler.dense.bias": np.zeros(32, np.float32), "classifier.bias": np.zeros(1, np.float32)}
    weights["classifier.weight"] = np.random.default_rng(5).normal(0, 1, (1, 32)).astype(np.float32)
    scorer = replace(tiny_bert, weights=weights, task=Task(name="scoring", width=1))
    probe = Probe(scorer, scorer.linears(), Observer(scorer, (), pairs))
    assert probe.loss({"classifier.weight": 2 * weights["classifier.weight"]}) == pytest.approx(0, abs=1e-9)
    assert probe.loss({"classifier.weight": -weights["classifier.weight"]}) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("loss", [-0.1, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused(tiny_bert, observer, loss):
    with pytest.raises(RecipeError, match="loss is"):
        apply(tiny_bert, Options(loss=loss), observer)


def test_no_texts_no_answer(tiny_bert):
    with pytest.raises(DataError, match="no calibration texts"):
        apply(tiny_bert, Options(method="nearest"), Observer(tiny_bert, ()))


def test_a_model_without_float_layers_is_left_as_it_is(tiny_bert, observer):
    done = apply(tiny_bert, Options(loss=1.0, method="nearest"), observer)
    again = apply(done, Options(loss=0.0, method="nearest"), observer)
    assert all(again.weights[name] is weight for name, weight in done.weights.items())
    assert sensitivity(done, observer) == {}
