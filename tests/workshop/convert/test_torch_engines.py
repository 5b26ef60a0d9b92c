"""LiteRT and ExecuTorch, which go through torch and multiply with the same kernels: what holds for both."""

from types import SimpleNamespace

import numpy as np
import pytest

from tightrope import plugins
from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.quantized import Scheme
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.pictures import pictures
from tightrope.workshop.reference import opened, reference

pytestmark = [pytest.mark.engine, pytest.mark.slow]

QUERY, UP = "encoder.layer.0.attention.self.query", "encoder.layer.0.intermediate.dense"


@pytest.fixture(scope="module", params=["litert", "executorch"])
def engine(request, need_engine):
    """`engine.convert(model)` and `engine.open(converted, folder)`."""
    need_engine(request.param)
    converter, runtime = plugins.load("converters", request.param), plugins.load("runtimes", request.param)

    def open_in(made, folder):
        return runtime.open_artefact(made.write(folder), made.settings, threads=1)

    return SimpleNamespace(convert=converter.convert, open=open_in)


@pytest.fixture(scope="module")
def converted(engine, mixed_bert):
    """The model for the engine."""
    return engine.convert(mixed_bert)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 7), (1, 16), (3, 17), (1, 24)])
def test_texts_of_any_length_and_number(engine, converted, mixed_bert, texts, tmp_path, rows, length):
    given = texts(rows, length)
    plain = mixed_bert.rewrite(schemes={f"{QUERY}.weight": Scheme()})
    expected = opened(reference(plain), threads=1).run(None, given)[0]
    session = engine.open(converted, tmp_path)
    got = session.run(given)["embedding"]
    session.close()
    assert got.shape == expected.shape
    assert (got * expected).sum(1).min() >= 0.999


def test_what_is_approximate_is_said(converted):
    assert set(converted.approximations) == {QUERY, UP}
    assert "bfloat16" in converted.approximations[UP]
    assert not converted.floats


def test_weights_that_have_no_kernel_are_refused_by_name(engine, mixed_bert, tiny_bert, two_lines):
    blocks = round_to_nearest(tiny_bert.weights[f"{QUERY}.weight"], bits=8, block=16, symmetric=True)
    with pytest.raises(UnsupportedError) as caught:
        engine.convert(mixed_bert.rewrite(weights={f"{QUERY}.weight": blocks}))
    assert QUERY in two_lines(caught)[0]


def test_convolutions_run_in_float_and_say_so(engine, coded_pictures, tmp_path):
    made = engine.convert(coded_pictures)
    assert set(made.floats) == {conv.name for conv in coded_pictures.convolutions()}
    session, truth = engine.open(made, tmp_path), opened(reference(coded_pictures), threads=1)
    (taken,), (given,) = coded_pictures.inputs, coded_pictures.outputs
    for image in pictures(16, 16, 3, 2, seed=3):
        feeds = {taken.name: coded_pictures.senses.prepare(image)}
        assert np.abs(session.run(feeds)[given.name] - truth.run(None, feeds)[0]).max() <= 1e-4
    session.close()
