"""What converters through ONNX share: bias and kept features, preparation, the file of large tensors."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tightrope.workshop.convert._forms import Form, layers, signed, static_grid
from tightrope.workshop.convert._norms import factors, norms
from tightrope.workshop.converted import file_name
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import Network, lower
from tightrope.workshop.numerics.quantized import Scheme, prepared, values
from tightrope.workshop.numerics.rounding import round_to_nearest


def test_layers_know_their_bias_and_output(tiny_bert: Network) -> None:
    graph = lower(tiny_bert)
    found = layers(graph)
    assert len(found) == len(graph.linears()) == 12
    first = next(iter(found.values()))
    assert first.output == first.name == "encoder.layer.0.attention.self.query"
    assert first.linear.bias == "encoder.layer.0.attention.self.query.bias"


def test_layers_with_an_equal_scheme_share_their_input(tiny_bert: Network) -> None:
    smooth = np.linspace(1, 2, 32, dtype=np.float32)
    names = [linear.weight for linear in lower(tiny_bert).linears()[:3]]
    graph = lower(tiny_bert).rewrite(schemes={name: Scheme(smooth=smooth.copy()) for name in names})
    form, known = Form(graph), list(layers(graph).values())
    assert len({form.prepared(layer, without_kept=False) for layer in known[:3]}) == 1
    assert [node.op_type for node in form.build.nodes] == ["Mul"]


@pytest.mark.parametrize("shift", [None, np.linspace(-1, 1, 32, dtype=np.float32)])
def test_a_normalisation_gives_what_the_layers_want(tiny_bert: Network, shift: np.ndarray | None) -> None:
    smooth = np.linspace(0.5, 2, 32, dtype=np.float32)
    scheme = Scheme(smooth=smooth, shift=shift)
    graph = lower(tiny_bert)
    graph = graph.rewrite(schemes={linear.weight: scheme for linear in graph.linears()[:3]})
    (norm,) = norms(graph, layers(graph)).values()
    smooth, away = factors(norm)
    x = np.random.default_rng(0).normal(0, 1, (4, 32)).astype(np.float32)
    whole = x * norm.gain + norm.bias
    folded = x * (norm.gain / smooth) + (norm.bias - away) / smooth
    assert np.allclose(folded, prepared(whole, scheme), atol=1e-5)
    carrier = "encoder.layer.0.attention.output.dense" if shift is not None else None
    assert norm.carrier == carrier and norm.is_wanted_whole


def test_large_tensors_lie_in_a_file_named_by_its_content(tiny_bert: Network) -> None:
    graph = lower(tiny_bert)
    form = Form(graph)
    for node in graph.proto.graph.node:
        form.copy(node)
    data, weights = form.finish({})
    model = onnx.load_from_string(data)
    places = [
        {item.key: item.value for item in stored.external_data}
        for stored in model.graph.initializer
        if stored.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert {place["location"] for place in places} == {file_name(weights, "bin")}
    assert all(int(place["offset"]) % 64 == 0 for place in places)
    assert len(data) < 30_000 < len(weights)
    assert form.finish({}) == (data, weights)


def test_a_static_grid_is_that_of_the_reference() -> None:
    scale, zero = static_grid(Scheme(bits=8, static=(-1.0, 4.1), symmetric=False))
    assert (float(scale), int(zero)) == (pytest.approx(5.1 / 255), 50)
    assert scale.shape == zero.shape == () and zero.dtype == np.uint8
    scale, zero = static_grid(Scheme(bits=8, static=(-1.0, 2.0)))
    assert (float(scale), int(zero)) == (pytest.approx(2 / 127), 128)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_signed_codes_have_the_same_values(bits: int, symmetric: bool) -> None:
    weight = round_to_nearest(
        np.random.default_rng(2).normal(1, 1, (5, 16)).astype(np.float32), bits=bits, block=None, symmetric=symmetric
    )
    codes, zero = signed(weight)
    assert codes.dtype == zero.dtype == np.int8
    real = (codes.astype(np.float32) - zero[:, None]) * weight.scale[:, None]
    assert np.array_equal(real, weight.dequantize())


def test_kept_features_take_shift_and_smoothing_into_their_weights() -> None:
    random = np.random.default_rng(4)
    weight, bias = random.normal(0, 1, (8, 3)).astype(np.float32), random.normal(0, 1, 3).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    ports = [helper.make_tensor_value_info("x", 1, [None, 8])], [helper.make_tensor_value_info("y", 1, [None, 3])]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", *ports), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    kept = np.array([1, 6])
    scheme = Scheme(bits=8, smooth=np.linspace(0.5, 2, 8, dtype=np.float32), shift=bias.repeat(3)[:8], kept=kept)
    rest = weight.copy()
    rest[kept] = 0
    graph = Graph(
        proto=proto,
        weights={"w": rest, "b": bias, "w.kept": weight[kept]},
        schemes={"w": scheme},
        senses=TextSenses(tokenizer=b"", max_length=8),
        task=Task(name="embedding", width=3),
        origin="o",
        digest="o",
    )
    form = Form(graph)
    (layer,) = layers(graph).values()
    form.floats(layer)
    data, _ = form.finish({})
    x = random.normal(0, 1, (5, 8)).astype(np.float32)
    (y,) = ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"x": x})
    assert np.allclose(y, prepared(x, scheme) @ weight + values(bias), atol=1e-5)
