"""Costs are counted by hand here, and must be the same there."""

import pytest

from tightrope.workshop.prediction import models
from tightrope.workshop.prediction.costs import Costs, costs
from tightrope.workshop.prediction.models import Convolutional


@pytest.mark.parametrize("tokens", [3, 17])
def test_products_of_an_encoder(tiny_bert, tokens):
    found = costs(tiny_bert, tokens)
    layer = 4 * 32 * 32 + 2 * 32 * 64  # query, key, value, output; up and down
    assert found.linear == 2 * tokens * layer
    assert found.attention >= 2 * 2 * tokens * tokens * 32  # scores and contexts
    assert found.attention <= 2 * 2 * tokens * tokens * 32 + tokens * 32  # pooling by a product, if it is one
    assert found.weight_bytes == 2 * layer * 4
    assert found.convolution == found.depthwise == 0
    assert found.once == 1


def test_weights_of_fewer_bits_are_fewer_bytes_and_no_fewer_products(tiny_bert):
    whole, small = costs(tiny_bert, 5), costs(tiny_bert, 5, bits=8)
    assert small.weight_bytes == whole.weight_bytes / 4
    assert small.linear == whole.linear and small.steps == whole.steps


def test_products_of_a_convolutional_network():
    found = costs(models.convolutional(Convolutional(blocks=1, channels=8, side=16)))
    pixels = 16 * 16
    whole = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 32 + 32 * 8  # stem, 3x3, widening, narrowing
    assert found.convolution == pixels * whole
    assert found.depthwise == pixels * 32 * 9
    assert found.linear == 8 * 10
    assert found.attention == 0


def test_a_longer_text_costs_more_of_everything_but_weights(tiny_bert):
    short, long = costs(tiny_bert, 4), costs(tiny_bert, 40)
    assert long.linear == 10 * short.linear
    assert long.attention > 50 * short.attention
    assert long.moved_bytes > short.moved_bytes
    assert (long.weight_bytes, long.steps) == (short.weight_bytes, short.steps)


def test_sums_are_called_once():
    both = Costs(linear=2.0, steps=1.0) + Costs(linear=3.0, moved_bytes=4.0)
    assert (both.once, both.linear, both.steps, both.moved_bytes) == (1.0, 5.0, 1.0, 4.0)
