from dataclasses import replace

import numpy as np
import pytest

from tightrope.errors import RecipeError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.hadamard import rotated
from tightrope.workshop.numerics.quantized import Quantized, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.rotate import Options, apply

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")
FIRST = "encoder.layer.0.attention.self.query.weight"
INTEGERS = "int8(inputs=symmetric)"


def silent(model):
    return Observer(model, ())


def compressed(model, recipe):
    return compress(model, Recipe.parse(recipe).steps, Observer(model, TEXTS))


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.engine
@pytest.mark.parametrize("block", [2, 16, 128])
@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
def test_the_function_stays_the_same(tiny_bert, answers, block, lowered):
    model = lower(tiny_bert) if lowered else tiny_bert
    changed = apply(model, Options(block=block), silent(tiny_bert))
    assert len(changed.schemes) == len(model.linears())
    np.testing.assert_allclose(answers(changed, TEXTS), answers(tiny_bert, TEXTS), atol=1e-5)


@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
def test_weights_answer_to_rotated_inputs(tiny_bert, lowered):
    model = lower(tiny_bert) if lowered else tiny_bert
    changed = apply(model, Options(), silent(tiny_bert))
    for linear in model.linears():
        before, after = (values(item.weights[linear.weight]) for item in (model, changed))
        if linear.out_axis:
            before, after = before.T, after.T
        np.testing.assert_allclose(after, rotated(before, changed.schemes[linear.weight].rotation), atol=1e-6)


def test_layers_that_share_an_input_share_one_scheme(tiny_bert):
    schemes = apply(tiny_bert, Options(), silent(tiny_bert)).schemes
    assert schemes[FIRST] is schemes[FIRST.replace("query", "key")] is schemes[FIRST.replace("query", "value")]
    assert len({id(scheme) for scheme in schemes.values()}) == 8


def test_where_the_block_does_not_divide_a_width_the_next_smaller_one_does(tiny_bert):
    schemes = apply(tiny_bert, Options(), silent(tiny_bert)).schemes
    widths = {linear.weight: tiny_bert.weights[linear.weight].shape[1] for linear in tiny_bert.linears()}
    assert {widths[name]: scheme.rotation for name, scheme in schemes.items()} == {32: 32, 64: 64}


@pytest.mark.parametrize(("width", "block"), [(96, 32), (72, 8), (33, None)])
def test_pruned_widths_are_rotated_as_far_as_they_can_be(tiny_bert, width, block):
    up, down = (f"encoder.layer.0.{part}.dense.weight" for part in ("intermediate", "output"))
    random = np.random.default_rng(1)
    shapes = {up: (width, 32), f"{up[:-6]}bias": (width,), down: (32, width)}
    model = tiny_bert.rewrite(weights={key: random.normal(0, 1, shape).astype("f") for key, shape in shapes.items()})
    scheme = apply(model, Options(), silent(model)).schemes.get(down)
    assert (scheme and scheme.rotation) == block


def test_a_rotated_model_is_not_rotated_again(tiny_bert, two_lines):
    once = apply(tiny_bert, Options(), silent(tiny_bert))
    with pytest.raises(RecipeError, match="rotated already") as raised:
        apply(once, Options(), silent(tiny_bert))
    assert "encoder.layer.0" in two_lines(raised)[0]


def test_what_has_its_codes_is_left_alone(tiny_bert):
    integers = compressed(tiny_bert, INTEGERS)
    assert apply(integers, Options(), silent(tiny_bert)).schemes == integers.schemes


def test_a_weight_that_another_layer_uses_too_is_left_alone(tiny_bert):
    name, other = FIRST, FIRST.replace("query", "key")
    shared = replace(tiny_bert.linears()[1], weight=name)
    assert tiny_bert.linears()[1].weight == other

    class Tied(type(tiny_bert)):
        def linears(self):
            first, _, *rest = super().linears()
            return (first, shared, *rest)

    tied = Tied(**{field: getattr(tiny_bert, field) for field in type(tiny_bert).__dataclass_fields__})
    schemes = apply(tied, Options(), silent(tiny_bert)).schemes
    assert name not in schemes and len(schemes) == 10


def test_named_layers_are_left_alone(tiny_bert):
    schemes = apply(tiny_bert, Options(keep="query layer.1"), silent(tiny_bert)).schemes
    assert sorted(schemes) == sorted(
        linear.weight for linear in tiny_bert.linears() if "query" not in linear.name and "layer.1" not in linear.name
    )


@pytest.mark.parametrize("block", [-2, 0, 1, 3, 100, 8192])
def test_blocks_that_are_no_power_of_two_are_refused(tiny_bert, block):
    with pytest.raises(RecipeError, match=f"block is {block}"):
        apply(tiny_bert, Options(block=block), silent(tiny_bert))


# With other passes -------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
@pytest.mark.parametrize(
    "recipe",
    [
        f"rotate + {INTEGERS}",
        "rotate + int8(compensation=gptq, inputs=symmetric)",
        f"center + rotate + {INTEGERS}",
        "smooth + center + rotate(block=16) + int8(compensation=gptq, inputs=symmetric)",
        "rotate + int8(activations=static)",
        "rotate + int4",
    ],
)
def test_what_follows_rounds_what_was_rotated(tiny_bert, answers, recipe, lowered):
    model = compressed(lower(tiny_bert) if lowered else tiny_bert, recipe)
    assert all(isinstance(model.weights[linear.weight], Quantized) for linear in model.linears())
    assert all(scheme.rotation for scheme in model.schemes.values())
    least = 0.95 if "int4" in recipe else 0.998
    assert cosines(answers(model, TEXTS), answers(tiny_bert, TEXTS)).min() > least


@pytest.mark.engine
def test_one_loud_feature_no_longer_decides_the_grid(tiny_bert, answers):
    name = "encoder.layer.0.attention.output.LayerNorm.weight"
    gain = values(tiny_bert.weights[name]).copy()
    gain[5] *= 60
    up = "encoder.layer.0.intermediate.dense.weight"
    quiet = values(tiny_bert.weights[up]).copy()
    quiet[:, 5] /= 60
    loud = tiny_bert.rewrite(weights={name: gain, up: quiet})
    wanted = answers(loud, TEXTS)
    worst = {
        recipe: cosines(answers(compressed(loud, recipe), TEXTS), wanted).min()
        for recipe in (INTEGERS, f"rotate + {INTEGERS}")
    }
    assert 1 - worst[f"rotate + {INTEGERS}"] < 0.7 * (1 - worst[INTEGERS])
