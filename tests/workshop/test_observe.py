from dataclasses import replace

import numpy as np
import pytest

from tightrope.errors import DataError
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Scheme, prepared
from tightrope.workshop.observe import SAMPLED_ROWS, Inputs, Observer, _Gathered

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")
NAME = "encoder.layer.1.output.dense.weight"


def described(rows):
    """What an observer should say of rows that it saw."""
    return Inputs(
        count=len(rows),
        low=rows.min(0),
        high=rows.max(0),
        mean=rows.mean(0),
        gram=rows.T @ rows / np.float32(len(rows)),
        rows=rows,
    )


def assert_same(found, expected):
    assert found.count == expected.count
    for name in ("low", "high", "mean", "gram", "rows"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


def test_sums_over_batches_are_those_over_all_rows():
    rows = np.random.default_rng(3).normal(1, 2, (700, 6)).astype(np.float32)
    gathered = _Gathered(every=1)
    for part in np.split(rows, [3, 300, 301]):
        gathered.add(part)
    assert_same(gathered.finish(), described(rows))


@pytest.mark.parametrize("cuts", [[], [1], [5, 6, 50]])
def test_the_sample_does_not_depend_on_the_batches(cuts):
    rows = np.arange(100, dtype=np.float32)[:, None]
    gathered = _Gathered(every=7)
    for part in np.split(rows, cuts):
        gathered.add(part)
    np.testing.assert_array_equal(gathered.finish().rows[:, 0], np.arange(0, 100, 7))


def test_a_sample_is_bounded():
    gathered = _Gathered(every=1)
    gathered.add(np.zeros((SAMPLED_ROWS + 50, 2), np.float32))
    assert len(gathered.finish().rows) == SAMPLED_ROWS


@pytest.mark.parametrize(
    "scheme",
    [
        None,
        Scheme(),
        Scheme(smooth=np.array([1, 2, 4, 3], np.float32)),
        Scheme(shift=np.array([5, -1, 0, 2], np.float32)),
        Scheme(smooth=np.array([1, 2, 0.5, 3], np.float32), shift=np.array([5, -1, 0, 2], np.float32)),
        Scheme(rotation=2),
        Scheme(smooth=np.array([1, 2, 0.5, 3], np.float32), shift=np.array([5, -1, 0, 2], np.float32), rotation=4),
    ],
)
def test_prepared_inputs_are_those_of_prepared_rows(scheme):
    rows = np.random.default_rng(4).normal(1, 2, (50, 4)).astype(np.float32)
    expected = described(rows if scheme is None else prepared(rows, scheme).astype(np.float32))
    assert_same(described(rows).prepared(scheme), expected)


@pytest.mark.engine
def test_padding_is_not_observed(tiny_bert):
    together = Observer(tiny_bert, TEXTS).inputs[NAME]
    alone = [Observer(tiny_bert, [text]).inputs[NAME] for text in TEXTS]
    assert together.count == sum(item.count for item in alone)
    np.testing.assert_allclose(together.low, np.min([item.low for item in alone], axis=0), atol=1e-5)
    np.testing.assert_allclose(together.high, np.max([item.high for item in alone], axis=0), atol=1e-5)
    assert len(together.rows) == together.count


@pytest.mark.engine
def test_every_layer_of_a_network_and_of_its_graph_is_observed(tiny_bert):
    observer = Observer(lower(tiny_bert), TEXTS)
    assert set(observer.inputs) == {linear.weight for linear in tiny_bert.linears()}
    layer = "encoder.layer.0.attention.self"
    assert observer.inputs[f"{layer}.query.weight"] is observer.inputs[f"{layer}.value.weight"]


def test_no_texts_are_refused_when_they_are_needed(tiny_bert):
    observer = Observer(tiny_bert, ())
    with pytest.raises(DataError):
        _ = observer.inputs


def test_the_digest_follows_the_texts(tiny_bert):
    digests = {Observer(tiny_bert, texts).digest for texts in (TEXTS, TEXTS[::-1], TEXTS[:2], ())}
    assert len(digests) == 4
    assert Observer(tiny_bert, TEXTS).digest == Observer(tiny_bert, list(TEXTS)).digest


def test_texts_are_observed_behind_the_models_default_prompt(tiny_bert):
    senses = replace(tiny_bert.senses, prompts={"query": "the cat "}, default_prompt="query")
    prompted = Observer(replace(tiny_bert, senses=senses), ["sat"]).inputs
    written_out = Observer(tiny_bert, ["the cat sat"]).inputs
    for name, found in prompted.items():
        assert found.count == written_out[name].count
        np.testing.assert_array_equal(found.mean, written_out[name].mean)
