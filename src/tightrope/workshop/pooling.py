"""The tail of an encoder, as ONNX nodes: from a hidden state for each token to one vector for each text.

Shared by the families, which lower themselves, and by foreign graphs, to which a tail is appended.
"""

import numpy as np

from tightrope.errors import UnsupportedError
from tightrope.workshop.graph import Builder

MASKED = -1e4
"""Added to the score of a masked token: exp underflows to zero, and fp16 can still hold it."""

FLOAT_MASK = "mask.float"
ADDITIVE_MASK = "mask.additive_2d"

_OPERATORS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")
ACTIVATIONS = ("gelu", *_TANH_GELUS, *_OPERATORS, "identity")
"""The activations that can be lowered, by the names of transformers' configurations."""


def masks(build: Builder) -> None:
    """`attention_mask` as float32 [batch, length]: one for each token, and `MASKED` for each that is none."""
    mask = build.node("Cast", ["attention_mask"], FLOAT_MASK, to=1)
    inverse = build.node("Sub", [build.constant(1.0, "one"), mask], "mask.inverse")
    build.node("Mul", [inverse, build.constant(MASKED, "masked")], ADDITIVE_MASK)


def pool(build: Builder, hidden: str, pooling: str) -> str:
    """Hidden states [batch, length, width] to `pooled` [batch, width]; `masks` came before."""
    if pooling == "cls":
        first = build.constant(np.array(0, np.int64), "first_token_index")
        return build.node("Gather", [hidden, first], "pooled", axis=1)
    axis = build.constant([1], "axis_1")
    if pooling == "max":
        away = build.node("Unsqueeze", [ADDITIVE_MASK, build.constant([2], "axis_2")], "mask.away")
        kept = build.node("Add", [hidden, away], "tokens.kept")
        return build.node("ReduceMax", [kept, axis], "pooled", keepdims=0)
    mask = build.node("Unsqueeze", [FLOAT_MASK, build.constant([2], "axis_2")], "mask.tokens")
    kept = build.node("Mul", [hidden, mask], "tokens.kept")
    total = build.node("ReduceSum", [kept, axis], "pooled.sum", keepdims=0)
    count = build.node("ReduceSum", [FLOAT_MASK, axis], "tokens.count", keepdims=1)
    if pooling == "mean_sqrt_len":
        count = build.node("Sqrt", [count], "tokens.count_root")
    return build.node("Div", [total, count], "pooled")


def normalize(build: Builder, pooled: str) -> str:
    """Rows [batch, width] divided by their length."""
    squares = build.node("ReduceSumSquare", [pooled, build.constant([1], "axis_1")], "norm.squares", keepdims=1)
    length = build.node("Sqrt", [squares], "norm.length")
    length = build.node("Max", [length, build.constant(1e-12, "norm.least")], "norm.nonzero")
    return build.node("Div", [pooled, length], "normalized")


def activation(build: Builder, source: str, name: str, kind: str) -> str:
    """One activation function. Raises `UnsupportedError` for one that is not among `ACTIVATIONS`."""
    if kind == "identity":
        return source
    if kind == "gelu":
        return build.node("Gelu", [source], name)
    if kind in _TANH_GELUS:
        return build.node("Gelu", [source], name, approximate="tanh")
    if kind not in _OPERATORS:
        raise UnsupportedError(f"The activation {kind!r} is not known.", hint=f"Known: {', '.join(ACTIVATIONS)}.")
    return build.node(_OPERATORS[kind], [source], name)
