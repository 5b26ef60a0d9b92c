"""Approximate search: nearly all that an exact one finds, everything that came later, nothing that is gone."""

import numpy as np
import pytest

from tightrope.device.index.graph import GRAPH
from tightrope.device.index.making import open_index


@pytest.fixture(autouse=True)
def usearch():
    return pytest.importorskip("usearch")


def share(index, vectors, rows):
    found = [
        len({hit.key for hit in index.search(query, 10)} & {f"d{n}" for n in np.argsort(-(rows @ query))[:10]}) / 10
        for query in vectors(50, seed=9)
    ]
    return float(np.mean(found))


def test_it_finds_nearly_what_an_exact_search_finds(index, vectors, made):
    index.make_graph()
    assert share(index, vectors, vectors(300)) > 0.97


def test_what_came_later_is_found_and_what_is_gone_is_not(index, vectors, made):
    index.make_graph()
    late, rows = vectors(60, seed=3), vectors(300)
    index.delete(["d7"])
    index.add(made(60, first=500), late)  # the first takes the slot that became free
    index.replace(made(1, first=8), late[:1] * -1)
    for number in (0, 30, 59):
        assert index.search(late[number], 1)[0].key == f"d{500 + number}"
    assert index.search(-late[0], 1)[0].key == "d8" and index.search(rows[8], 1)[0].key != "d8"
    assert index.search(rows[7], 1)[0].score < 0.9
    assert index.search(rows[9], 1, {"n": 9})[0].key == "d9", "filters go by the exact scan"


def test_it_is_used_after_opening_and_by_readers(place, vectors, made):
    with open_index(place) as index:
        assert not index.use_graph()
        index.make_graph()
        index.add(made(1, first=400), vectors(1, seed=4))
    with open_index(place, writing=False) as reader, open_index(place) as writer:
        assert reader.use_graph() and writer.use_graph()
        writer.add(made(1, first=401), vectors(1, seed=5))
        for opened in (reader, writer):
            assert [opened.search(vectors(1, seed=s)[0], 1)[0].key for s in (4, 5)] == ["d400", "d401"]
            assert opened.search(vectors(300)[3], 1)[0].key == "d3"


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: b"", lambda data: data[:100] + b"!" + data[101:]]
)
def test_a_spoilt_graph_is_not_used(place, vectors, spoil):
    with open_index(place) as index:
        index.make_graph()
    path = next(place.glob(f"*/{GRAPH}"))
    path.write_bytes(spoil(path.read_bytes()))
    with open_index(place) as index:
        assert not index.use_graph()
        assert index.search(vectors(300)[3], 1)[0].key == "d3"
