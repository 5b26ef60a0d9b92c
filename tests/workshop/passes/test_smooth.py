from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from tightrope.errors import DataError, RecipeError
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.quantize import int8
from tightrope.workshop.passes.smooth import Options, apply
from tightrope.workshop.verify.plain import Plain

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")
FIRST = "encoder.layer.0.attention.self.query.weight"


def answers(model, texts=TEXTS):
    found = np.zeros((len(texts), 32), np.float32)
    for rows, _, (batch,) in Plain(lower(model)).run(texts):
        found[rows] = batch
    return found


@pytest.mark.engine
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("statistic", ["max", "rms"])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
def test_the_function_stays_the_same(tiny_bert, alpha, statistic, shift, lowered):
    model = lower(tiny_bert) if lowered else tiny_bert
    options = Options(alpha=alpha, statistic=statistic, shift=shift, inputs="all")
    changed = apply(model, options, Observer(tiny_bert, TEXTS[:3]))
    assert all((scheme.shift is not None) == shift for scheme in changed.schemes.values())
    np.testing.assert_allclose(answers(changed), answers(tiny_bert), atol=1e-5)


@pytest.mark.engine
def test_at_one_half_inputs_and_weights_meet(tiny_bert):
    observer = Observer(tiny_bert, TEXTS)
    model = apply(tiny_bert, Options(), observer)
    scheme = model.schemes[FIRST]
    inputs = observer.inputs[FIRST].prepared(scheme)
    size = np.maximum(-inputs.low, inputs.high)
    parts = [model.weights[FIRST.replace("query", part)] for part in ("query", "key", "value")]
    ratio = size / np.abs(np.concatenate(parts)).max(0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert np.exp(np.log(scheme.smooth).mean()) == pytest.approx(1, rel=1e-4)


@pytest.mark.engine
def test_layers_that_share_an_input_share_one_scheme(tiny_bert):
    schemes = apply(tiny_bert, Options(inputs="all"), Observer(tiny_bert, TEXTS)).schemes
    assert schemes[FIRST] is schemes[FIRST.replace("query", "value")]
    assert len({id(scheme) for scheme in schemes.values()}) == 8


@pytest.mark.engine
@pytest.mark.parametrize("lowered", [False, True], ids=["network", "graph"])
def test_as_the_paper_has_it_only_what_leaves_a_layer_norm_is_smoothed(tiny_bert, lowered):
    model = lower(tiny_bert) if lowered else tiny_bert
    schemes = apply(model, Options(), Observer(tiny_bert, TEXTS)).schemes
    parts = {name.removesuffix(".weight").rpartition("layer.")[2][2:] for name in schemes}
    assert parts == {f"attention.self.{part}" for part in ("query", "key", "value")} | {"intermediate.dense"}


@pytest.mark.engine
def test_a_weight_that_a_table_uses_too_is_left_alone(tiny_bert):
    graph, shared = lower(tiny_bert), "encoder.layer.0.intermediate.dense.weight"
    proto = type(graph.proto)()
    proto.CopyFrom(graph.proto)
    proto.graph.node.append(helper.make_node("Gather", [shared, "first_position"], ["gathered"], name="gathered"))
    changed = apply(replace(graph, proto=proto), Options(), Observer(tiny_bert, TEXTS))
    assert shared not in changed.schemes
    assert FIRST in changed.schemes


@pytest.mark.engine
def test_rounding_costs_less_afterwards(tiny_bert):
    observer = Observer(tiny_bert, TEXTS)
    plain = int8.apply(tiny_bert, int8.Options(), observer)
    smooth = int8.apply(apply(tiny_bert, Options(), observer), int8.Options(), observer)
    error = [float(np.square(answers(model) - answers(tiny_bert)).sum()) for model in (plain, smooth)]
    assert error[1] < error[0]


@pytest.mark.engine
def test_doing_it_twice_is_still_the_same_function(tiny_bert):
    observer = Observer(tiny_bert, TEXTS)
    once = apply(tiny_bert, Options(shift=True), observer)
    twice = apply(once, Options(alpha=0.9, shift=True, statistic="rms", inputs="all"), observer)
    np.testing.assert_allclose(answers(twice), answers(tiny_bert), atol=1e-5)


@pytest.mark.engine
def test_without_a_bias_nothing_is_shifted(tiny_bert):
    graph = lower(tiny_bert)
    shared = graph.weights[FIRST.replace("weight", "bias")]
    value = FIRST.replace("query", "value").replace("weight", "bias")
    proto = type(graph.proto)()
    proto.CopyFrom(graph.proto)
    for node in proto.graph.node:  # two layers add one vector, which therefore belongs to neither
        for index, name in enumerate(node.input):
            if name == value:
                node.input[index] = FIRST.replace("weight", "bias")
    graph = replace(graph, proto=proto)
    observer = Observer(graph, TEXTS)
    changed = apply(graph, Options(shift=True, inputs="all"), observer)
    assert changed.schemes[FIRST].shift is None
    assert changed.schemes["encoder.layer.0.output.dense.weight"].shift is not None
    assert changed.weights[FIRST.replace("weight", "bias")] is shared
    np.testing.assert_allclose(answers(changed), answers(graph), atol=1e-5)


@pytest.mark.engine
def test_a_feature_that_is_always_zero_is_left_as_it_is(tiny_bert):
    norm = "embeddings.LayerNorm"
    dead = {f"{norm}.{end}": values(tiny_bert.weights[f"{norm}.{end}"]).copy() for end in ("weight", "bias")}
    for weight in dead.values():
        weight[5] = 0
    model = tiny_bert.rewrite(weights=dead)
    changed = apply(model, Options(), Observer(model, TEXTS))
    assert changed.schemes[FIRST].smooth[5] == 1
    np.testing.assert_allclose(answers(changed), answers(model), atol=1e-5)


def test_without_texts_it_is_refused(tiny_bert):
    with pytest.raises(DataError):
        apply(tiny_bert, Options(), Observer(tiny_bert, ()))


@pytest.mark.parametrize("values", [{"alpha": 1.5}, {"alpha": float("nan")}, {"statistic": "median"}, {"inputs": "x"}])
def test_values_that_mean_nothing_are_refused(tiny_bert, values):
    with pytest.raises(RecipeError, match=next(iter(values))):
        apply(tiny_bert, Options(**values), Observer(tiny_bert, ()))
