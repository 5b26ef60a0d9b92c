"""Whatever changes, the real `jsonpatch` makes the new state of the old one; a slow reader costs a bounded amount."""

import asyncio
import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve.deltas import Feed, diff

KEYS = st.text(alphabet="ab/~0 é", max_size=3)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)  # -0.0 equals 0.0
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | FLOATS | st.text()
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
HITS = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("abcdefgh"), "score": st.integers(0, 9)}),
    unique_by=lambda hit: hit["id"],
)


def exactly(one: Any, other: Any) -> bool:
    """Equal as JSON texts: `True` is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(DOCUMENTS | HITS, DOCUMENTS | HITS)
def test_a_patch_makes_the_new_state_of_the_old(before: Any, after: Any) -> None:
    kept = copy.deepcopy(before)
    patch = diff(before, after)
    assert exactly(jsonpatch.apply_patch(before, patch), after)
    assert exactly(before, kept)
    assert (patch == []) == exactly(before, after)


@given(HITS, HITS)
def test_hits_are_moved_and_not_rewritten(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    patch = diff({"hits": before}, {"hits": after})
    assert jsonpatch.apply_patch({"hits": before}, patch) == {"hits": after}
    stay = {hit["id"] for hit in before} & {hit["id"] for hit in after}
    assert sum(op["op"] == "remove" for op in patch) == len(before) - len(stay)
    assert sum(op["op"] == "add" for op in patch) == len(after) - len(stay)


class Reader:
    """What a client does: take snapshots, apply patches, and notice a gap."""

    def __init__(self) -> None:
        self.seq = 0
        self.state: Any = None
        self.snapshots = 0

    def read(self, text: str) -> bool:
        """Whether the message could be used."""
        message = json.loads(text)
        if "snapshot" in message:
            self.state, self.seq = message["snapshot"], message["seq"]
            self.snapshots += 1
            return True
        if message["base"] != self.seq:
            return False
        self.state, self.seq = jsonpatch.apply_patch(self.state, message["patch"]), message["seq"]
        return True


@given(st.lists(HITS, min_size=1), st.data())
def test_a_reader_has_the_servers_state_whenever_it_caught_up(states: list[Any], data: st.DataObject) -> None:
    async def follow() -> None:
        feed, reader = Feed(3), Reader()
        for state in states:
            feed.push(state)
            assert feed.waiting <= 3
            for _ in range(data.draw(st.integers(0, feed.waiting))):
                assert reader.read(await feed.pull())
        while feed.waiting:
            assert reader.read(await feed.pull())
        assert exactly(reader.state, states[-1])

    asyncio.run(follow())


def test_a_slow_reader_gets_a_snapshot_and_costs_nothing() -> None:
    async def follow() -> None:
        feed, reader = Feed(64), Reader()
        feed.push({"n": 0, "rest": "x" * 100})
        assert reader.read(await feed.pull())
        for number in range(100_000):
            feed.push({"n": number, "rest": "x" * 100})
            assert feed.waiting <= 64
        while feed.waiting:
            assert reader.read(await feed.pull())
        assert reader.state["n"] == 99_999
        assert reader.snapshots == 2

    asyncio.run(follow())


def test_a_reader_that_missed_something_asks_for_the_state() -> None:
    async def follow() -> None:
        feed, reader = Feed(64), Reader()
        for number in range(4):
            feed.push({"n": number, "rest": "x" * 100})
            message = await feed.pull()
            if number != 2:  # lost on the way
                usable = reader.read(message)
        assert not usable
        feed.resync()
        assert reader.read(await feed.pull())
        assert (reader.state["n"], reader.seq) == (3, 4)

    asyncio.run(follow())


def test_small_changes_are_small_messages_and_no_change_is_none() -> None:
    async def follow() -> None:
        feed = Feed(64)
        state = {"hits": [{"id": str(n), "text": "words " * 20} for n in range(10)], "count": 1}
        feed.push(state)
        snapshot = await feed.pull()
        feed.push(copy.deepcopy(state))
        assert feed.waiting == 0
        feed.push({**state, "count": 2})
        patch = await feed.pull()
        assert json.loads(patch) == {"seq": 2, "base": 1, "patch": [{"op": "replace", "path": "/count", "value": 2}]}
        assert len(patch) < len(snapshot) / 10
        feed.push({"hits": [], "count": 3})
        with pytest.raises(TimeoutError):
            await feed.pull()
            await asyncio.wait_for(feed.pull(), 0.01)

    asyncio.run(follow())


def test_nobody_waits_for_a_state_that_was_never_said() -> None:
    async def follow() -> None:
        feed = Feed(4)
        feed.resync()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(feed.pull(), 0.01)
        feed.push([])
        assert json.loads(await feed.pull()) == {"seq": 1, "snapshot": []}

    asyncio.run(follow())
