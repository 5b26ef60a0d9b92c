"""Numpy's matrix products on one thread, for as long as recipes are made and judged.

The arithmetic of the techniques is many small products: two threads hinder each other there, and the order in which
they add up would depend on the machine. An environment variable counts only before numpy is loaded, which in a user's
program it long is; so OpenBLAS is asked itself, and told afterwards what it was told before.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")
"""In numpy's wheels of 64 and of 32 bits, and in OpenBLAS as its makers ship it."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold numpy's OpenBLAS to one thread. Where numpy brings none of its own, nothing is changed."""
    found = threads()
    if found is None:
        yield
        return
    get, put = found
    before = get()
    put(1)
    try:
        yield
    finally:
        put(before)


def threads() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """What reads and what sets the number of threads, or `None`."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))  # loaded already: this is a second name for it
            for name in _NAMES:
                if hasattr(library, name.format("set")):
                    get, put = getattr(library, name.format("get")), getattr(library, name.format("set"))
                    get.restype, put.argtypes, put.restype = ctypes.c_int, (ctypes.c_int,), None
                    return get, put
    return None
