"""Tables of few bits give the very values of the grid, and take the place on disk that their bits promise."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tightrope.workshop.convert import _tables
from tightrope.workshop.graph import Builder, tensor
from tightrope.workshop.numerics.quantized import Quantized
from tightrope.workshop.numerics.rounding import round_to_nearest


def gathered(weight: Quantized, ids: np.ndarray) -> tuple[np.ndarray, int]:
    """The rows that the nodes give, and the bytes of what is stored."""
    build = Builder()
    node = helper.make_node("Gather", ["table", "ids"], ["rows"])
    assert _tables.gather(build, node, {"table": weight})
    stored = [tensor(name, value) for name, value in build.weights.items()]
    graph = helper.make_graph(
        build.nodes,
        "table",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ids.shape)],
        [helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, None)],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (rows,) = ReferenceEvaluator(model).run(None, {"ids": ids})
    return rows, sum(len(item.raw_data) for item in stored)


@settings(max_examples=25, deadline=None)
@given(
    bits=st.sampled_from([4, 6, 8]),
    block=st.sampled_from([None, 8, 12]),
    symmetric=st.booleans(),
    features=st.sampled_from([16, 24, 30]),
    seed=st.integers(0, 99),
)
def test_rows_are_the_values_of_the_grid(
    bits: int, block: int | None, symmetric: bool, features: int, seed: int
) -> None:
    table = np.random.default_rng(seed).normal(0, 1, (20, features)).astype(np.float32)
    weight = round_to_nearest(table, bits=bits, block=block, symmetric=symmetric)
    ids = np.array([[0, 19, 7], [7, 7, 1]])
    rows, _ = gathered(weight, ids)
    assert np.allclose(rows, weight.dequantize()[ids], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_codes_are_packed_to_their_bits(bits: int) -> None:
    table = np.random.default_rng(1).normal(0, 1, (1000, 64)).astype(np.float32)
    weight = round_to_nearest(table, bits=bits, block=None, symmetric=True)
    _, stored = gathered(weight, np.array([[1]]))
    assert stored <= weight.size_bytes + 2000


def test_what_is_no_quantised_table_is_left_to_the_caller() -> None:
    build = Builder()
    table = np.zeros((4, 4), np.float32)
    weight = round_to_nearest(table + 1, bits=8, block=None, symmetric=True)
    assert not _tables.gather(build, helper.make_node("Gather", ["table", "ids"], ["rows"]), {"table": table})
    assert not _tables.gather(build, helper.make_node("Add", ["table", "ids"], ["rows"]), {"table": weight})
    across = helper.make_node("Gather", ["table", "ids"], ["rows"], axis=1)
    assert not _tables.gather(build, across, {"table": weight})
    assert not build.nodes
