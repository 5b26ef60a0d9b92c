import numpy as np
import pytest

from tightrope.errors import RecipeError, UnsupportedError
from tightrope.workshop.graph import is_half
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.half import Options, apply
from tightrope.workshop.passes.quantize import int8


@pytest.mark.parametrize(("dtype", "digits"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_every_weight_is_the_nearest_in_sixteen_bits(tiny_bert, dtype, digits):
    model = apply(tiny_bert, Options(format=dtype), Observer(tiny_bert, ()))
    for name, weight in model.weights.items():
        before = tiny_bert.weights[name]
        if before.size < 1024:
            assert weight is before
            continue
        assert weight.dtype.name == {"fp16": "float16", "bf16": "bfloat16"}[dtype]
        assert weight.nbytes * 2 == before.nbytes
        np.testing.assert_allclose(values(weight), before, rtol=digits, atol=1e-7)


def test_a_graph_casts_each_weight_once_and_only_the_rows_it_gathers(tiny_bert):
    graph = apply(lower(tiny_bert), Options(), Observer(tiny_bert, ()))
    nodes = graph.proto.graph.node
    casts = [node.input[0] for node in nodes if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    assert "embeddings.word_embeddings.weight" not in casts
    assert "embeddings.words.half" in casts
    assert not is_half(graph.weights["norm.least"])  # 1e-12 would be zero


def test_layers_and_tables_are_still_found(tiny_bert):
    before, after = lower(tiny_bert), apply(lower(tiny_bert), Options(), Observer(tiny_bert, ()))
    assert after.linears() == before.linears()
    assert after.tables() == before.tables()


def test_a_lowered_network_is_the_lowered_graph(tiny_bert):
    of_network = lower(apply(tiny_bert, Options(), Observer(tiny_bert, ())))
    of_graph = apply(lower(tiny_bert), Options(), Observer(tiny_bert, ()))
    nodes = [{node.name: list(node.input) for node in graph.proto.graph.node} for graph in (of_network, of_graph)]
    assert nodes[0] == nodes[1] | {name: inputs for name, inputs in nodes[0].items() if name not in nodes[1]}


def test_integers_stay_integers(tiny_bert):
    observer = Observer(tiny_bert, ())
    model = apply(int8.apply(tiny_bert, int8.Options(), observer), Options(), observer)
    assert all(isinstance(model.weights[linear.weight], Quantized) for linear in model.linears())
    assert is_half(model.weights["embeddings.word_embeddings.weight"])


def test_what_fp16_cannot_hold_is_refused(tiny_bert):
    name = "encoder.layer.0.output.dense.weight"
    model = tiny_bert.rewrite(weights={name: np.full((32, 64), 70000, np.float32)})
    with pytest.raises(UnsupportedError, match=f"{name} has values beyond fp16"):
        apply(model, Options(), Observer(model, ()))
    assert is_half(apply(model, Options(format="bf16"), Observer(model, ())).weights[name])


def test_an_unknown_format_is_refused(tiny_bert):
    with pytest.raises(RecipeError, match="fp8"):
        apply(tiny_bert, Options(format="fp8"), Observer(tiny_bert, ()))
