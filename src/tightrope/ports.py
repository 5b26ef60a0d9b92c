"""Ports: what a model takes and gives, by name, element type and shape."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output. A dimension is a size, or the name of a size known only at run time.

    >>> Port("input_ids", "int64", ("batch", "length"))
    Port(name='input_ids', dtype='int64', shape=('batch', 'length'))
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def listed(ports: Iterable[Port]) -> list[list[Any]]:
    """Ports as plain lists, for the settings of an artefact whose files do not name them; `of_lists` reads them back.

    >>> of_lists(listed([Port("x", "float32", ("batch", 3))]))
    (Port(name='x', dtype='float32', shape=('batch', 3)),)
    """
    return [[name, dtype, list(shape)] for name, dtype, shape in map(astuple, ports)]


def of_lists(lists: Iterable[Sequence[Any]]) -> tuple[Port, ...]:
    """The ports that `listed` wrote."""
    return tuple(Port(name, dtype, tuple(shape)) for name, dtype, shape in lists)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a session can do: `ragged` feeds without padding, `parallel` calls from several threads, `exact` answers.

    Exact answers do not depend on what else is in the batch, to the last bit.
    """

    ragged: bool = False
    parallel: bool = False
    exact: bool = False
