"""A tokenizer as data: which of its pieces a corpus uses, and the same tokenizer with fewer.

The promise: a text all of whose pieces are kept is cut into the very same pieces afterwards. It holds because each kind
of tokenizer decides by comparing pieces, and the pieces it decided for are still there while nothing new is:

- WordPiece takes the longest piece that matches. A piece that was taken stays; a longer one never existed. A word that
  ends as unknown is decided by the pieces taken before it failed, so these are kept as well.
- Unigram takes the best-scored path. What competes with it can only become fewer; the penalty of an unknown character
  follows from the worst score, so the piece that has it stays.
- BPE applies the earliest merge that fits. The merges that build a piece stay, in their order, and the others were
  never applied.

Other kinds are refused. Ids keep their order, so a padding token in front keeps its number.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tightrope.errors import UnsupportedError

TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocabulary:
    """A tokenizer (bytes of a tokenizer.json) and, for each of its ids, the id it had before: int64 [pieces]."""

    tokenizer: bytes
    rows: NDArray[np.int64]


def engine(tokenizer: bytes) -> Any:
    """A tokenizer ready to encode whole texts: neither padded nor cut."""
    loaded = Tokenizer.from_str(tokenizer.decode())
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


def used(tokenizer: bytes, texts: Sequence[str]) -> set[int]:
    """The ids that decide how the texts are cut. Raises `UnsupportedError` for a kind that cannot be pruned."""
    loaded, model = engine(tokenizer), _model(json.loads(tokenizer))
    unknown = loaded.token_to_id(model["unk_token"]) if model["type"] == "WordPiece" else None
    found: set[int] = set()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = [_without_surrogates(text) for text in texts[start : start + TEXTS_AT_ONCE]]
        for text, encoding in zip(part, loaded.encode_batch(part, add_special_tokens=False), strict=True):
            found.update(encoding.ids)
            if unknown is not None and unknown in encoding.ids:
                found.update(piece for word in _words(loaded, text) for piece in _longest_first(word, model))
    return found


def characters(tokenizer: bytes, texts: Sequence[str]) -> set[int]:
    """The ids of single characters, so that a word outside the corpus is spelt rather than unknown.

    All bytes of a byte-level or byte-fallback tokenizer; of another, the ASCII characters and those of the texts.
    """
    data = json.loads(tokenizer)
    model, normalizer = _model(data), engine(tokenizer).normalizer
    seen = {chr(code) for code in range(128)}
    for text in map(_without_surrogates, texts):
        seen.update(text)
        seen.update(normalizer.normalize_str(text) if normalizer else ())
    everything = model["type"] == "BPE"  # its alphabet: bytes in disguise, or the letters that all merges start from
    prefix = model.get("continuing_subword_prefix") or ""
    return {
        number
        for piece, number in _pieces(model)
        if _is_byte(piece)
        or (len(bare := piece.removeprefix(prefix) or piece) == 1 and (everything or bare in seen or bare == "▁"))
    }


def prune(tokenizer: bytes, keep: Iterable[int]) -> Vocabulary:
    """The tokenizer with the ids to keep, its special and added tokens, and whatever these are built from.

    Raises `UnsupportedError` for a kind that cannot be pruned, or whose numbering would not survive it.
    """
    data = json.loads(tokenizer)
    model = _model(data)
    kept = set(keep) | _special(data) | _KINDS[model["type"]](model, set(keep))
    rows = np.array(sorted(kept), np.int64)
    renumbered = {int(old): new for new, old in enumerate(rows)}
    if model["type"] == "Unigram":
        model["vocab"] = [item for number, item in enumerate(model["vocab"]) if number in kept]
        model["unk_id"] = None if model.get("unk_id") is None else renumbered[model["unk_id"]]
    else:
        model["vocab"] = {piece: renumbered[old] for piece, old in model["vocab"].items() if old in kept}
    if model["type"] == "BPE":
        model["merges"] = [merge for merge in model["merges"] if _survives(merge, model["vocab"])]
    _renumber(data, renumbered)
    pruned = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    _check(tokenizer, pruned, rows)
    return Vocabulary(tokenizer=pruned, rows=rows)


def _without_surrogates(text: str) -> str:
    """The text as the device's senses read it: a lone surrogate, which no tokenizer takes, is U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _model(data: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = data["model"]
    kind = model.get("type")
    if kind not in _KINDS:
        raise UnsupportedError(
            f"The tokenizer is of kind {kind!r}, whose vocabulary cannot be pruned.",
            hint=f"Leave out vocab; it can prune {', '.join(_KINDS)}.",
        )
    if kind == "BPE" and any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")):
        raise UnsupportedError(
            "The BPE tokenizer marks the inside or the end of words, which pruning does not follow.",
            hint="Leave out vocab.",
        )
    return model


def _pieces(model: dict[str, Any]) -> Iterator[tuple[str, int]]:
    if model["type"] == "Unigram":
        yield from ((item[0], number) for number, item in enumerate(model["vocab"]))
    else:
        yield from model["vocab"].items()


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


# What must be kept with a set of pieces ----------------------------------------------------------------


def _with_wordpiece(model: dict[str, Any], keep: set[int]) -> set[int]:
    return {model["vocab"][model["unk_token"]]}


def _with_unigram(model: dict[str, Any], keep: set[int]) -> set[int]:
    """The unknown piece, and the worst-scored one, from which the penalty of an unknown character is reckoned."""
    worst = min(range(len(model["vocab"])), key=lambda number: model["vocab"][number][1])
    return {worst} | ({model["unk_id"]} if model.get("unk_id") is not None else set())


def _with_bpe(model: dict[str, Any], keep: set[int]) -> set[int]:
    """All that the pieces are merged from: what BPE does inside a piece is what it does to the piece alone."""
    vocab: dict[str, int] = model["vocab"]
    ranks = {tuple(_pair(merge)): rank for rank, merge in reversed(list(enumerate(model["merges"])))}
    pieces = {number: piece for piece, number in vocab.items()}
    parts = {vocab[model["unk_token"]]} if model.get("unk_token") in vocab else set()
    for number in keep & pieces.keys():
        symbols = list(pieces[number])
        parts.update(vocab[symbol] for symbol in symbols if symbol in vocab)
        while True:
            fitting = [pair for pair in pairwise(symbols) if pair in ranks]
            if not fitting:
                break
            at = _first(symbols, min(fitting, key=ranks.__getitem__))
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            parts.add(vocab[symbols[at]])
    return parts


def _first(symbols: list[str], pair: tuple[str, str]) -> int:
    return next(at for at in range(len(symbols)) if (symbols[at], symbols[at + 1]) == pair)


def _pair(merge: str | list[str]) -> list[str]:
    """A merge, in the older written form `a b` or as a pair."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _survives(merge: str | list[str], vocab: dict[str, int]) -> bool:
    left, right = _pair(merge)
    return left in vocab and right in vocab and left + right in vocab


_KINDS: dict[str, Callable[[dict[str, Any], set[int]], set[int]]] = {
    "WordPiece": _with_wordpiece,
    "Unigram": _with_unigram,
    "BPE": _with_bpe,
}


# Words that end as unknown -----------------------------------------------------------------------------


def _words(loaded: Any, text: str) -> list[str]:
    normal = loaded.normalizer.normalize_str(text) if loaded.normalizer else text
    if loaded.pre_tokenizer is None:
        return [normal]
    return [word for word, _ in loaded.pre_tokenizer.pre_tokenize_str(normal)]


def _longest_first(word: str, model: dict[str, Any]) -> Iterator[int]:
    """The ids of the pieces that WordPiece takes from a word, until the end or until none fits."""
    prefix, vocab, start = model["continuing_subword_prefix"], model["vocab"], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = (prefix if start else "") + word[start:end]
            if piece in vocab:
                yield vocab[piece]
                start = end
                break
        else:
            return


# Special tokens ----------------------------------------------------------------------------------------


def _special(data: dict[str, Any]) -> set[int]:
    """The ids that the tokenizer names outside its model: added tokens, padding, and what a post-processor adds."""
    found = {int(token["id"]) for token in data.get("added_tokens") or ()}
    if data.get("padding"):
        found.add(int(data["padding"]["pad_id"]))
    for holder, key in _places(data.get("post_processor")):
        found.update(holder[key] if key == "ids" else [holder[key][1]])
    return found


def _renumber(data: dict[str, Any], renumbered: dict[int, int]) -> None:
    for token in data.get("added_tokens") or ():
        token["id"] = renumbered[token["id"]]
    if data.get("padding"):
        data["padding"]["pad_id"] = renumbered[data["padding"]["pad_id"]]
    for holder, key in _places(data.get("post_processor")):
        old = holder[key]
        holder[key] = [renumbered[number] for number in old] if key == "ids" else [old[0], renumbered[old[1]]]


def _places(processor: dict[str, Any] | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a post-processor of any form holds ids: lists under `ids`, or [piece, id] under `cls` and `sep`."""
    if processor is None:
        return
    for nested in processor.get("processors") or ():
        yield from _places(nested)
    yield from ((special, "ids") for special in (processor.get("special_tokens") or {}).values())
    yield from ((processor, role) for role in ("cls", "sep") if role in processor)


def _check(before: bytes, after: bytes, rows: NDArray[np.int64]) -> None:
    """Every piece has the number that the table will have its row at; tokenizers number added tokens by themselves."""
    old, new = engine(before), engine(after)
    wrong = [row for number, row in enumerate(rows) if new.id_to_token(number) != old.id_to_token(int(row))]
    if wrong or new.get_vocab_size() != len(rows):
        example = old.id_to_token(int(wrong[0])) if wrong else None
        raise UnsupportedError(
            f"The tokenizer would number its pieces differently after pruning ({example!r}).", hint="Leave out vocab."
        )
