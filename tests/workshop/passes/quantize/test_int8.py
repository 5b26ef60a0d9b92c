import numpy as np
import pytest

from tightrope.errors import DataError, RecipeError
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.pairs import is_paired
from tightrope.workshop.numerics.quantized import Quantized, Scheme, kept_name, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.quantize.int8 import Options, apply

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")


def silent(model):
    return Observer(model, ())


@pytest.mark.parametrize("weights", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
def test_every_linear_weight_gets_a_scale_for_each_output(tiny_bert, weights, lowered):
    before = lower(tiny_bert) if lowered else tiny_bert
    model = apply(before, Options(weights=weights), silent(tiny_bert))
    for linear in model.linears():
        weight = model.weights[linear.weight]
        assert isinstance(weight, Quantized)
        assert (weight.bits, weight.block, weight.axis) == (8, None, linear.out_axis)
        assert weight.scale.shape == (weight.shape[linear.out_axis],)
        assert (weight.zero_point is None) == (weights == "symmetric")
        error = np.abs(weight.dequantize() - values(before.weights[linear.weight]))
        step = weight.scale[:, None] if linear.out_axis == 0 else weight.scale
        assert (error <= 1.01 * step).all()


def test_layers_that_share_an_input_share_one_scheme(tiny_bert):
    schemes = apply(tiny_bert, Options(), silent(tiny_bert)).schemes
    layer = "encoder.layer.0.attention"
    assert schemes[f"{layer}.self.query.weight"] is schemes[f"{layer}.self.key.weight"]
    assert schemes[f"{layer}.self.query.weight"] is schemes[f"{layer}.self.value.weight"]
    assert schemes[f"{layer}.self.query.weight"] is not schemes[f"{layer}.output.dense.weight"]
    assert len({id(scheme) for scheme in schemes.values()}) == 8


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), ("token", True)),
        (Options(inputs="asymmetric"), ("token", False)),
        (Options(granularity="tensor", inputs="symmetric"), ("tensor", True)),
        (Options(granularity="tensor"), ("tensor", False)),
    ],
)
def test_dynamic_schemes_need_no_texts(tiny_bert, options, expected):
    for scheme in apply(tiny_bert, options, silent(tiny_bert)).schemes.values():
        assert (scheme.bits, scheme.is_dynamic, scheme.granularity, scheme.symmetric) == (8, True, *expected)


def test_weights_alone_have_no_schemes(tiny_bert):
    assert apply(tiny_bert, Options(activations="none"), silent(tiny_bert)).schemes == {}


@pytest.mark.engine
def test_static_ranges_are_those_of_the_prepared_input(tiny_bert):
    observer = Observer(tiny_bert, TEXTS)
    name = "encoder.layer.0.intermediate.dense.weight"
    halving = Scheme(smooth=np.full(32, 2, np.float32), shift=np.full(32, 3, np.float32))
    model = tiny_bert.rewrite(schemes={name: halving})
    scheme = apply(model, Options(activations="static", inputs="asymmetric"), observer).schemes[name]
    rows = (observer.inputs[name].rows - 3) / 2  # so few tokens that all are in the sample
    assert len(rows) == observer.inputs[name].count
    assert scheme.static == pytest.approx((rows.min(), rows.max()), rel=1e-5)
    assert scheme.smooth is halving.smooth


@pytest.mark.engine
@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy", "mse"])
def test_every_calibration_knows_how_little_a_gelu_gives_below_zero(tiny_bert, calibration):
    options = Options(activations="static", inputs="asymmetric", calibration=calibration, percentile=99.0)
    schemes = apply(tiny_bert, options, Observer(tiny_bert, TEXTS)).schemes
    low, high = schemes["encoder.layer.1.output.dense.weight"].static
    assert -0.171 < low <= 0
    assert high > 1


@pytest.mark.engine
def test_compensation_keeps_outputs_closer(tiny_bert):
    observer = Observer(tiny_bert, TEXTS)
    errors = {}
    for compensation in ("none", "gptq"):
        model = apply(tiny_bert, Options(compensation=compensation), observer)
        errors[compensation] = sum(
            float(np.trace(error @ observer.inputs[linear.weight].gram @ error.T))
            for linear in model.linears()
            for error in [values(model.weights[linear.weight]) - values(tiny_bert.weights[linear.weight])]
        )
    assert errors["gptq"] < 0.8 * errors["none"]


@pytest.mark.parametrize("keep", ["query, layer.1.output", "query;layer.1.output", " query  layer.1.output "])
def test_named_layers_stay_in_floats(tiny_bert, keep):
    model = apply(tiny_bert, Options(keep=keep), silent(tiny_bert))
    kept = [linear.name for linear in model.linears() if not isinstance(model.weights[linear.weight], Quantized)]
    assert kept == [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.1.attention.self.query",
        "encoder.layer.1.output.dense",
    ]
    assert not any(f"{name}.weight" in model.schemes for name in kept)


def test_what_is_quantised_already_is_left_alone(tiny_bert):
    once = apply(tiny_bert, Options(), silent(tiny_bert))
    twice = apply(once, Options(weights="asymmetric", inputs="asymmetric"), silent(tiny_bert))
    assert all(twice.weights[name] is once.weights[name] for name in once.weights)
    assert dict(twice.schemes) == dict(once.schemes)


def test_a_word_that_names_no_layer_is_refused(tiny_bert):
    with pytest.raises(RecipeError, match="'classifier'"):
        apply(tiny_bert, Options(keep="classifier"), silent(tiny_bert))


@pytest.mark.parametrize("options", [Options(activations="static"), Options(compensation="gptq")])
def test_calibration_without_texts_is_refused(tiny_bert, options):
    with pytest.raises(DataError):
        apply(tiny_bert, options, silent(tiny_bert))


@pytest.mark.parametrize(
    "values",
    [
        {"weights": "big"},
        {"activations": "sometimes"},
        {"granularity": "row"},
        {"inputs": "odd"},
        {"calibration": "guess"},
        {"compensation": "luck"},
        {"percentile": 12.0},
        {"percentile": float("nan")},
        {"outliers": -1},
        {"outliers": 4, "activations": "none"},
        {"reduce_range": True, "weights": "asymmetric"},
    ],
)
def test_values_that_mean_nothing_are_refused(tiny_bert, values):
    with pytest.raises(RecipeError, match=next(iter(values))):
        apply(tiny_bert, Options(**values), silent(tiny_bert))


@pytest.mark.engine
def test_outliers_keep_their_floats_and_leave_the_grid(tiny_bert):
    name = "encoder.layer.0.intermediate.dense.weight"
    loud = values(tiny_bert.weights[name]).copy()
    loud[:, 3] *= 8
    model = tiny_bert.rewrite(weights={name: loud})
    observer = Observer(model, TEXTS)
    changed = apply(model, Options(activations="static", outliers=2), observer)
    scheme = changed.schemes[name]
    assert scheme.kept.tolist() == [3]  # the feature that the layer norm makes large
    np.testing.assert_array_equal(changed.weights[kept_name(name)], loud[:, [3]].T)
    assert (changed.weights[name].codes[:, 3] == 0).all()
    rest = np.delete(observer.inputs[name].rows, 3, axis=1)
    assert scheme.static == pytest.approx((rest.min(), rest.max()), rel=1e-5)


@pytest.mark.engine
@pytest.mark.parametrize("compensation", ["none", "gptq"])
def test_a_reduced_range_leaves_room_for_two_products_in_16_bits(tiny_bert, compensation):
    observer = silent(tiny_bert) if compensation == "none" else Observer(tiny_bert, TEXTS)
    model = apply(tiny_bert, Options(reduce_range=True, compensation=compensation), observer)
    for linear in tiny_bert.linears():
        stored = model.weights[linear.weight]
        rows = stored if linear.out_axis == 0 else stored.transpose()
        assert rows.bits == 8 and is_paired(rows.codes) and np.abs(rows.codes).max() == 63
        wanted = values(tiny_bert.weights[linear.weight])
        assert np.abs(stored.dequantize() - wanted).max() < 0.05 * np.abs(wanted).max()
