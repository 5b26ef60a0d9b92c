"""What the tests of the converters share: strings that are hard on any tokenizer."""

import random
import unicodedata
from collections.abc import Iterator

import pytest

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
MARKS = [character for character in CHARACTERS if unicodedata.category(character).startswith("M")]
LATIN = [chr(code) for code in range(0x20, 0x250)]
BLOCKS = [
    [chr(code) for code in range(*bounds)]
    for bounds in (
        *((0x0, 0x20), (0x7F, 0x100), (0x370, 0x530), (0x530, 0x700), (0x700, 0x900), (0x900, 0xE00), (0xE00, 0x1100)),
        *((0x1100, 0x1200), (0x1200, 0x1AB0), (0x1A00, 0x1E00), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x3000)),
        *((0x3000, 0x4E00), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7B0), (0xE000, 0xFB00), (0xFB00, 0x10000)),
        *((0x10000, 0x11000), (0x11000, 0x12000), (0x1D100, 0x1D250), (0x1E000, 0x1E030), (0x1E800, 0x1E960)),
        *((0x1F000, 0x20000), (0x20000, 0x20200), (0x2F800, 0x2FA20), (0xE0000, 0xE0200), (0x10FF00, 0x110000)),
    )
]
PIECES = (
    *(
        "[SEP]",
        "[CLS]",
        "[MASK]",
        "[PAD]",
        "[UNK]",
        "[sep]",
        "[SEP",
        "SEP]",
        "[[SEP]]",
        "##ing",
        "<m>",
        " <m> ",
        "<m>m",
    ),
    *("İ", "ß", "ΑΣ ", "σς", "ﬁ", "ậ", "Ệ", "ά", "Ώ", "Ё", "й", "が", "パ", "각", "क़", "ো", "\u212b\u1e9b\u0323"),
    *("\u0344", "\u0f73\u0f75\u0f81", "e\u0301\u0323", "\u0323\u0301", "\u302e\u302f\u1bf2", "\U0001d15e\U0001d160"),
    *("\U0001d165\u302e\u034f\u0301\U0001d16d", "\u1100\u1161\u11a8", "👨\u200d👩\u200d👧", "🇩🇪", "👍🏽", "\U000e0001"),
    *(
        "\0",
        "\x7f",
        "\x85",
        "\t\n\r",
        "\v\f",
        "\u00a0",
        "\u00ad",
        "\u180e",
        "\u200b",
        "\u2028",
        "\u3000",
        "\ufeff",
        "\ufffd",
    ),
)
"""Special and added tokens whole and in part, letters with a history, marks that move, what is dropped or splits."""

LONG = ("a", "é", "的", "각", "\u0301", "b\u302e", "\U0001d165", "[", "ab")


@pytest.fixture(scope="session")
def strings():
    """`strings(count, words, seed)`: random texts of all scripts, marks, control characters, long words."""

    def some(random: random.Random, characters: list[str], most: int) -> str:
        return "".join(random.choices(characters, k=random.randint(1, most)))

    def part(random: random.Random, words: list[str]) -> str:
        kind = random.randrange(12)
        if kind < 3:
            return random.choice(words) + random.choice(("", "", " ", "s", "'"))
        if kind == 3:
            return random.choice(words).title() + random.choice((" ", "", "\t", "."))
        if kind == 4:
            return some(random, MARKS, 6)
        if kind == 5:
            return some(random, random.choice(BLOCKS), 8)
        if kind == 6:
            return "".join(some(random, LATIN, 1) + some(random, MARKS, 2) for _ in range(random.randint(1, 4)))
        if kind == 7:
            return some(random, CHARACTERS, 2)
        if kind == 8 and random.random() < 0.1:
            return random.choice(LONG) * random.randint(30, 130)
        if kind == 9:
            return random.choice((" ", "  ", "-", "#", "##", "…", "。"))
        return random.choice(PIECES)

    def make(count: int, words: list[str], seed: int) -> Iterator[str]:
        source = random.Random(seed)
        for _ in range(count):
            yield "".join(part(source, words) for _ in range(source.choice((1, 2, 3, 5, 8, 13))))

    return make
