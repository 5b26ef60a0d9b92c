"""Files made to mislead the native engine: each is refused in two lines, or gives an answer; none crashes or hangs.

A runtime compares a file's digest with its name before it opens it. Here files are opened without that.
"""

import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.device import engine
from tightrope.errors import DataError, EngineError, MissingExtraError
from tightrope.workshop.convert._artefact import BYTES, FLOAT16
from tightrope.workshop.converted import convert
from tightrope.workshop.model import Task
from tightrope.workshop.numerics.quantized import Scheme, values
from tightrope.workshop.numerics.rounding import round_to_nearest

HEADER = ENTRY = 64
FORMAT, SECTIONS, SIZE = 8, 12, 16
"""Where the header has its fields; an entry has its name first, then these."""
OFFSET, LENGTH, ELEMENT = 32, 40, 48
ABSURD = (0, 1, 2, 63, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
ABSURD_LONG = (*ABSURD, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 64, (1 << 64) - 1)

OFTEN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    try:
        engine.library()
    except MissingExtraError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def file_of(tiny_bert) -> Callable[[str], bytes]:
    """`file_of(form)`: a whole file with all layers `on integers`, in `floats` or in `nibbles`, or one that scores."""

    def on_grid(network, bits: int, block: int | None, scheme: Scheme):
        linears = [linear.weight for linear in network.linears()]
        rows = {name: values(network.weights[name]) for name in [*linears, "embeddings.word_embeddings.weight"]}
        grids = {name: round_to_nearest(row, bits=bits, block=block, symmetric=bits == 8) for name, row in rows.items()}
        return network.rewrite(weights=grids, schemes=dict.fromkeys(linears, scheme))

    def scorer():
        drawn = np.random.default_rng(3).normal(0, 0.3, (33, 32)).astype(np.float32)
        weights = {"pooler.dense.weight": drawn[:32], "classifier.weight": drawn[32:]}
        weights |= {"pooler.dense.bias": drawn[0], "classifier.bias": drawn[0, :1]}
        return replace(tiny_bert.rewrite(weights=weights), task=Task(name="scoring", width=1))

    @cache
    def make(form: str) -> bytes:
        network = {
            "integers": lambda: on_grid(tiny_bert, 8, None, Scheme(bits=8, rotation=16)),
            "nibbles": lambda: on_grid(tiny_bert, 4, 16, Scheme()),
            "floats": lambda: tiny_bert,
            "scorer": scorer,
        }[form]()
        return convert(network, "native").files["model"][1]

    return make


@pytest.fixture(scope="module", params=["integers", "nibbles", "floats", "scorer"])
def whole(request, file_of) -> bytes:
    """Each whole file in turn."""
    return file_of(request.param)


class Victim:
    """A file in memory, opened with some of its bytes changed for the time of one attack."""

    def __init__(self, whole: bytes) -> None:
        self.whole = whole
        self.descriptor = os.memfd_create("victim")
        os.write(self.descriptor, whole)
        (self.count,) = struct.unpack_from("<I", whole, SECTIONS)

    def with_bytes(self, at: int, new: bytes, attack: Callable[[int], str]) -> str:
        os.pwrite(self.descriptor, new, at)
        try:
            return attack(self.descriptor)
        finally:
            os.pwrite(self.descriptor, self.whole[at : at + len(new)], at)

    def entries(self) -> Iterator[tuple[int, str, int, int]]:
        """Where each entry lies, the section's name, offset and size."""
        for at in range(HEADER, HEADER + ENTRY * self.count, ENTRY):
            name, offset, size = struct.unpack_from("<32sQQ", self.whole, at)
            yield at, name.rstrip(b"\0").decode(), offset, size

    def records(self) -> Iterator[tuple[int, int]]:
        """Offset and size of every section that is a structure."""
        for at, _, offset, size in self.entries():
            if self.whole[at + ELEMENT] == BYTES:
                yield offset, size


@pytest.fixture(scope="module")
def victim(whole) -> Iterator[Victim]:
    """The whole file, to be spoilt."""
    made = Victim(whole)
    yield made
    os.close(made.descriptor)


def message(error: EngineError | DataError) -> str:
    lines = str(error).splitlines()
    assert len(lines) == 2 and all(lines), lines
    return str(error)


def outcome(descriptor: int) -> str:
    """What opening a file and asking it says: its error, or nothing where it answers."""
    ids, offsets = np.arange(2, 41, dtype=np.int32), np.array([0, 1, 9, 39])
    try:
        with engine.Model(descriptor) as model:
            if model.tokenizes:
                model.tokenize(["the cat sat", "[CLS] \u00e9x" * 20], pairs=model.scores, max_length=32)
            model.run(ids, offsets, ids % 2 if model.types else None)
    except (EngineError, DataError) as error:
        return message(error)
    return ""


def refused(descriptor: int) -> str:
    """The error that opening a file ends in."""
    with pytest.raises(EngineError) as raised:
        engine.Model(descriptor)
    return message(raised.value)


def opened(content: bytes, attack: Callable[[int], str] = refused) -> str:
    """An attack on a file with this content."""
    descriptor = os.memfd_create("attack")
    try:
        os.write(descriptor, content)
        return attack(descriptor)
    finally:
        os.close(descriptor)


def test_what_is_whole_answers(victim):
    assert outcome(victim.descriptor) == ""


# Cut and lengthened ------------------------------------------------------------------------------------


def boundaries(victim: Victim) -> set[int]:
    places = {0, 8, HEADER, HEADER + ENTRY * victim.count}
    for at, _, offset, size in victim.entries():
        places |= {at, offset, offset + size}
    return {place + by for place in places for by in (-1, 0, 1) if 0 <= place + by < len(victim.whole)}


def test_a_file_cut_anywhere_is_refused(victim):
    for size in boundaries(victim) | set(range(HEADER + 1)):
        assert "damaged" in opened(victim.whole[:size])


def test_a_file_that_was_cut_and_says_so_is_refused(victim):
    last = max(offset + size for _, _, offset, size in victim.entries())
    for size in boundaries(victim):
        if HEADER <= size < last:
            cut = bytearray(victim.whole[:size])
            struct.pack_into("<Q", cut, SIZE, size)
            assert "damaged" in opened(bytes(cut))


def test_a_file_with_more_behind_it_is_refused(victim):
    for more in (1, 63, 64, 4096):
        assert f"not {len(victim.whole)}" in opened(victim.whole + bytes(more))


# Bits --------------------------------------------------------------------------------------------------


def test_any_bit_of_the_header_the_table_and_the_records_may_flip(victim):
    places = [*range(HEADER + ENTRY * victim.count)]
    for offset, size in victim.records():
        places += range(offset, offset + min(size, 512))
    for at in places:
        for flip in (1 << at % 8, 0x80, 0xFF):
            victim.with_bytes(at, bytes([victim.whole[at] ^ flip]), outcome)


@OFTEN
@given(seed=st.integers(0, 1 << 30))
def test_any_bits_elsewhere_may_flip(victim, seed):
    source = random.Random(seed)
    for _ in range(20):
        at = source.randrange(HEADER, len(victim.whole))
        victim.with_bytes(at, bytes([source.randrange(256)]), outcome)


@OFTEN
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=40)), max_size=30))
def test_many_places_may_change_at_once(file_of, changes):
    spoilt = bytearray(file_of("integers"))
    for at, new in changes:
        start = 24 + at % (len(spoilt) - 64)
        spoilt[start : start + len(new)] = new
    opened(bytes(spoilt[: len(file_of("integers"))]), outcome)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(content):
    opened(content)
    opened(b"TIGHTROP\1\0\0\0" + content)


# Claims ------------------------------------------------------------------------------------------------


def test_absurd_numbers_in_records_are_refused_or_harmless(victim):
    for offset, size in victim.records():
        for at in range(offset, offset + min(size, 64) // 4 * 4, 4):
            (real,) = struct.unpack_from("<I", victim.whole, at)
            for value in {*ABSURD, real + 1, real - 1, real * 2, real ^ 1}:
                victim.with_bytes(at, struct.pack("<I", value & 0xFFFFFFFF), outcome)


@pytest.mark.parametrize("count", [0, 1, 2, 65537, 1 << 31, (1 << 32) - 1])
def test_another_number_of_sections_is_refused(victim, count):
    assert "damaged" in victim.with_bytes(SECTIONS, struct.pack("<I", count), refused)


@pytest.mark.parametrize("size", ABSURD_LONG)
def test_another_size_of_the_file_is_refused(victim, size):
    assert f"not {size}" in victim.with_bytes(SIZE, struct.pack("<Q", size), refused)


def test_absurd_places_and_sizes_of_sections_are_refused(victim):
    for at, name, offset, size in victim.entries():
        for value in {*ABSURD_LONG, offset - 64, offset + 1, len(victim.whole) + 64} - {offset}:
            assert name in victim.with_bytes(at + OFFSET, struct.pack("<Q", value), refused)
        for value in {*ABSURD_LONG, size + 1, size - 1, len(victim.whole)} - {size}:
            assert victim.with_bytes(at + LENGTH, struct.pack("<Q", value), refused)


def test_sections_that_overlap_are_refused(victim):
    places = list(victim.entries())
    for (_, _, before, size), (at, name, _, _) in pairwise(places):
        for offset in {before, before + (size - 1) // 64 * 64}:
            said = victim.with_bytes(at + OFFSET, struct.pack("<Q", offset), refused)
            assert f"section {name} lies outside its place" in said


OPTIONAL = ("wordpiece", "words.zero")
"""Sections whose absence means something."""


def test_a_missing_section_is_named(victim):
    for at, name, _, _ in victim.entries():
        said = victim.with_bytes(at, b"absent".ljust(32, b"\0"), outcome)
        if name == "config":
            assert "holds a tokenizer and no model" in said
        elif name.endswith(".qkv.linear"):
            assert name.replace("qkv", "query") in said
        elif name not in OPTIONAL and not name.endswith(".zero"):
            assert f"section {name} is missing" in said


def test_a_section_that_is_there_twice_is_refused(victim):
    (_, first, _, _), *rest = victim.entries()
    for at, _, _, _ in rest:
        said = victim.with_bytes(at, first.encode().ljust(32, b"\0"), refused)
        assert f"section {first} is there twice" in said


@pytest.mark.parametrize("name", [b"", b"n" * 32, b"two\nlines", b"\xff\xfe", b"a word"])
def test_a_name_that_could_not_be_told_is_refused(victim, name):
    assert "no readable name" in victim.with_bytes(HEADER, name.ljust(32, b"\0"), refused)


def test_sections_of_another_kind_are_refused_or_harmless(victim):
    for at, name, _, _ in victim.entries():
        for element in range(10):
            said = victim.with_bytes(at + ELEMENT, struct.pack("<I", element), outcome)
            if element != victim.whole[at + ELEMENT] and name != "wordpiece":
                assert said, (name, element)


def test_tables_of_kinds_that_are_of_the_same_size_are_read_within_their_bounds(file_of):
    """Float16 and codes of another width: whatever the table's size allows is read, nothing beyond it."""
    spoilt = bytearray(file_of("floats"))
    victim = Victim(bytes(spoilt))
    at = next(at for at, name, _, _ in victim.entries() if name == "words")
    struct.pack_into("<QI", spoilt, at + LENGTH, 60 * 32 * 2, FLOAT16)
    assert opened(bytes(spoilt), outcome) == ""
    os.close(victim.descriptor)


def test_another_format_is_told_from_damage(victim):
    newer = victim.with_bytes(FORMAT, struct.pack("<I", 2), refused)
    assert "format 2; this engine reads 1" in newer and "Update tightrope" in newer
    older = victim.with_bytes(FORMAT, struct.pack("<I", 0), refused)
    assert "format 0" in older and "anew" in older


def test_another_kind_of_file_is_told_from_damage(victim):
    assert "does not begin like" in victim.with_bytes(0, b"GGUF", refused)
