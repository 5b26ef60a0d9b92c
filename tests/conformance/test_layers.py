"""One layer alone on every engine: the same grid gives the same numbers, with nothing in between to blur them."""

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tightrope.errors import UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.numerics.quantized import Scheme, kept_name, values
from tightrope.workshop.numerics.rounding import round_to_nearest

pytestmark = pytest.mark.engine
WIDTH, OUT = 64, 48
SMOOTH = np.linspace(0.5, 2, WIDTH, dtype=np.float32)
SHIFT = np.linspace(-1, 1, WIDTH, dtype=np.float32)
KEPT = np.array([3, 40])
SCHEMES = {
    "static": Scheme(bits=8, static=(-2.0, 4.0), symmetric=False),
    "static symmetric": Scheme(bits=8, static=(-3.0, 3.0)),
    "static, smooth, shift": Scheme(bits=8, static=(-3.0, 3.5), symmetric=False, smooth=SMOOTH, shift=SHIFT),
    "static, kept": Scheme(bits=8, static=(-3.0, 3.5), symmetric=False, smooth=SMOOTH, shift=SHIFT, kept=KEPT),
    "tensor": Scheme(bits=8, granularity="tensor", symmetric=False),
    "tensor symmetric": Scheme(bits=8, granularity="tensor"),
    "tensor, kept": Scheme(bits=8, granularity="tensor", symmetric=False, shift=SHIFT, kept=KEPT),
    "token": Scheme(bits=8),
    "token asymmetric": Scheme(bits=8, symmetric=False),
    "token, kept": Scheme(bits=8, smooth=SMOOTH, kept=KEPT),
    "prepared only": Scheme(smooth=SMOOTH, shift=SHIFT),
    "none": Scheme(),
}
WEIGHTS = {
    "symmetric": {"bits": 8, "block": None, "symmetric": True},
    "asymmetric": {"bits": 8, "block": None, "symmetric": False},
    "6 bits": {"bits": 6, "block": None, "symmetric": False},
    "blocks": {"bits": 8, "block": 16, "symmetric": False},
    "4 bits": {"bits": 4, "block": 32, "symmetric": True},
    "4 bits asymmetric": {"bits": 4, "block": 32, "symmetric": False},
    "4 bits by row": {"bits": 4, "block": None, "symmetric": False},
}


def layer(*, gemm: bool = False) -> Graph:
    """y = x·W + b as some exporter may have written it; a Gemm stores its weight as [out, in]."""
    random = np.random.default_rng(3)
    weight = random.normal(0, 0.1, (OUT, WIDTH)).astype(np.float32)
    bias = random.normal(0, 0.1, OUT).astype(np.float32)
    if gemm:
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="dense", transB=1)]
    else:
        product = helper.make_node("MatMul", ["x", "w"], ["product"], name="product")
        nodes = [product, helper.make_node("Add", ["b", "product"], ["y"], name="dense")]
        weight = np.ascontiguousarray(weight.T)
    free = ["rows"] if gemm else ["batch", "length"]
    inputs = [helper.make_tensor_value_info("x", 1, [*free, WIDTH])]
    outputs = [helper.make_tensor_value_info("y", 1, [*free, OUT])]
    proto = helper.make_model(
        helper.make_graph(nodes, "layer", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    return Graph(
        proto=proto,
        weights={"w": weight, "b": bias},
        senses=TextSenses(tokenizer=b"", max_length=8),
        task=Task(name="embedding", width=OUT),
        origin="0" * 64,
        digest="0" * 64,
    )


def annotated(graph: Graph, scheme: Scheme, weight: dict[str, Any]) -> Graph:
    """The layer's weight on a grid, and its input under a scheme."""
    (linear,) = graph.linears()
    rows = values(graph.weights["w"])
    rows = (rows if linear.out_axis == 0 else rows.T).copy()
    extra = {}
    if scheme.kept is not None:
        extra[kept_name("w")] = np.ascontiguousarray(rows[:, scheme.kept].T)
        rows[:, scheme.kept] = 0
    stored = round_to_nearest(rows, **weight)
    stored = stored if linear.out_axis == 0 else stored.transpose()
    return graph.rewrite(weights={"w": stored, **extra}, schemes={"w": scheme})


def rows_of_x(*shape: int) -> dict[str, Any]:
    """Inputs with one strong feature."""
    x = np.random.default_rng(5).normal(0, 1, (*shape, WIDTH)).astype(np.float32)
    x[..., 3] *= 6
    return {"x": x}


REFUSED = {"ncnn": ("blocks",), "litert": ("blocks",), "executorch": ("blocks",)}
"""Weights that an engine says it cannot take, with the layer's name."""


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_is_what_the_reference_says(graph_engine, opened, answer, scheme, weight):
    model = annotated(layer(), SCHEMES[scheme], WEIGHTS[weight])
    if weight in REFUSED.get(graph_engine, ()):
        with pytest.raises(UnsupportedError, match="dense"):
            opened(model, graph_engine)
        return
    found, given = opened(model, graph_engine), rows_of_x(2, 5)
    if found.converted.approximations or found.converted.floats:  # near the finest rounding of the input, or none
        model, allowed = model.rewrite(schemes={"w": finest(SCHEMES[scheme])}), 0.03
    else:  # ONNX clips a symmetric grid at -128, the reference at -127
        allowed = 0.004 if scheme == "static symmetric" else 1e-5
    expected, got = answer(model, given), found.run(given)
    assert np.abs(got - expected).max() <= allowed * np.abs(expected).max()


def finest(scheme: Scheme) -> Scheme:
    """The scheme without its rounding; with features kept from it, a range for each token."""
    bits = None if scheme.kept is None else 8
    return Scheme(bits=bits, smooth=scheme.smooth, shift=scheme.shift, kept=scheme.kept)


def test_a_gemm_is_a_layer_too(graph_engine, opened, answer):
    model = annotated(layer(gemm=True), SCHEMES["static"], WEIGHTS["symmetric"])
    found, given = opened(model, graph_engine), rows_of_x(5)
    precision, allowed = "int8", 1e-4
    if found.converted.approximations:  # an engine that does not round this input as it is told
        model, precision, allowed = model.rewrite(schemes={"w": finest(SCHEMES["static"])}), "wint8", 0.06
    assert np.allclose(found.run(given), answer(model, given), atol=allowed)
    assert found.converted.precision == precision


def test_a_float_layer_keeps_its_float_weights_and_says_so(graph_engine, opened, answer):
    graph = layer()
    model = graph.rewrite(schemes={"w": SCHEMES["static, smooth, shift"]})
    found, given = opened(model, graph_engine), rows_of_x(2, 5)
    expected = answer(graph.rewrite(schemes={"w": finest(SCHEMES["static, smooth, shift"])}), given)
    assert np.allclose(found.run(given), expected, atol=1e-4)
    assert found.converted.floats == {"dense": "its weights are floats"}
    assert found.converted.precision == "fp32"


def test_inputs_of_few_bits_are_refused_by_name(graph_engine, opened):
    model = annotated(layer(), Scheme(bits=4), WEIGHTS["symmetric"])
    with pytest.raises(UnsupportedError, match="dense with inputs of 4 bits"):
        opened(model, graph_engine)
