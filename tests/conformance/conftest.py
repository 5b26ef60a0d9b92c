"""What the conformance suite shares: models annotated by hand in every way, and a way to open them on an engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from tightrope import plugins
from tightrope.device.senses.text import Tokenizer
from tightrope.device.session import Session
from tightrope.workshop.converted import Converted, convert
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Linear
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.hadamard import rotated
from tightrope.workshop.numerics.quantized import Scheme, Weight, kept_name, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.observe import Inputs, Observer
from tightrope.workshop.reference import opened as executable
from tightrope.workshop.reference import reference
from tightrope.workshop.verify import stand_in

TEXTS = (
    "The cat sat on the mat.",
    "How do I reset the password of my account if I no longer have the phone?",
    "Invoice 2024-118 was paid twice; please refund the second payment.",
    "def mean(values): return sum(values) / len(values)",
    "no",
    "A long walk along the river, past the old mill and over the wooden bridge, takes about two hours in good weather.",
    "ERROR 503 upstream timed out while reading response header",
    "Fresh bread, butter, two eggs, a little salt.",
)


@dataclass(frozen=True)
class Form:
    """One way to annotate a model. `weights`: bits, block and symmetry, or `None` for floats."""

    weights: tuple[int, int | None, bool] | None = (8, None, True)
    scheme: Mapping[str, Any] | None = None
    table: tuple[int, int | None, bool] | None = None
    smooth: bool = False
    kept: int = 0
    centred: bool = False
    rotation: int | None = None
    dtype: Any = np.float32


M = TypeVar("M", Network, Graph)


def _annotate(model: M, options: Mapping[str, Any], inputs: Mapping[str, Inputs]) -> M:
    """The model with weights and schemes as a `Form` of these options says; rounded to nearest."""
    form = Form(**options)
    weights: dict[str, Weight] = {}
    schemes: dict[str, Scheme] = {}
    by_source: dict[str, list[Linear]] = {}
    for linear in model.linears():
        by_source.setdefault(linear.source, []).append(linear)
    for together in by_source.values():
        whole = [_rows(model, linear) for linear in together]
        scheme = _scheme(form, inputs[together[0].weight], np.concatenate(whole))
        for linear, rows in zip(together, whole, strict=True):
            if scheme is not None:
                schemes[linear.weight] = scheme
                if scheme.shift is not None and linear.bias is not None:
                    weights[linear.bias] = values(model.weights[linear.bias]) + rows @ scheme.shift
                rows = rows if scheme.smooth is None else rows * scheme.smooth
                if scheme.kept is not None:
                    weights[kept_name(linear.weight)] = np.ascontiguousarray(rows[:, scheme.kept].T)
                    rows = rows.copy()
                    rows[:, scheme.kept] = 0
                rows = rows if scheme.rotation is None else rotated(np.ascontiguousarray(rows), scheme.rotation)
            weights[linear.weight] = _stored(rows, form, linear.out_axis)
    if form.table is not None:
        bits, block, symmetric = form.table
        for table in model.tables():
            if table.is_vocabulary:
                rows = values(model.weights[table.weight])
                weights[table.weight] = round_to_nearest(rows, bits=bits, block=block, symmetric=symmetric)
    return model.rewrite(weights=weights, schemes=schemes)


def _rows(model: Network | Graph, linear: Linear) -> Any:
    weight = values(model.weights[linear.weight])
    return weight if linear.out_axis == 0 else np.ascontiguousarray(weight.T)


def _stored(rows: Any, form: Form, out_axis: int) -> Weight:
    if form.weights is None:
        return np.ascontiguousarray((rows if out_axis == 0 else rows.T).astype(form.dtype))
    bits, block, symmetric = form.weights
    weight = round_to_nearest(rows, bits=bits, block=block, symmetric=symmetric)
    return weight if out_axis == 0 else weight.transpose()


def _scheme(form: Form, seen: Inputs, rows: Any) -> Scheme | None:
    if form.scheme is None:
        return None
    smooth, kept = None, None
    shift = seen.mean if form.centred else None
    low, high = seen.low - (0 if shift is None else shift), seen.high - (0 if shift is None else shift)
    if form.smooth:
        most = np.maximum(np.maximum(-low, high), 1e-5)
        smooth = (most**0.7 / np.maximum(np.abs(rows).max(0), 1e-5) ** 0.3).astype(np.float32)
        low, high, rows = low / smooth, high / smooth, rows * smooth
    if form.kept and rows.shape[1] > 2 * len(rows):
        kept = np.sort(np.argsort(-np.maximum(-low, high) * np.abs(rows).max(0))[: form.kept])
        low[kept] = high[kept] = 0
    options = dict(form.scheme)
    if options.pop("static", False):
        options["static"] = (float(low.min()), float(high.max()))
    return Scheme(**options, smooth=smooth, shift=shift, kept=kept, rotation=form.rotation)


SLOW = ("litert", "executorch")
"""Engines whose tools take seconds for the smallest model."""


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in plugins.names("converters")]
)
def engine(request: pytest.FixtureRequest, need_engine: Callable[[str], None]) -> str:
    """The name of each engine in turn, whose converter and runtime are here."""
    need_engine(request.param)
    return str(request.param)


@pytest.fixture
def graph_engine(engine: str) -> str:
    """The name of each engine that takes any graph, in turn."""
    if hasattr(plugins.load("converters", engine), "TAKES"):
        pytest.skip(f"{engine} takes models of a known family only")
    return engine


@pytest.fixture(scope="session")
def annotate() -> Callable[..., Any]:
    """annotate(model, options of a `Form`, observed inputs): the model annotated by hand."""
    return _annotate


@pytest.fixture(scope="session")
def feeds() -> Callable[..., dict[str, Any]]:
    """feeds(model, texts, multiple): the texts as one padded batch."""

    def make(model: Network | Graph, texts: Sequence[str] = TEXTS, multiple: int = 1) -> dict[str, Any]:
        encoded = Tokenizer(model.senses.tokenizer, model.senses.max_length).encode(texts)
        ids, mask = encoded.ids.padded(multiple=multiple)
        return {"input_ids": ids, "attention_mask": mask}

    return make


@pytest.fixture(scope="session")
def answer() -> Callable[..., Any]:
    """answer(model, feeds): what the reference says, its first output."""

    def run(model: Network | Graph, given: Mapping[str, Any]) -> Any:
        session = executable(reference(model), threads=1)
        return session.run(None, dict(given))[0]

    return run


@dataclass(frozen=True)
class Opened:
    """A converted model, its files and its session."""

    converted: Converted
    files: Mapping[str, Path]
    session: Session
    runtime: Any

    def run(self, given: Mapping[str, Any]) -> Any:
        """The first output for a padded batch, whose padding a session that takes ragged feeds never sees."""
        return self.session.run(self.feeds(given))[self.session.outputs[0].name]

    def feeds(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """A padded batch as the session takes it."""
        mask = given.get("attention_mask")
        if not self.session.capabilities.ragged or mask is None or given["input_ids"].ndim != 2:
            return given
        real = mask.astype(bool)
        packed = {"input_ids": given["input_ids"][real].astype(np.int32)}
        packed["offsets"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(real.sum(1))])
        if "token_type_ids" in given:
            packed["token_type_ids"] = given["token_type_ids"][real].astype(np.int32)
        return packed


Open = Callable[..., Opened]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Converts a model for an engine and opens it; sessions are closed at the end."""
    sessions = []

    def open_one(model: Network | Graph, engine: str, *, threads: int = 1) -> Opened:
        converted = convert(model, engine)
        runtime = stand_in.runtime(engine)
        files = converted.write(tmp_path)
        session = runtime.open_artefact(files, converted.settings, threads=threads)
        sessions.append(session)
        return Opened(converted, files, session, runtime)

    yield open_one
    for session in sessions:
        session.close()


@pytest.fixture(scope="session")
def seen_by_tiny(tiny_bert: Network) -> Mapping[str, Inputs]:
    """What enters the layers of the tiny BERT."""
    return Observer(tiny_bert, TEXTS).inputs


@pytest.fixture(scope="session")
def seen_by_minilm(minilm: Network) -> Mapping[str, Inputs]:
    """What enters the layers of the real model."""
    return Observer(minilm, TEXTS).inputs
