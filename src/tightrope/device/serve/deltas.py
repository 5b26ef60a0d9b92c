"""What changed since the last message, for readers that may be slow: JSON Patch (RFC 6902) with sequence numbers.

A `Feed` stands between a state that changes and one reader of it. It keeps a bounded number of patches; when the
reader is slower than the changes they are thrown away, and it is told the whole state instead. So a reader costs the
same memory whether it reads or not. Nothing here knows the network.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

Json = Any
"""What JSON can say: None, bool, int, float, str, and lists and dictionaries of these."""
Op = dict[str, Json]


def diff(before: Json, after: Json, path: str = "") -> list[Op]:
    """The operations that make `before` into `after`. Items of a list that have an `id` are moved, not rewritten.

    >>> diff({"a": 1, "b": [1, 2]}, {"a": 2, "b": [1, 2, 3]})
    [{'op': 'replace', 'path': '/a', 'value': 2}, {'op': 'add', 'path': '/b/2', 'value': 3}]
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return _of_objects(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        one, other = _ids(before), _ids(after)
        return _of_lists(before, after, path) if one is None or other is None else _of_items(before, after, path)
    same = type(before) is type(after) and before == after
    return [] if same else [{"op": "replace", "path": path, "value": after}]


def _of_objects(before: Mapping[str, Json], after: Mapping[str, Json], path: str) -> list[Op]:
    operations: list[Op] = [{"op": "remove", "path": _under(path, key)} for key in before if key not in after]
    for key, value in after.items():
        if key in before:
            operations += diff(before[key], value, _under(path, key))
        else:
            operations.append({"op": "add", "path": _under(path, key), "value": value})
    return operations


def _of_lists(before: Sequence[Json], after: Sequence[Json], path: str) -> list[Op]:
    """Place by place; what is left over is added or removed at the end."""
    operations: list[Op] = []
    for place, (one, other) in enumerate(zip(before, after, strict=False)):
        operations += diff(one, other, f"{path}/{place}")
    operations += [{"op": "remove", "path": f"{path}/{place}"} for place in range(len(before) - 1, len(after) - 1, -1)]
    operations += [
        {"op": "add", "path": f"{path}/{place}", "value": after[place]} for place in range(len(before), len(after))
    ]
    return operations


def _of_items(before: Sequence[Json], after: Sequence[Json], path: str) -> list[Op]:
    """Items known by their `id`: those that are gone are removed, then each place gets its item."""
    wanted = {item["id"] for item in after}
    operations: list[Op] = []
    now = list(before)
    for place in range(len(now) - 1, -1, -1):
        if now[place]["id"] not in wanted:
            operations.append({"op": "remove", "path": f"{path}/{place}"})
            del now[place]
    for place, item in enumerate(after):
        at = next((i for i in range(place, len(now)) if now[i]["id"] == item["id"]), None)
        if at is None:
            operations.append({"op": "add", "path": f"{path}/{place}", "value": item})
            now.insert(place, item)
            continue
        if at != place:
            operations.append({"op": "move", "from": f"{path}/{at}", "path": f"{path}/{place}"})
            now.insert(place, now.pop(at))
        operations += diff(now[place], item, f"{path}/{place}")
    return operations


def _ids(items: Sequence[Json]) -> set[str] | None:
    """The ids of the items; `None` if one has none that is text, or two have the same."""
    ids = {item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}
    return ids if len(ids) == len(items) else None


def _under(path: str, key: str) -> str:
    """The JSON Pointer (RFC 6901) of a key."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"


class Feed:
    """The messages that one reader has still to get, as JSON texts: `{seq, base, patch}`, or `{seq, snapshot}`.

    A patch applies to the state of `base`. `most` patches wait at most. For use on one event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._state: Json = None
        self._seq = 0
        self._waiting: deque[str] = deque()
        self._owes_snapshot = False
        self._news = asyncio.Event()

    def push(self, state: Json, *, since: Json = None, changes: list[Op] | None = None) -> None:
        """Say what the state is now; the value is kept, so nobody may change it afterwards.

        `changes`, if they are known already, are those from the state `since`: many readers need one comparison.
        """
        first = self._seq == 0
        if first:
            changes = []
        elif changes is None or self._state is not since:
            changes = diff(self._state, state)
        if not first and not changes:
            return
        self._seq, self._state = self._seq + 1, state
        self._news.set()
        if self._owes_snapshot:
            return
        if first or len(self._waiting) >= self._most:
            self.resync()
            return
        patch = _text({"seq": self._seq, "base": self._seq - 1, "patch": changes})
        if len(patch) >= len(_text(state)) and len(changes) > 1:  # as long as the state, and more work
            self.resync()
        else:
            self._waiting.append(patch)

    def resync(self) -> None:
        """Forget the patches that wait; the next message is the whole state. For a reader that missed something."""
        self._waiting.clear()
        self._owes_snapshot = True
        if self._seq:
            self._news.set()

    async def pull(self) -> str:
        """The next message, as soon as there is one."""
        await self._news.wait()
        if self._owes_snapshot:
            self._owes_snapshot = False
            message = _text({"seq": self._seq, "snapshot": self._state})
        else:
            message = self._waiting.popleft()
        if not self._waiting:
            self._news.clear()
        return message

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._waiting) + self._owes_snapshot


def _text(message: Json) -> str:
    return json.dumps(message, separators=(",", ":"), allow_nan=False)
