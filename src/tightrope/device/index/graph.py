"""Approximate search for large indexes: a graph of neighbours by usearch (HNSW), behind the extra `ann`.

The graph is a snapshot: it is made from the codes, says up to which version, and can be thrown away. What came later is
scanned exactly beside it, and what is gone is dropped, so it never makes an answer wrong, only incomplete. Its file is
held against a checksum before the library, which trusts its files, sees it.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index.store import Slots
from tightrope.places import cannot_write, sync, write_atomic
from tightrope.plugins import import_optional

GRAPH = "graph.usearch"
_ABOUT = "graph.json"
_PIECE = 1 << 20
_NEIGHBOURS, _EXPANSION = 16, 128
"""Links of a row, and how wide a search looks; chosen for recall over speed."""


class Graph:
    """An opened graph, mapped from disk."""

    def __init__(self, opened: Any, version: int) -> None:
        self._opened = opened
        self.version = version
        """The version of the index that it was made of."""

    def nearest(self, query: NDArray[np.int8], most: int) -> Slots:
        """Slots of the rows that it finds most like a query [width]."""
        found = self._opened.search(query, most, threads=1)
        return np.asarray(found.keys, np.int64)


def make(generation: Path, codes: NDArray[np.int8], slots: Slots, version: int) -> None:
    """Write the graph of these rows [slots, width]. Raises `MissingExtraError` without usearch."""
    usearch = import_optional("usearch.index", wanted_by="approximate search")
    graph = _empty(usearch, codes.shape[1])
    graph.add(slots.astype(np.uint64), np.ascontiguousarray(codes), threads=os.cpu_count() or 1)
    aside = generation / f".{GRAPH}"
    try:
        graph.save(str(aside))
        sync(aside)
        about = {"version": version, "width": codes.shape[1], "checksum": _checksum(aside)}
        aside.replace(generation / GRAPH)
        write_atomic(generation / _ABOUT, json.dumps(about).encode())
    except OSError as error:
        raise cannot_write(generation.parent, error) from error
    finally:
        aside.unlink(missing_ok=True)


def opened(generation: Path, width: int) -> Graph | None:
    """The graph of a generation; none if there is none, or not one that is whole."""
    try:
        about = json.loads((generation / _ABOUT).read_bytes()[:4096])
        if about["width"] != width or about["checksum"] != _checksum(generation / GRAPH):
            return None
        version = int(about["version"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    usearch = import_optional("usearch.index", wanted_by="approximate search")
    graph = _empty(usearch, width)
    graph.view(str(generation / GRAPH))
    return Graph(graph, version)


def _empty(usearch: Any, width: int) -> Any:
    return usearch.Index(
        ndim=width,
        metric="cos",
        dtype="i8",
        connectivity=_NEIGHBOURS,
        expansion_add=_EXPANSION,
        expansion_search=_EXPANSION,
    )


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            found = zlib.crc32(piece, found)
    return found
