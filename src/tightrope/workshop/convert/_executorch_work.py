"""What a lowered ExecuTorch program multiplies, and in which precision: read off what XNNPACK took of it, and the rest.

The program's file does not tell: a delegate's part is opaque to the runtime. So it is noted while the program is made.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

_PRODUCTS = ("linear", "addmm", "mm", "bmm", "matmul", "convolution")
_BETWEEN = ("bmm", "matmul")
"""Products whose both sides are computed, as in attention: weights have two axes, and are no batch of matrices."""
_AT = (1, 2, 3)
"""Lengths at which work is told: it is a polynomial of the second degree in the length."""

Work = list[list[Any]]


def work(program: Any) -> Work:
    """For each product: name, precision, whether both sides are computed, multiply-adds at lengths 1, 2 and 3."""
    found: Work = []
    for node, is_delegated in _operations(program.graph_module):
        kind = _kind(node)
        if kind not in _PRODUCTS:
            continue
        x, weight = node.args[1:3] if kind == "addmm" else node.args[:2]
        codes = _codes(weight)
        is_between = kind in _BETWEEN
        precision = _precision(codes) if codes is not None and is_delegated else "fp32"
        amounts = [_multiply_adds(kind, node, x, weight, length) for length in _AT]
        found.append([f"{node.name}.{len(found)}", precision, is_between, amounts])
    return found


def _operations(module: Any) -> Iterator[tuple[Any, bool]]:
    """The operations of a program and of the parts that its delegate took, with whether it took them."""
    for node in module.graph.nodes:
        part = getattr(getattr(module, node.target, None), "original_module", None) if node.op == "get_attr" else None
        if part is not None:
            yield from ((inner, True) for inner in part.graph_module.graph.nodes if inner.op == "call_function")
        elif node.op == "call_function":
            yield node, False


def _kind(node: Any) -> str:
    """An operation's bare name.

    >>> from types import SimpleNamespace as Fake
    >>> _kind(Fake(target="<EdgeOpOverload: aten.linear.default>: schema = aten::linear(…)"))
    'linear'
    """
    found = re.match(r"(?:<EdgeOpOverload: )?[\w]+\.([\w]+)\.", str(node.target))
    return found[1] if found else ""


def _codes(weight: Any) -> Any:
    """The node that makes values of codes, if the weight comes from one."""
    while weight.op == "call_function" and _kind(weight) in ("permute_copy", "t_copy", "transpose_copy"):
        weight = weight.args[0]
    return weight if weight.op == "call_function" and _kind(weight).startswith("dequantize_per_channel") else None


def _precision(codes: Any) -> str:
    highest = next(value for value in reversed(codes.args) if isinstance(value, int) and value in (7, 127))
    return "wint4" if highest == 7 else "wint8"


def _multiply_adds(kind: str, node: Any, x: Any, weight: Any, length: int) -> int:
    """Numbers of the result times the products that are summed for each."""
    result = math.prod(_shape(node, length))
    return result * (math.prod(_shape(weight, length)[1:]) if kind == "convolution" else _shape(x, length)[-1])


def _shape(node: Any, length: int) -> list[int]:
    return [_size(size, length) for size in node.meta["val"].shape]


def _size(size: Any, length: int) -> int:
    """A size where the length is this; every open size follows from the length."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, length)))
