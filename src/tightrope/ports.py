"""Ports: what a model takes and gives, by name, element type and shape."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output. A dimension is a size, or the name of a size known only at run time.

    >>> Port("input_ids", "int64", ("batch", "length"))
    Port(name='input_ids', dtype='int64', shape=('batch', 'length'))
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a session can do: `ragged` feeds without padding, `parallel` calls from several threads, `exact` answers.

    Exact answers do not depend on what else is in the batch, to the last bit.
    """

    ragged: bool = False
    parallel: bool = False
    exact: bool = False
