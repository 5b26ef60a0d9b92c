"""A tokenizer.json as the packed form that the native engine maps: docs/formats/wordpiece.md.

What the native tokenizer would not do exactly as `tokenizers` does is refused here, with the value that is foreign.
"""

import json
import string
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from tightrope.errors import UnsupportedError

MAGIC, VERSION = b"TRPIECES", 1
MAX_ID = (1 << 22) - 1
MAX_CHARACTERS = 1000
"""Of a word: the native tokenizer keeps one on the stack."""

MAX_ADDED_BYTES = 256
"""Of an added token: it is looked for at every place of a text."""

_PREFIX = "##"
_HEADER = "<8s14I"
_ENDS, _LEAF, _PAYLOAD = 1 << 8, 1 << 9, 10
_END = 0xFF
"""Leads to the id of a piece that longer ones begin with; no byte of UTF-8, so nothing else is there."""

_BLOCK = 256
_ALL = (1 << _BLOCK) - 1
_BLOCKS_TRIED = 8
"""Of the blocks with room, the newest; to try more would make the file hardly smaller."""


def pack(tokenizer_json: bytes) -> bytes:
    """The packed form of a BERT tokenizer. Raises `UnsupportedError` for what the native engine would do otherwise.

    Its truncation and padding are ignored, as the device's senses ignore them.
    """
    engine = _engine(tokenizer_json)
    data: dict[str, Any] = json.loads(engine.to_str())
    vocabulary: dict[str, int] = engine.get_vocab(with_added_tokens=False)
    most_characters = _model(data["model"], vocabulary)
    flags, (cls, sep), added = _flags(data), _special(data["post_processor"]), _added(data["added_tokens"])
    size = max(cls, sep, *vocabulary.values(), *added.values()) + 1
    _expect(size - 1 <= MAX_ID, f"The tokenizer's highest id is {size - 1}", f"ids up to {MAX_ID}")
    roots = (
        _tree({piece: number for piece, number in vocabulary.items() if _can_occur(piece)}),
        _tree({inner: vocabulary[_PREFIX + inner] for inner in _inner(vocabulary) if _can_occur(inner)}),
        _tree(added),
    )
    units = _units(*roots)
    _expect(len(units) <= MAX_ID + 1, f"The tokenizer needs {len(units)} units", f"up to {MAX_ID + 1}")
    special = (cls, sep, vocabulary[data["model"]["unk_token"]])
    bases = [root.base for root in roots]
    header = (MAGIC, VERSION, flags, *special, size, most_characters, len(units), *bases, 0, 0, 0)
    return struct.pack(f"{_HEADER}{len(units)}I", *header, *units)


def _engine(tokenizer_json: bytes) -> Any:
    """The tokenizer as `tokenizers` reads it: what it writes again has one form, whatever the age of the file."""
    try:
        return Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # tokenizers raises bare Exception
        raise UnsupportedError(
            f"The tokenizer cannot be read: {error}.", hint="Give another tokenizer.json."
        ) from error


def _expect(met: bool, found: str, supported: str) -> None:
    if not met:
        raise UnsupportedError(
            f"{found}, which the native engine does not do.", hint=f"It does {supported}; convert for another engine."
        )


# What is refused ---------------------------------------------------------------------------------------


def _model(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int:
    """The most characters of a word that is cut into pieces."""
    _expect(model["type"] == "WordPiece", f"The tokenizer is of kind {model['type']!r}", "WordPiece")
    prefix, unknown = model["continuing_subword_prefix"], model["unk_token"]
    _expect(prefix == _PREFIX, f"The tokenizer's pieces inside a word begin with {prefix!r}", repr(_PREFIX))
    _expect(unknown in vocabulary, f"The tokenizer's unknown token {unknown!r} has no id", "vocabularies that have it")
    most = int(model["max_input_chars_per_word"])
    supported = f"limits from 1 to {MAX_CHARACTERS}"
    _expect(1 <= most <= MAX_CHARACTERS, f"The tokenizer's words have at most {most} characters", supported)
    return most


def _flags(data: Mapping[str, Any]) -> int:
    """The options of the normaliser as bits; a pre-tokenizer has none."""
    for role, supported in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        kind = data[role] and data[role]["type"]
        _expect(kind == supported, f"The tokenizer's {role} is {kind}", supported)
    options = data["normalizer"]
    strip = options["lowercase"] if options["strip_accents"] is None else options["strip_accents"]
    bits = (options["clean_text"], options["handle_chinese_chars"], strip, options["lowercase"])
    return sum(bool(bit) << place for place, bit in enumerate(bits))


def _special(processor: Mapping[str, Any] | None) -> tuple[int, int]:
    """The ids that begin a text and end each part of it."""
    kind = processor and processor["type"]
    known = kind in ("BertProcessing", "TemplateProcessing")
    _expect(known, f"The tokenizer's post_processor is {kind}", "BertProcessing and templates equal to it")
    assert processor is not None
    if kind == "BertProcessing":
        return int(processor["cls"][1]), int(processor["sep"][1])
    single, pair = (_template(processor, key) for key in ("single", "pair"))
    (cls, _), (sep, _) = single[0], single[-1]
    plain = [(cls, 0), ("A", 0), (sep, 0)]
    same = isinstance(cls, int) and isinstance(sep, int) and single == plain and pair == [*plain, ("B", 1), (sep, 1)]
    _expect(same, f"The tokenizer's template is {single} and {pair}", "[CLS] A [SEP] and [CLS] A [SEP] B:1 [SEP]:1")
    assert isinstance(cls, int) and isinstance(sep, int)
    return cls, sep


def _template(processor: Mapping[str, Any], key: str) -> list[tuple[int | str, int]]:
    """Each part of a template as an id or the name of a sequence, and its type."""
    parts: list[tuple[int | str, int]] = []
    for piece in processor[key]:
        ((kind, value),) = piece.items()
        names = [value["id"]] if kind == "Sequence" else processor["special_tokens"][value["id"]]["ids"]
        parts += [(name, value["type_id"]) for name in names]
    return parts or [("", 0)]


def _added(tokens: list[dict[str, Any]]) -> dict[str, int]:
    """Tokens that are looked for in the text as it stands.

    Their lstrip and rstrip change no id, for the spaces that they take in would be dropped all the same;
    only a token that is or has such a space itself may thereby be lost.
    """
    for token in tokens:
        name = token["content"]
        found = f"The tokenizer's added token {name!r:.80}"
        for option in ("normalized", "single_word"):
            _expect(not token[option], f"{found} is {option}", "tokens that are found as they stand, also inside words")
        _expect(name == name.strip(), f"{found} has a space at an end", "added tokens without")
        long = f"{found} has {len(name.encode())} bytes"
        _expect(len(name.encode()) <= MAX_ADDED_BYTES, long, f"added tokens of up to {MAX_ADDED_BYTES}")
    return {token["content"]: int(token["id"]) for token in tokens}


# The trie ----------------------------------------------------------------------------------------------


def _inner(vocabulary: Mapping[str, int]) -> Iterator[str]:
    return (piece.removeprefix(_PREFIX) for piece in vocabulary if piece.startswith(_PREFIX))


def _can_occur(piece: str) -> bool:
    """Punctuation is a word of its own, so a longer piece with some in it, such as [CLS], is never met in a word."""
    return len(piece) == 1 or (len(piece) > 1 and not _PUNCTUATION.intersection(piece))


_PUNCTUATION = frozenset(string.punctuation)


@dataclass(slots=True, eq=False)
class _Node:
    children: dict[int, "_Node"] = field(default_factory=dict)
    id: int | None = None
    base: int = 0

    def labels(self) -> list[int]:
        """The bytes that lead on from here, and the mark of a piece that ends here too."""
        return [*self.children, *([_END] if self.id is not None else ())]

    def below(self) -> Iterator["_Node"]:
        """All nodes that have children, this one first."""
        todo = [self]
        while todo:
            node = todo.pop()
            yield node
            todo += [child for child in node.children.values() if child.children]


def _tree(pieces: Mapping[str, int]) -> _Node:
    root = _Node()
    for piece, number in sorted(pieces.items()):
        node = root
        for byte in piece.encode():
            node = node.children.setdefault(byte, _Node())
        node.id = number
    return root


def _units(*roots: _Node) -> list[int]:
    """All nodes in one double array. Those with most children find their place first, and single ones fill the gaps."""
    nodes = [node for root in roots for node in root.below()]
    blocks = _Blocks()
    for node in sorted(nodes, key=lambda node: -len(node.labels())):
        node.base = blocks.place(node.labels())
    units = [_END] * (_BLOCK * len(blocks.free))
    for node in nodes:
        for byte, child in node.children.items():
            units[node.base ^ byte] = byte | _unit(child)
        if node.id is not None:
            units[node.base ^ _END] = _END | _LEAF | node.id << _PAYLOAD
    return units


def _unit(node: _Node) -> int:
    if not node.children:
        assert node.id is not None
        return _LEAF | node.id << _PAYLOAD
    return (_ENDS if node.id is not None else 0) | node.base << _PAYLOAD


class _Blocks:
    """Which slots are free, and which bases no node has yet: a bit for each, an integer for each block of 256.

    No two nodes share a base, so a slot's label tells whose child it is.
    """

    def __init__(self) -> None:
        self.free: list[int] = []
        self._unused: list[int] = []
        self._open: list[int] = []

    def place(self, labels: list[int]) -> int:
        """Take the slots base ^ label for all labels, and return the base."""
        for block in self._open[-_BLOCKS_TRIED:]:
            if fitting := self._fitting(block, labels):
                break
        else:
            block, fitting = self._new(), _ALL
        base = (fitting & -fitting).bit_length() - 1
        self._unused[block] &= ~(1 << base)
        for label in labels:
            self.free[block] &= ~(1 << (base ^ label))
        if not (self.free[block] and self._unused[block]):
            self._open.remove(block)
        return block * _BLOCK + base

    def _fitting(self, block: int, labels: list[int]) -> int:
        """The bases of a block, as bits, from which all labels lead to free slots."""
        fitting = self._unused[block]
        for label in labels:
            fitting &= _exchanged(self.free[block], label)
        return fitting

    def _new(self) -> int:
        self.free.append(_ALL)
        self._unused.append(_ALL)
        self._open.append(len(self.free) - 1)
        return self._open[-1]


def _exchanged(bits: int, label: int) -> int:
    """The same bits, each at its place ^ label."""
    for width, low in _HALVES:
        if label & width:
            bits = (bits >> width & low) | (bits & low) << width
    return bits


_HALVES = tuple(
    (width, sum(1 << at for at in range(_BLOCK) if not at & width)) for width in (1, 2, 4, 8, 16, 32, 64, 128)
)
"""For each bit of a place: its weight, and the places that lack it."""
