"""What tokens are called: looked up in the bundle's tokenizer when somebody asks, and not kept."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import msgspec

from tightrope.device.serve.ledger import Ledger

OWNER = "vocabulary"
_TIMES = 8
"""What a vocabulary takes while it is read, relative to its file."""


class _Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[Any]


class _Tokenizer(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []


def pieces(path: Path, ids: Set[int], ledger: Ledger) -> dict[int, tuple[str, bool]]:
    """By id, a token's text and whether it is a special one. Unknown ids are left out.

    Raises `RefusedError` (memory) if there is no room to read the vocabulary.
    """
    with ledger.reserve(OWNER, _TIMES * path.stat().st_size):
        found = msgspec.json.decode(path.read_bytes(), type=_Tokenizer)
        vocabulary = found.model.vocab
        if isinstance(vocabulary, dict):
            names = {id: (text, False) for text, id in vocabulary.items() if id in ids}
        else:  # Unigram: pairs of a piece and its score, in the order of their ids
            names = {id: (str(vocabulary[id][0]), False) for id in ids if id < len(vocabulary)}
        return names | {item.id: (item.content, item.special) for item in found.added_tokens if item.id in ids}
