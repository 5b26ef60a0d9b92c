import numpy as np
import pytest

from tightrope.errors import DataError, RecipeError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Scheme, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes import rotate, smooth
from tightrope.workshop.passes.center import Options, apply

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")
FIRST = "encoder.layer.0.attention.self.query.weight"


@pytest.mark.engine
@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
@pytest.mark.parametrize("smoothed", [False, True])
def test_the_function_stays_the_same(tiny_bert, answers, lowered, smoothed):
    model, observer = lower(tiny_bert) if lowered else tiny_bert, Observer(tiny_bert, TEXTS[:3])
    if smoothed:
        model = smooth.apply(model, smooth.Options(inputs="all", shift=True), observer)
    changed = apply(model, Options(), observer)
    assert len(changed.schemes) == len(model.linears())
    np.testing.assert_allclose(answers(changed, TEXTS), answers(tiny_bert, TEXTS), atol=1e-5)


@pytest.mark.engine
@pytest.mark.parametrize("smoothed", [False, True])
def test_what_enters_a_layer_has_no_mean(tiny_bert, smoothed):
    observer, model = Observer(tiny_bert, TEXTS), tiny_bert
    if smoothed:
        model = smooth.apply(model, smooth.Options(), observer)
    changed = apply(model, Options(), observer)
    for name, scheme in changed.schemes.items():
        np.testing.assert_allclose(observer.inputs[name].prepared(scheme).mean, 0, atol=1e-5)


@pytest.mark.engine
def test_only_biases_change(tiny_bert):
    changed = apply(tiny_bert, Options(), Observer(tiny_bert, TEXTS))
    different = {name for name in tiny_bert.weights if changed.weights[name] is not tiny_bert.weights[name]}
    assert different == {linear.bias for linear in tiny_bert.linears()}


@pytest.mark.engine
def test_layers_that_share_an_input_share_one_scheme(tiny_bert):
    schemes = apply(tiny_bert, Options(), Observer(tiny_bert, TEXTS)).schemes
    assert schemes[FIRST] is schemes[FIRST.replace("query", "key")] is schemes[FIRST.replace("query", "value")]
    assert len({id(scheme) for scheme in schemes.values()}) == 8


@pytest.mark.engine
def test_layers_with_schemes_of_their_own_keep_them_apart(tiny_bert):
    apart = tiny_bert.rewrite(schemes={FIRST: Scheme(smooth=np.full(32, 2, np.float32))})
    schemes = apply(apart, Options(), Observer(tiny_bert, TEXTS)).schemes
    assert schemes[FIRST].smooth is not None and schemes[FIRST.replace("query", "key")].smooth is None
    np.testing.assert_allclose(schemes[FIRST].shift, schemes[FIRST.replace("query", "key")].shift, rtol=1e-5)


@pytest.mark.engine
def test_twice_takes_nothing_more_away(tiny_bert, answers):
    observer = Observer(tiny_bert, TEXTS)
    once = apply(tiny_bert, Options(), observer)
    twice = apply(once, Options(), observer)
    np.testing.assert_allclose(twice.schemes[FIRST].shift, once.schemes[FIRST].shift, atol=1e-5)
    np.testing.assert_allclose(answers(twice, TEXTS), answers(tiny_bert, TEXTS), atol=1e-5)


@pytest.mark.engine
def test_after_rotate_it_is_refused(tiny_bert, two_lines):
    observer = Observer(tiny_bert, TEXTS)
    turned = rotate.apply(tiny_bert, rotate.Options(), observer)
    with pytest.raises(RecipeError, match="after rotate") as raised:
        apply(turned, Options(), observer)
    two_lines(raised)


def test_without_texts_it_is_refused(tiny_bert):
    with pytest.raises(DataError):
        apply(tiny_bert, Options(), Observer(tiny_bert, ()))


@pytest.mark.engine
def test_named_layers_are_left_alone(tiny_bert):
    schemes = apply(tiny_bert, Options(keep="layer.0"), Observer(tiny_bert, TEXTS)).schemes
    assert sorted(schemes) == sorted(linear.weight for linear in tiny_bert.linears() if "layer.1" in linear.name)


@pytest.mark.engine
@pytest.mark.parametrize("recipe", ["center + int8", "center + int8(compensation=gptq)", "smooth + center + int8"])
def test_integers_follow(tiny_bert, answers, recipe):
    model = compress(tiny_bert, Recipe.parse(recipe).steps, Observer(tiny_bert, TEXTS))
    assert all(scheme.bits == 8 and scheme.shift is not None for scheme in model.schemes.values())
    found, wanted = answers(model, TEXTS), answers(tiny_bert, TEXTS)
    assert (found * wanted).sum(1).min() > 0.998
    assert not np.array_equal(values(model.weights[FIRST]), values(tiny_bert.weights[FIRST]))
