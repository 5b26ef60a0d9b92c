"""Every converter and its runtime, by name, against the reference: whole models, annotated in every way."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tightrope import plugins
from tightrope.errors import UnsupportedError
from tightrope.workshop.converted import convert
from tightrope.workshop.model import Task
from tightrope.workshop.observe import Observer

pytestmark = pytest.mark.engine

INT8 = (8, None, True)
STATIC = {"bits": 8, "static": True, "symmetric": False}
TENSOR = {"bits": 8, "granularity": "tensor", "symmetric": False}
TOKEN = {"bits": 8, "granularity": "token", "symmetric": True}
CAREFUL = {"smooth": True, "kept": 4}

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"weights": None},
    "static": {"scheme": STATIC},
    "static symmetric": {"scheme": STATIC | {"symmetric": True}},
    "static, weights asymmetric": {"weights": (8, None, False), "scheme": STATIC},
    "static, smooth, kept": dict(scheme=STATIC, table=INT8, **CAREFUL),
    "tensor": {"scheme": TENSOR},
    "tensor symmetric": {"scheme": TENSOR | {"symmetric": True}},
    "tensor, smooth, kept": dict(scheme=TENSOR, **CAREFUL),
    "token": {"scheme": TOKEN},
    "token asymmetric": {"scheme": TOKEN | {"symmetric": False}},
    "token, smooth, kept": dict(scheme=TOKEN, table=(6, None, True), **CAREFUL),
    "token, rotated": {"scheme": TOKEN, "centred": True, "rotation": 16},
    "token, smooth, rotated": {"scheme": TOKEN, "centred": True, "smooth": True, "rotation": 32},
    "weights of 8 bits": {"weights": INT8},
    "weights of 8 bits, asymmetric": {"weights": (8, None, False)},
    "weights of 4 bits in blocks": {"weights": (4, 32, True)},
    "weights of 4 bits in blocks, asymmetric": {"weights": (4, 32, False), "table": (4, 32, False)},
    "weights of 6 bits, static": {"weights": (6, None, True), "scheme": STATIC, "smooth": True},
    "fp16": {"weights": None, "dtype": np.float16},
    "table of 8 bits": {"weights": None, "table": INT8},
    "table of 8 bits, asymmetric in blocks": {"weights": None, "table": (8, 16, False)},
    "table of 6 bits": {"weights": None, "table": (6, None, True)},
    "table of 4 bits": {"weights": None, "table": (4, None, True)},
    "table of 4 bits in blocks": {"weights": None, "table": (4, 16, True)},
}
SEES_THE_BATCH = tuple(name for name in FORMS if name.startswith("tensor"))
"""A range of a whole tensor depends on what shares the batch: such answers are compared text by text only."""
REFUSED = {"native": ("static", "tensor", "kept", "token asymmetric")}
"""Words in the names of forms that an engine says it cannot follow; it must name a layer and the way out."""


def refused(engine: str) -> tuple[str, ...]:
    """Such words of an engine; one of another package says them itself."""
    return REFUSED.get(engine) or tuple(getattr(plugins.load("converters", engine), "REFUSES", ()))


IN_FLOAT = {"tensorrt": ("weights asymmetric", "bits, asymmetric", "blocks, asymmetric")}
"""Words in the names of forms whose layers an engine runs in float, and says so."""
EXACT = ("fp32", "fp16", *(name for name in FORMS if name.startswith("table")))


@pytest.fixture(autouse=True)
def _refuses(request: pytest.FixtureRequest) -> None:
    """A form that an engine refuses is refused with a layer's name, and there is nothing more to test."""
    asked = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    name, form = asked.get("engine"), asked.get("form")
    if form is None:
        return
    request.getfixturevalue("need_engine")(name)
    if not any(word in form for word in refused(name)):
        return
    which = "minilm" if "minilm" in request.fixturenames else "tiny_bert"
    model, seen = request.getfixturevalue(which), request.getfixturevalue(f"seen_by_{which.partition('_')[0]}")
    try:
        convert(request.getfixturevalue("annotate")(model, FORMS[form], seen), name)
    except UnsupportedError as error:
        assert "encoder.layer." in error.message
        assert error.hint
        pytest.skip(f"{name} refuses this form by name, which was checked")


def cosines(a: Any, b: Any) -> Any:
    """The cosine of each row of a with the same row of b."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


REAL = ("fp32", "static", "static, smooth, kept", "tensor, smooth, kept", "token, smooth, kept", "fp16")
"""The ways in which the real model is tried as well, and its integers of 4 bits."""
PAIR = ("the cat sat", "A long walk along the river past the old mill and over the bridge")


@pytest.mark.parametrize("form", FORMS)
def test_a_small_model_answers_as_the_reference_does(
    form, engine, tiny_bert, seen_by_tiny, annotate, opened, feeds, answer
):
    model = annotate(tiny_bert, FORMS[form], seen_by_tiny)
    found, given = opened(model, engine), feeds(model)
    least = 0.999999 if form in EXACT else 0.9998
    assert cosines(found.run(given), answer(model, given)).min() >= least
    if not FORMS[form].get("rotation"):  # a product of its own, and at this width no small one; the real model is wider
        assert _share_as_declared(found, given) >= 0.95
    assert not found.converted.floats or any(word in form for word in IN_FLOAT.get(engine, ()))


@pytest.mark.parametrize("form", [form for form in FORMS if form not in SEES_THE_BATCH])
def test_an_answer_depends_neither_on_the_batch_nor_on_padding(
    form, engine, tiny_bert, seen_by_tiny, annotate, opened, feeds
):
    model = annotate(tiny_bert, FORMS[form], seen_by_tiny)
    found = opened(model, engine)
    alone = np.concatenate([found.run(feeds(model, [text])) for text in PAIR])
    together, padded = found.run(feeds(model, PAIR)), found.run(feeds(model, PAIR, multiple=64))
    assert cosines(alone, together).min() >= 0.99999
    assert cosines(padded, together).min() >= 0.99999


@pytest.mark.parametrize("form", ["static", "weights of 4 bits in blocks"])
def test_inputs_of_any_length(form, engine, tiny_bert, seen_by_tiny, annotate, opened, answer):
    model = annotate(tiny_bert, FORMS[form], seen_by_tiny)
    found = opened(model, engine)
    for rows, length in ((1, 1), (1, 64), (7, 3), (3, 17)):
        ids = np.random.default_rng(length).integers(5, 60, (rows, length))
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        assert cosines(found.run(given), answer(model, given)).min() >= 0.9995


@pytest.mark.network
@pytest.mark.parametrize("form", REAL)
def test_the_real_model_answers_as_the_reference_does(
    form, engine, minilm, seen_by_minilm, annotate, opened, feeds, answer
):
    """Rounding makes a model of six layers sensitive: a value at the edge of a code may fall to either side.

    So two true executions of a coarse grid may differ, but by less than the grid differs from the original. Where an
    engine has its own rule, its answers must be about as good as the annotated ones.
    """
    model = annotate(minilm, FORMS[form], seen_by_minilm)
    found, given = opened(model, engine), feeds(minilm)
    got, expected, original = found.run(given), answer(model, given), answer(minilm, given)
    noise = 1 - cosines(expected, original).min()
    if found.converted.approximations:
        assert 1 - cosines(got, original).min() <= 1.5 * noise + 0.002
    else:
        assert 1 - cosines(got, expected).min() <= max(0.5 * noise, 1e-5)
    assert _share_as_declared(found, given) >= 0.95


@pytest.mark.network
@pytest.mark.parametrize("form", ["token, rotated", "token, smooth, rotated"])
def test_the_real_model_rotated_is_as_near_to_the_original_as_the_reference_is(
    form, engine, minilm, seen_by_minilm, annotate, opened, feeds, answer
):
    """Where every layer rounds by token, a last bit in the first layer moves codes in all later ones.

    Two true executions then lie as far from each other as from the original, and only their distance from it is told.
    """
    model = annotate(minilm, FORMS[form], seen_by_minilm)
    found, given = opened(model, engine), feeds(minilm)
    got, expected, original = found.run(given), answer(model, given), answer(minilm, given)
    noise = 1 - cosines(expected, original).mean()
    assert 1 - cosines(got, original).mean() <= 1.25 * noise
    assert 1 - cosines(got, expected).mean() <= 1.25 * noise
    assert _share_as_declared(found, given) >= (
        0.95 if engine == "native" else 0.85
    )  # others rotate in a float product


@pytest.mark.parametrize("form", ["static", "token", "weights of 4 bits in blocks"])
def test_a_cross_encoder_scores_as_the_reference_does(form, engine, tiny_bert, annotate, opened, answer):
    random = np.random.default_rng(2)
    head = {"pooler.dense": (32, 32), "classifier": (1, 32)}
    weights = {f"{name}.weight": random.normal(0, 0.2, shape).astype(np.float32) for name, shape in head.items()}
    weights |= {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in head.items()}
    task = Task(name="scoring", width=1, activation="sigmoid")
    scorer = replace(tiny_bert, task=task, weights={**tiny_bert.weights, **weights})
    seen = Observer(scorer, (), [("the cat", "sat on the mat"), ("a", "b c d e f g h")]).inputs
    model = annotate(scorer, FORMS[form], seen)
    found, ids = opened(model, engine), random.integers(5, 60, (3, 20))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": (np.arange(20) > 9) + 0 * ids}
    assert np.abs(found.run(given) - answer(model, given)).max() <= 0.01
    assert _share_as_declared(found, given) >= 0.95


def test_weights_in_bfloat16_may_be_computed_in_it(engine, tiny_bert, seen_by_tiny, annotate, opened, feeds, answer):
    model = annotate(tiny_bert, {"weights": None, "dtype": ml_dtypes.bfloat16}, seen_by_tiny)
    found, given = opened(model, engine), feeds(model)
    assert cosines(found.run(given), answer(model, given)).min() >= 0.999
    executed = found.runtime.executed(found.files, found.converted.settings, found.feeds(given))
    assert set(executed.share) <= {"fp32", found.converted.precision}  # where a processor cannot, it computes in fp32


@pytest.mark.network
@pytest.mark.parametrize("form", ["weights of 4 bits in blocks, asymmetric", "weights of 8 bits"])
def test_real_weights_alone_on_a_grid(form, engine, minilm, seen_by_minilm, annotate, opened, feeds, answer):
    model = annotate(minilm, FORMS[form], seen_by_minilm)
    found, given = opened(model, engine), feeds(minilm)
    assert cosines(found.run(given), answer(model, given)).min() >= 0.99
    assert _share_as_declared(found, given) >= 0.95


def _share_as_declared(found: Any, given: dict[str, Any]) -> float:
    """The share of the layers' multiply-adds, attention apart, that runs in the precision that the converter states."""
    executed = found.runtime.executed(found.files, found.converted.settings, found.feeds(given))
    declared = found.converted.precision
    work = executed.share.get(declared, 0.0) - (executed.attention if declared == "fp32" else 0.0)
    return float(work / (1 - executed.attention))
