import numpy as np
import pytest

from tightrope.errors import RecipeError
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, size_bytes, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.quantize.embedding import Options, apply

TABLE = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("block", [0, 16, 32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_vocabulary_alone_is_put_on_a_grid(tiny_bert, bits, block, symmetric):
    options = Options(bits=bits, block=block, symmetric=symmetric)
    model = apply(tiny_bert, options, Observer(tiny_bert, ()))
    table = model.weights[TABLE]
    assert isinstance(table, Quantized)
    assert (table.bits, table.block, table.axis) == (bits, block or None, 1 if block else 0)
    assert [name for name, weight in model.weights.items() if isinstance(weight, Quantized)] == [TABLE]
    before = values(tiny_bert.weights[TABLE])
    step = np.repeat(table.scale, block, 1)[:, :32] if block else table.scale[:, None]
    assert (np.abs(table.dequantize() - before) <= 1.01 * step).all()
    assert model.schemes == {}


def test_fewer_bits_take_less_room_and_blocks_cost_some(tiny_bert):
    def size(**options):
        return size_bytes(apply(tiny_bert, Options(**options), Observer(tiny_bert, ())).weights[TABLE])

    assert size(bits=8) == 60 * 32 + 60 * 4
    assert size(bits=6) == 60 * 32 * 6 // 8 + 60 * 4
    assert size(bits=4, block=16) == 60 * 32 // 2 + 60 * 2 * 4


def test_a_graph_gets_the_same_table(tiny_bert):
    graph = apply(lower(tiny_bert), Options(), Observer(tiny_bert, ()))
    network = apply(tiny_bert, Options(), Observer(tiny_bert, ()))
    np.testing.assert_array_equal(values(graph.weights[TABLE]), values(network.weights[TABLE]))


def test_a_table_is_rounded_once(tiny_bert):
    once = apply(tiny_bert, Options(bits=4), Observer(tiny_bert, ()))
    assert apply(once, Options(bits=8), Observer(tiny_bert, ())).weights[TABLE] is once.weights[TABLE]


@pytest.mark.parametrize("values", [{"bits": 5}, {"bits": 0}, {"block": -4}, {"block": 1}, {"block": 24}])
def test_values_that_mean_nothing_are_refused(tiny_bert, values):
    with pytest.raises(RecipeError):
        apply(tiny_bert, Options(**values), Observer(tiny_bert, ()))
