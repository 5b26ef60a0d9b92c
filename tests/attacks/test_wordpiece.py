"""Packed tokenizers made to mislead the native engine: each is refused, or gives ids within its vocabulary."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import EngineError
from tightrope.workshop.convert._wordpiece import pack

HEADER = 64
TEXTS = ("the cat sat", "a [SEP] é\u0301 漢 각 b", "[CLS][MASK]" + "z" * 200)


@pytest.fixture(scope="module")
def victim(tiny_bert) -> bytes:
    """The packed tokenizer of the tiny BERT."""
    return pack(tiny_bert.senses.tokenizer)


def patched(packed: bytes, at: int, *values: int) -> bytes:
    new = struct.pack(f"<{len(values)}I", *values)
    return packed[:at] + new + packed[at + len(new) :]


def field(packed: bytes, at: int) -> int:
    return int.from_bytes(packed[at : at + 4], "little")


def refused(wordpiece, packed) -> str:
    with pytest.raises(EngineError) as raised:
        for text in TEXTS:
            wordpiece.encode(packed, text, 64)
    assert raised.value.message and raised.value.hint
    return raised.value.message


def harmless(wordpiece, packed, texts=TEXTS) -> None:
    """Refused in our own words, or ids that are in the vocabulary."""
    for text in texts:
        try:
            ids, _ = wordpiece.encode(packed, text, 64)
            pair, types, _ = wordpiece.encode_pair(packed, text, text, 64)
        except EngineError as error:
            assert error.message and error.hint
        else:
            size = field(packed, 28)
            assert all(0 <= number < size for number in ids + pair) and len(ids) <= 64 and len(pair) == len(types)


@pytest.mark.parametrize("size", [0, 1, 8, 63, 64, 65, 1087])
def test_a_shortened_file_is_refused(wordpiece, victim, size):
    assert f"it has {size} bytes" in refused(wordpiece, victim[:size])


def test_a_lengthened_file_is_refused(wordpiece, victim):
    assert "bytes for" in refused(wordpiece, victim + b"\0" * 4)
    assert "bytes for" in refused(wordpiece, victim + b"\0" * 1024)


def test_another_kind_of_file_is_refused(wordpiece, victim):
    assert "another kind" in refused(wordpiece, b"GGUF" + victim[4:])


def test_another_version_is_told_from_a_broken_file(wordpiece, victim):
    assert "version 2" in refused(wordpiece, patched(victim, 8, 2))


BEYOND = 1 << 22
HOSTILE = {
    "its flags are 16": (12, 16),
    "its flags are 4294967295": (12, 0xFFFFFFFF),
    "its vocabulary is 60": (16, 60),
    "vocabulary is 60 ": (20, 0xFFFFFFFF),
    "its vocabulary is": (24, 60),
    "its vocabulary is 0": (28, 0),
    "its vocabulary is 4294967295": (28, 0xFFFFFFFF),
    "its vocabulary is 4194305": (28, BEYOND + 1),
    "up to 0 characters": (32, 0),
    "up to 1001 characters": (32, 1001),
    "up to 4294967295 characters": (32, 0xFFFFFFFF),
    "for 0 units": (36, 0),
    "for 255 units": (36, 255),
    "for 4294967040 units": (36, 0xFFFFFF00),
    "for 1073741824 units": (36, 1 << 30),
    "a root lies beyond the last unit": (40, 256),
    "a root lies beyond": (44, 0xFFFFFFFF),
    "a root lies": (48, 0x80000000),
    "a field that must be 0": (52, 1),
    "a field that must": (56, 1),
    "a field": (60, 0xFFFFFFFF),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_hostile_header_is_refused(wordpiece, victim, message):
    assert message.rstrip() in refused(wordpiece, patched(victim, *HOSTILE[message]))


def test_an_empty_trie_is_refused(wordpiece, victim):
    assert "root" in refused(wordpiece, patched(victim[:HEADER], 36, 0))


def test_a_base_beyond_the_trie_is_refused_where_a_text_meets_it(wordpiece, victim):
    units = field(victim, 36)
    spoilt = victim
    for at in range(HEADER, len(victim), 4):
        label = field(victim, at) & 0xFF
        spoilt = patched(spoilt, at, label | (BEYOND - 1) << 10)
    assert f"of {units}" in refused(wordpiece, spoilt)


def test_an_id_beyond_the_vocabulary_is_refused_where_a_text_meets_it(wordpiece, victim):
    assert "is beyond 5" in refused(wordpiece, patched(victim, 28, 5))


def test_a_trie_that_leads_back_to_its_root_comes_to_an_end(wordpiece, victim):
    """Every byte leads on to where it came from, with and without a piece that ends there."""
    for flags in (0, 1 << 8, 1 << 9):
        units = [label | flags for label in range(256)]
        ring = patched(patched(victim[:HEADER], 36, 256, 0, 0, 0), 12, 15) + struct.pack("<256I", *units)
        harmless(wordpiece, ring, [*TEXTS, "a" * 20_000, "é " * 10_000])


def test_every_field_of_every_unit_may_be_spoilt(wordpiece, victim):
    for at in range(HEADER, len(victim), 4):
        for value in (0, 0xFFFFFFFF, field(victim, at) ^ 1 << 8, field(victim, at) ^ 1 << 9, field(victim, at) + 1024):
            harmless(wordpiece, patched(victim, at, value & 0xFFFFFFFF))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 40))
def test_random_bytes_in_a_real_file_do_no_harm(wordpiece, victim, seed, count):
    source, spoilt = random.Random(seed), bytearray(victim)
    for _ in range(count):
        spoilt[source.randrange(8, len(spoilt))] = source.randrange(256)
    harmless(wordpiece, bytes(spoilt))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(wordpiece, data):
    refused(wordpiece, data)
