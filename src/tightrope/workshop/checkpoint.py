"""A checkpoint of an encoder: its weights picked by the names of a layout, and proved to fit together."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop import pooling
from tightrope.workshop.graph import is_float
from tightrope.workshop.layouts import Layout
from tightrope.workshop.model import Task
from tightrope.workshop.numerics.quantized import Weight, values


def pick(layout: Layout, tensors: Mapping[str, Weight], task: Task, prefix: str) -> dict[str, Weight]:
    """The weights that the layout and the task need, without `prefix`; their shapes and values are checked.

    Raises `SourceError` naming the first weight that is missing, misshapen, or not a finite float.
    """
    _check_sizes(layout)
    picked: dict[str, Weight] = {}
    for name, shape in _expected(layout, task):
        picked[name] = tensor = _find(tensors, name, prefix)
        fits = len(tensor.shape) == len(shape) and all(
            want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            raise SourceError(
                f"The weight {name!r} has shape {tuple(tensor.shape)}; its config.json makes it {shape}.",
                hint="Give a config.json and weights that belong together.",
            )
        if not is_float(tensor) or not np.isfinite([values(tensor).min(), values(tensor).max()]).all():
            raise SourceError(
                f"The weight {name!r} holds values that are no finite floats.",
                hint="Give the model as it was trained, in float32, float16 or bfloat16.",
            )
    _check_chains(layout, picked, task)
    return picked


def picker(
    layout: Callable[[Mapping[str, Any]], Layout], *, prefix: str
) -> Callable[[Mapping[str, Any], Mapping[str, Weight], Task], dict[str, Weight]]:
    """A family's `weights`: `pick` by the layout that its configuration gives."""

    def weights(config: Mapping[str, Any], tensors: Mapping[str, Weight], task: Task) -> dict[str, Weight]:
        return pick(layout(config), tensors, task, prefix)

    return weights


def _check_sizes(layout: Layout) -> None:
    sizes = (layout.layers, layout.heads, layout.hidden, layout.vocabulary, layout.positions - layout.first_position)
    if min(sizes) < 1 or layout.hidden % layout.heads:
        raise SourceError(
            f"config.json makes {layout.layers} layers of {layout.heads} heads, {layout.hidden} wide, "
            f"of {layout.vocabulary} tokens and {layout.positions} positions.",
            hint="Give the config.json that belongs to the weights.",
        )
    if layout.activation not in pooling.ACTIVATIONS:
        raise UnsupportedError(
            f"The activation {layout.activation!r} is not known.", hint=f"Known: {', '.join(pooling.ACTIVATIONS)}."
        )


def _find(tensors: Mapping[str, Weight], name: str, prefix: str) -> Weight:
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    for candidate in (f"{prefix}{name}", name, f"{prefix}{old}", old):  # the first BERTs called a scale gamma
        if candidate in tensors:
            return tensors[candidate]
    raise SourceError(
        f"The checkpoint has no weight {name!r}.", hint="Give the folder of a complete model of this family."
    )


def _check_chains(layout: Layout, picked: Mapping[str, Weight], task: Task) -> None:
    """Widths that config.json leaves open must still meet: pruned heads and neurons, heads and dense layers."""
    size = layout.hidden // layout.heads
    chains: list[tuple[str, int, int]] = []
    for index in range(layout.layers):
        query, up = (picked[f"{layout.part(index, name)}.weight"].shape[0] for name in (layout.query, layout.up))
        same = (layout.query, layout.key, layout.value)
        chains += [(layout.part(index, name), 0, query // size * size) for name in same]
        chains += [(layout.part(index, layout.attention_output), 1, query), (layout.part(index, layout.down), 1, up)]
    scoring = task.name == "scoring"
    names = [name for name, _ in layout.head] if scoring else [f"dense.{index}" for index, _ in enumerate(task.dense)]
    width = layout.hidden
    for name in names:
        chains.append((name, 1, width))
        width = picked[f"{name}.weight"].shape[0]
    if names:
        chains.append((names[-1], 0, task.width))
    for name, axis, wanted in chains:
        have = picked[f"{name}.weight"].shape[axis]
        if have != wanted or not wanted or picked[f"{name}.bias"].shape != picked[f"{name}.weight"].shape[:1]:
            raise SourceError(
                f"The layer {name!r} {'takes' if axis else 'gives'} {have} features; "
                f"its neighbours and config.json make it {wanted}.",
                hint="Give a config.json and weights that belong together.",
            )


def _expected(layout: Layout, task: Task) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    hidden = layout.hidden
    yield layout.word_table, (layout.vocabulary, hidden)
    yield layout.position_table, (layout.positions, hidden)
    if layout.type_table:
        yield layout.type_table, (None, hidden)
    yield from ((f"{layout.embedding_norm}.{end}", (hidden,)) for end in ("weight", "bias"))
    for index in range(layout.layers):
        shapes = {
            layout.query: (None, hidden),
            layout.key: (None, hidden),
            layout.value: (None, hidden),
            layout.attention_output: (hidden, None),
            layout.up: (None, hidden),
            layout.down: (hidden, None),
        }
        for name, shape in shapes.items():
            yield f"{layout.part(index, name)}.weight", shape
            yield f"{layout.part(index, name)}.bias", (shape[0],)
        for name in (layout.attention_norm, layout.output_norm):
            yield from ((f"{layout.part(index, name)}.{end}", (hidden,)) for end in ("weight", "bias"))
    for name, _ in layout.head if task.name == "scoring" else ():
        yield from ((f"{name}.weight", (None, None)), (f"{name}.bias", (None,)))
    for index, _ in enumerate(task.dense):
        yield from ((f"dense.{index}.weight", (None, None)), (f"dense.{index}.bias", (None,)))
