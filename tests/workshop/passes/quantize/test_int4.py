import numpy as np
import pytest

from tightrope.errors import DataError, RecipeError
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, Scheme, size_bytes, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.quantize.int4 import Options, apply

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")


def silent(model):
    return Observer(model, ())


@pytest.mark.parametrize("method", ["nearest", "hqq"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_linear_weight_gets_four_bits_without_texts(tiny_bert, method, symmetric):
    model = apply(tiny_bert, Options(method=method, symmetric=symmetric, block=16), silent(tiny_bert))
    for linear in model.linears():
        weight, before = model.weights[linear.weight], values(tiny_bert.weights[linear.weight])
        assert isinstance(weight, Quantized)
        assert (weight.bits, weight.block, weight.axis) == (4, 16, 1)
        assert (weight.zero_point is None) == symmetric
        step = np.repeat(weight.scale, 16, axis=1)
        assert (np.abs(weight.dequantize() - before) <= 4 * step).all()
        assert size_bytes(weight) < before.nbytes / 5
    assert model.schemes == {}


@pytest.mark.engine
def test_compensation_answers_closer_than_rounding(tiny_bert):
    observer = Observer(tiny_bert, TEXTS)
    rows = observer.inputs
    errors = {}
    for method in ("nearest", "gptq"):
        model = apply(tiny_bert, Options(method=method, block=16), observer)
        errors[method] = sum(
            float(np.trace(error @ rows[linear.weight].gram @ error.T))
            for linear in model.linears()
            for error in [values(model.weights[linear.weight]) - values(tiny_bert.weights[linear.weight])]
        )
    assert errors["gptq"] < 0.8 * errors["nearest"]


def test_a_graph_gets_the_same_values_as_its_network(tiny_bert):
    options = Options(method="hqq", block=16)
    network = lower(apply(tiny_bert, options, silent(tiny_bert)))
    graph = apply(lower(tiny_bert), options, silent(tiny_bert))
    for linear in graph.linears():
        np.testing.assert_array_equal(values(graph.weights[linear.weight]), values(network.weights[linear.weight]))


def test_named_layers_and_finished_ones_are_left_alone(tiny_bert):
    once = apply(tiny_bert, Options(method="nearest", keep="query layer.1.output"), silent(tiny_bert))
    kept = {linear.name for linear in once.linears() if not isinstance(once.weights[linear.weight], Quantized)}
    assert kept == {
        "encoder.layer.0.attention.self.query",
        "encoder.layer.1.attention.self.query",
        "encoder.layer.1.output.dense",
    }
    twice = apply(once, Options(method="nearest", block=16), silent(tiny_bert))
    for linear in once.linears():
        weight = twice.weights[linear.weight]
        assert isinstance(weight, Quantized)
        assert weight.block == (16 if linear.name in kept else 32)


def test_dynamic_inputs_keep_what_was_smoothed_and_share_what_was_shared(tiny_bert):
    scheme = Scheme(smooth=np.full(32, 2, np.float32))
    names = [f"encoder.layer.0.attention.self.{part}.weight" for part in ("query", "key", "value")]
    smoothed = tiny_bert.rewrite(schemes=dict.fromkeys(names, scheme))
    model = apply(smoothed, Options(method="nearest", activations="dynamic"), silent(tiny_bert))
    assert len({id(model.schemes[name]) for name in names}) == 1
    assert model.schemes[names[0]].smooth is scheme.smooth
    assert all((found.bits, found.granularity, found.static) == (8, "token", None) for found in model.schemes.values())
    assert set(model.schemes) == {linear.weight for linear in model.linears()}
    parts = [f"encoder.layer.1.attention.self.{part}.weight" for part in ("query", "key", "value")]
    assert len({id(model.schemes[name]) for name in parts}) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(method="best"), "method is 'best'"),
        (Options(activations="static"), "activations is 'static'"),
        (Options(block=24), "block is 24"),
        (Options(block=0), "block is 0"),
        (Options(block=8), "block is 8"),
    ],
)
def test_values_that_an_option_cannot_have_are_refused(tiny_bert, options, said):
    with pytest.raises(RecipeError, match=said):
        apply(tiny_bert, options, silent(tiny_bert))


def test_compensation_without_texts_says_what_is_missing(tiny_bert):
    with pytest.raises(DataError, match="no calibration texts"):
        apply(tiny_bert, Options(), silent(tiny_bert))
