"""Adaptive quantisation's book-keeping: which layers get fewer bits first.

Every layer can be stored in several ways, each with a size and a loss. Starting from the largest, the step that costs
least loss for each byte it saves is taken first (the greedy solution of a knapsack, which is exact where the steps of
each layer lie on its lower convex hull; cf. HAWQ-V2, Dong et al. 2020, arXiv:1911.03852).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to store a layer: its size in bytes and what it loses."""

    size_bytes: int
    loss: float


@dataclass(frozen=True, slots=True)
class Move:
    """A layer goes over to its choice number `choice`: bytes saved and loss added by this step alone."""

    layer: str
    choice: int
    saved_bytes: int
    added_loss: float

    @property
    def price(self) -> float:
        """Loss for each byte saved."""
        return self.added_loss / self.saved_bytes


def moves(choices: Mapping[str, Sequence[Choice]]) -> tuple[Move, ...]:
    """All steps worth taking, the cheapest first; a layer's own steps keep their order.

    >>> moves({"a": [Choice(8, 0.0), Choice(4, 0.4)], "b": [Choice(8, 0.0), Choice(4, 0.1)]})[0].layer
    'b'
    """
    steps = [move for layer, options in choices.items() for move in _descent(layer, options)]
    return tuple(sorted(steps, key=lambda move: move.price))


def settle(choices: Mapping[str, Sequence[Choice]], taken: Sequence[Move]) -> dict[str, int]:
    """Each layer's choice after the moves taken; a layer that did not move has its largest."""
    settled = {layer: _largest(options) for layer, options in choices.items()}
    settled.update({move.layer: move.choice for move in taken})
    return settled


def _largest(options: Sequence[Choice]) -> int:
    """The largest choice; of equally large ones the one that loses least."""
    return max(range(len(options)), key=lambda index: (options[index].size_bytes, -options[index].loss))


def _descent(layer: str, options: Sequence[Choice]) -> list[Move]:
    """From the largest choice down along the lower convex hull: every step dearer than the one before."""
    here = _largest(options)
    found: list[Move] = []
    while True:
        at = options[here]
        smaller = [
            Move(layer, index, at.size_bytes - item.size_bytes, item.loss - at.loss)
            for index, item in enumerate(options)
            if item.size_bytes < at.size_bytes
        ]
        if not smaller:
            return found
        step = min(smaller, key=lambda move: (move.price, -move.saved_bytes))
        found.append(step)
        here = step.choice
