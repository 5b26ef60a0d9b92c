"""Write what tokenizers' BERT normaliser and pre-tokenizer do to each character: as C++, and as bytes for phones.

The tables are observed, code point by code point, through the Python package, never taken from a Unicode file: the
package's crates know several versions of Unicode, and only what it does counts.

    .venv/bin/python engine/tools/unicode_tables.py            writes both files
    .venv/bin/python engine/tools/unicode_tables.py --check    compares, and exits with 1 if one differs
"""

import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import groupby
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

OUTPUT = Path(__file__).parents[1] / "src" / "unicode_tables.cpp"
PHONES = Path(__file__).parents[2] / "src" / "tightrope" / "workshop" / "exports" / "unicode.bin"
TRAITS = ("removed", "space", "ideograph", "punctuation", "nonspacing", "decomposes", "capital", "nonstarter")
"""In the order of their bits, as in unicode.hpp."""

BLOCK = 64
PAGED = 0x30000
"""Below it traits are in pages of `BLOCK` characters; above it few have any, so these are listed as ranges."""

_CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
_LOW_MARK, _HIGH_MARK = "\u0334", "\u0301"
"""Marks of the classes 1 and 230: every other class trades places with at least one of them."""


def bert(*, clean: bool = False, ideographs: bool = False, strip: bool = False, lower: bool = False) -> object:
    return normalizers.BertNormalizer(
        clean_text=clean, handle_chinese_chars=ideographs, strip_accents=strip, lowercase=lower
    )


def changed(normalizer: object) -> dict[str, str]:
    """What a normaliser makes of each character that it does not leave alone."""
    made = ((character, normalizer.normalize_str(character)) for character in _CHARACTERS)
    return {character: text for character, text in made if text != character}


def observe() -> tuple[dict[str, set[str]], dict[str, str], dict[str, str]]:
    """The characters of each trait, the full canonical decompositions, and the lower-case forms."""
    nfd, split = normalizers.NFD(), pre_tokenizers.BertPreTokenizer()
    cleaned, decomposed, lowered = changed(bert(clean=True)), changed(nfd), changed(bert(lower=True))
    stripped = changed(bert(strip=True))
    words = {character: len(split.pre_tokenize_str(f"a{character}b")) for character in _CHARACTERS}
    traits = {
        "removed": {character for character, text in cleaned.items() if not text},
        "space": {character for character in _CHARACTERS if words[character] == 2},
        "ideograph": set(changed(bert(ideographs=True))),
        "punctuation": {character for character in _CHARACTERS if words[character] == 3},
        "nonspacing": {character for character, text in stripped.items() if not text and character not in decomposed},
        "decomposes": set(decomposed),
        "capital": set(lowered),
        "nonstarter": {
            character
            for character in _CHARACTERS
            if character not in decomposed and (swaps(nfd, _HIGH_MARK, character) or swaps(nfd, character, _LOW_MARK))
        },
    }
    check(traits, cleaned, decomposed, lowered, stripped)
    return traits, decomposed, lowered


def swaps(nfd: object, first: str, second: str) -> bool:
    return bool(nfd.normalize_str(first + second) == second + first)


def check(
    traits: dict[str, set[str]],
    cleaned: dict[str, str],
    decomposed: dict[str, str],
    lowered: dict[str, str],
    stripped: dict[str, str],
) -> None:
    """What wordpiece.cpp takes for granted."""
    kept_spaces = {character for character, text in cleaned.items() if text} | {" "}
    assert kept_spaces == traits["space"] - traits["removed"], "cleaning turns spaces, and nothing else, into a space"
    assert {text for text in cleaned.values() if text} == {" "}
    for character, text in stripped.items():
        full = decomposed.get(character, character)
        assert text == "".join(part for part in full if part not in traits["nonspacing"]), character
    special = traits["space"] | traits["punctuation"] | traits["ideograph"] | traits["capital"]
    assert not traits["nonstarter"] & special, "a mark that moves is part of a word and has no case"
    assert not set("".join(lowered.values())) & (traits["space"] | traits["punctuation"] | set(lowered))
    assert {character for character, text in lowered.items() if len(text) > 1} == {"İ"} and lowered["İ"] == "i\u0307"
    assert all(hangul(code) == decomposed[chr(code)] for code in range(0xAC00, 0xD7A4))
    assert not any(ord(character) >= PAGED for character in [*decomposed, *lowered])


def hangul(code: int) -> str:
    index = code - 0xAC00
    lead, vowel, tail = 0x1100 + index // 588, 0x1161 + index % 588 // 28, 0x11A7 + index % 28
    return "".join(map(chr, (lead, vowel, tail) if index % 28 else (lead, vowel)))


def orders(traits: dict[str, set[str]]) -> list[tuple[str, int]]:
    """The nonstarters that no stripping takes, each with the rank of its combining class, from 1."""
    nfd = normalizers.NFD()

    def compare(first: str, second: str) -> int:
        return int(swaps(nfd, first, second)) - int(swaps(nfd, second, first))

    marks = sorted(sorted(traits["nonstarter"] - traits["nonspacing"]), key=cmp_to_key(compare))
    ranks, rank = {}, 0
    for before, mark in zip([None, *marks], marks, strict=False):
        rank += before is None or compare(before, mark) != 0
        ranks[mark] = rank
    return sorted(ranks.items())


def decompositions(traits: dict[str, set[str]], decomposed: dict[str, str]) -> tuple[list[int], str]:
    """Pairs of a character and what it becomes, flat, and the text that those becoming several characters point into.

    A nonspacing nonstarter is left out: it would be stripped, and nothing depends on it. One that is a starter
    stays, for marks do not move across it.
    """
    pairs, pool = [], ""
    for character, full in decomposed.items():
        if 0xAC00 <= ord(character) < 0xD7A4:
            continue
        text = "".join(part for part in full if part not in traits["nonspacing"] & traits["nonstarter"])
        if len(text) > 1 and text not in pool:
            pool += text
        pairs += [ord(character), len(text) << 24 | (ord(text) if len(text) == 1 else pool.find(text))]
    return pairs, pool


def case_runs(lowered: dict[str, str]) -> Iterator[list[int]]:
    """Neighbouring capitals with one distance to their small letters: first, last, distance."""
    capitals = sorted(
        (ord(character), ord(text) - ord(character)) for character, text in lowered.items() if len(text) == 1
    )
    for distance, group in groupby(capitals, key=lambda capital: capital[1]):
        codes = [code for code, _ in group]
        yield [codes[0], codes[-1], distance]


def pages(bits: list[int]) -> tuple[list[int], list[int]]:
    """For each block of characters the number of its page, and the pages one after another."""
    seen: dict[tuple[int, ...], int] = {}
    index = [seen.setdefault(tuple(bits[at : at + BLOCK]), len(seen)) for at in range(0, PAGED, BLOCK)]
    return index, [value for page in seen for value in page]


def ranges(bits: list[int]) -> Iterator[list[int]]:
    """Beyond the pages: first, last and traits of each run of characters that have any."""
    for value, group in groupby(range(PAGED, 0x110000), key=lambda code: bits[code]):
        codes = list(group)
        if value:
            yield [codes[0], codes[-1], value]


def table(declaration: str, cells: Iterable[int | list[int]]) -> str:
    """A C array, in lines of at most 120 characters."""
    lines, line = [f"{declaration} = {{"], " "
    for cell in cells:
        text = f" {cell}," if isinstance(cell, int) else f" {{{', '.join(map(str, cell))}}},"
        if len(line) + len(text) > 120:
            lines, line = [*lines, line], " "
        line += text
    return "\n".join([*lines, line, "};", ""])


@dataclass(frozen=True)
class Tables:
    """All of it, row by row."""

    index: list[int]
    pages: list[int]
    ranges: list[list[int]]
    decompositions: list[list[int]]
    pool: str
    case_runs: list[list[int]]
    marks: list[list[int]]


def tables() -> Tables:
    traits, decomposed, lowered = observe()
    bits = [sum((chr(code) in traits[name]) << bit for bit, name in enumerate(TRAITS)) for code in range(0x110000)]
    index, page_values = pages(bits)
    pairs, pool = decompositions(traits, decomposed)
    rows = [pairs[at : at + 2] for at in range(0, len(pairs), 2)]
    marks = [[ord(mark), rank] for mark, rank in orders(traits)]
    return Tables(index, page_values, list(ranges(bits)), rows, pool, list(case_runs(lowered)), marks)


def source(made: Tables) -> str:
    size = len(made.index) + len(made.pages) + 12 * len(made.ranges) + 8 * len(made.decompositions)
    size += 4 * len(made.pool) + 12 * len(made.case_runs)
    return "\n".join(
        [
            f"// Written by engine/tools/unicode_tables.py, which observed tokenizers {tokenizers.__version__}.",
            f"// {size + 8 * len(made.marks)} bytes of tables. Do not edit.",
            '#include "unicode.hpp"',
            "",
            "namespace tightrope::unicode {",
            "",
            table(f"const std::uint8_t page_of[{len(made.index)}]", made.index),
            table(f"const Traits pages[{len(made.pages)}]", made.pages),
            table(f"static const Range ranges_[{len(made.ranges)}]", made.ranges),
            table(f"static const Decomposition decompositions_[{len(made.decompositions)}]", made.decompositions),
            table(f"static const char32_t pool_[{len(made.pool)}]", map(ord, made.pool)),
            table(f"static const CaseRun case_runs_[{len(made.case_runs)}]", made.case_runs),
            table(f"static const Mark marks_[{len(made.marks)}]", made.marks),
            "constinit const std::span<const Range> ranges = ranges_;",
            "constinit const std::span<const Decomposition> decompositions = decompositions_;",
            "constinit const std::span<const char32_t> pool = pool_;",
            "constinit const std::span<const CaseRun> case_runs = case_runs_;",
            "constinit const std::span<const Mark> marks = marks_;",
            "",
            "}  // namespace tightrope::unicode",
            "",
        ]
    )


def packed(made: Tables) -> bytes:
    """The same for phones: docs/formats/wordpiece.md says what lies where."""
    pool = [[ord(character)] for character in made.pool]
    rows = (made.ranges, made.decompositions, pool, made.case_runs, made.marks)
    small = bytes(made.index + made.pages)
    counts = (len(made.index), len(made.pages), *map(len, rows))
    numbers = [number for table in rows for row in table for number in row]
    head = struct.pack("<8s8I", b"TRUNICOD", 1, *counts)
    return head + small + bytes(-len(small) % 4) + struct.pack(f"<{len(numbers)}i", *numbers)


def main() -> None:
    made = tables()
    text, data = source(made), packed(made)
    if sys.argv[1:] == ["--check"]:
        sys.exit(int(OUTPUT.read_text(encoding="utf-8") != text or PHONES.read_bytes() != data))
    OUTPUT.write_text(text, encoding="utf-8")
    PHONES.write_bytes(data)


if __name__ == "__main__":
    main()
