"""The native tokenizer and `tokenizers`, which must agree on every text, and the tokenizers that are not packed."""

import itertools
import os
import random
import struct
import subprocess
import sys
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from tightrope.errors import DataError, UnsupportedError
from tightrope.workshop.convert._wordpiece import pack

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LIMITS = (3, 4, 5, 8, 16, 64, 512)
ALPHABET = [
    character
    for character in map(chr, itertools.chain(range(0x20, 0x3400), range(0xA000, 0xAC40), range(0x1D100, 0x1E960)))
    if unicodedata.category(character) not in ("Cn", "Lo", "So") or unicodedata.combining(character)
]
"""Spelt by the tests' tokenizer, so that ids tell exactly what a text was normalised to."""

WORDS = [
    "the",
    "cat",
    "catalogue",
    "un",
    "##aff",
    "##able",
    "##cat",
    "naive",
    "Naive",
    "的",
    "é",
    "e\u0301",
    "\u1100",
    "각",
]


def tokenizer(pieces=(), *, alphabet=ALPHABET, most=20):
    """A BERT tokenizer that knows `WORDS`, more pieces, and all of an alphabet."""
    spelt = [form for character in alphabet for form in (character, f"##{character}")]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys((*SPECIAL, *WORDS, *spelt, *pieces)))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=most))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(list(SPECIAL))
    made.add_tokens([AddedToken("<m>", lstrip=True, rstrip=True, normalized=False)])
    return made


def packed(engine):
    return pack(engine.to_str().encode())


@pytest.fixture(scope="module")
def engine():
    return tokenizer()


@pytest.fixture(scope="module")
def blob(engine):
    return packed(engine)


def expected(engine, texts, limit):
    """What `tokenizers` says of a text or a pair: ids, segment numbers, whether anything was cut."""
    engine.no_padding()
    engine.enable_truncation(limit)
    encoding = engine.encode(*texts)
    return encoding.ids, encoding.type_ids if len(texts) == 2 else [], bool(encoding.overflowing)


def found(native, blob, texts, limit):
    if len(texts) == 2:
        return native.encode_pair(blob, *texts, limit)
    ids, cut = native.encode(blob, *texts, limit)
    return ids, [], cut


def flagged(blob, flags):
    """The same tokenizer with other options of the normaliser."""
    return blob[:12] + struct.pack("<I", flags) + blob[16:]


def normaliser(flags):
    clean, ideographs, strip, lower = (bool(flags >> bit & 1) for bit in range(4))
    return normalizers.BertNormalizer(
        clean_text=clean, handle_chinese_chars=ideographs, strip_accents=strip, lowercase=lower
    )


# Both say the same -------------------------------------------------------------------------------------

HARD = (
    "",
    " ",
    "The cat's catalogue: unaffable!",
    "NAÏVE naïve Naı\u0308ve",
    "[SEP]x[MASK] [sep] [[CLS]] [SEP [UNK]",
    "a <m> b<m><m>c \u2003<m>\u00a0 d",
    "İSTANBUL ΑΣ ΑΣ. ß ẞ ﬁ Å",
    "a\0b\x01c\x7fd\u0085e\u00ade\u200bf\ufefff\ufffdg\ue000h",
    "a\u0323\u0301 a\u0301\u0323 \u0301a \u0344 \u0f71\u0f72\u0f73",
    "\u302e\U0001d165\u302e\U0001d165 \u302e\u034f\U0001d165",
    "漢字かな交じり文が 的x的 \uf900\U0002f800",
    "각각 한국어 \u1100\u1161\u11a8",
    "👨\u200d👩\u200d👧 🇩🇪 👍🏽",
    "a" * 20 + " " + "a" * 21 + " " + "é" * 21 + " " + "각" * 7,
    "#hash ##able x##able ##",
    "\t\n\v\f\r\x1c\x1d\x1e\x1f\u0085\u00a0\u1680\u2000\u2028\u2029\u202f\u205f\u3000x",
    "«quoted» ‘x’ — … 。、 · ¡¿ ;",
)


@pytest.mark.parametrize("flags", range(16))
def test_equals_tokenizers_whatever_its_options(engine, blob, wordpiece, flags):
    engine.normalizer = normaliser(flags)
    for text, limit in itertools.product(HARD, LIMITS):
        assert found(wordpiece, flagged(blob, flags), [text], limit) == expected(engine, [text], limit)


def test_the_options_are_in_the_header():
    engine = tokenizer(alphabet="ab")
    for flags in range(16):
        engine.normalizer = normaliser(flags)
        assert packed(engine)[12] == flags
    for lower in (False, True):
        engine.normalizer = normalizers.BertNormalizer(strip_accents=None, lowercase=lower)
        assert packed(engine)[12] == (15 if lower else 3)


def test_equals_tokenizers_on_every_character(wordpiece):
    """Alone, inside a word and after a mark, in all options that treat it differently."""
    everything = [chr(code) for code in range(0x3400) if not 0xD800 <= code < 0xE000]
    engine = tokenizer([f"##{character}" for character in everything])
    blob = packed(engine)
    for flags in (0, 3, 7, 11, 15):
        engine.normalizer = normaliser(flags)
        for start in range(0, len(everything), 8):
            text = " ".join(f"{character}\u302e a{character}\U0001d165b" for character in everything[start : start + 8])
            assert found(wordpiece, flagged(blob, flags), [text], 512) == expected(engine, [text], 512)


def test_equals_tokenizers_on_random_texts_and_pairs(engine, blob, wordpiece, strings):
    compare(wordpiece, engine, blob, strings(3000, WORDS, seed=5))


def compare(native, engine, blob, texts):
    """Every text in all or some options, with some limit, every eighth with the one before it as a pair."""
    source, before, count = random.Random(6), "", 0
    for count, text in enumerate(texts, start=1):
        if count % 100 == 1:
            flags = source.choice((15, 15, source.randrange(16)))
            engine.normalizer, options = normaliser(flags), flagged(blob, flags)
        limit, item = source.choice(LIMITS), [text, before] if count % 8 == 0 else [text]
        assert found(native, options, item, limit) == expected(engine, item, limit), (flags, limit, item)
        before = text
    return count


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([*SPECIAL, *WORDS, *HARD, *ALPHABET[:2000], " ", "<m>"]), max_size=12
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=texts, limit=st.integers(2, 40), flags=st.integers(0, 15))
def test_equals_tokenizers_on_any_text(engine, blob, wordpiece, text, limit, flags):
    engine.normalizer = normaliser(flags)
    assert found(wordpiece, flagged(blob, flags), [text], limit) == expected(engine, [text], limit)


@settings(max_examples=200, deadline=None)
@given(first=texts, second=texts, limit=st.integers(3, 40))
def test_equals_tokenizers_on_any_pair(engine, blob, wordpiece, first, second, limit):
    engine.normalizer = normaliser(15)
    assert found(wordpiece, flagged(blob, 15), [first, second], limit) == expected(engine, [first, second], limit)


@given(lengths=st.tuples(st.integers(0, 12), st.integers(0, 12)), limit=st.integers(3, 20))
def test_pairs_are_cut_as_tokenizers_cuts_them(engine, blob, wordpiece, lengths, limit):
    first, second = ("a " * length for length in lengths)
    engine.normalizer = normaliser(15)
    assert found(wordpiece, flagged(blob, 15), [first, second], limit) == expected(engine, [first, second], limit)


letters = st.text("ab[#é的", min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(letters | letters.map("##{}".format), max_size=40),
    added=st.lists(letters, max_size=4),
    samples=st.lists(st.text("ab[#é的 \u0301", max_size=30), max_size=8),
    strips=st.booleans(),
)
def test_equals_tokenizers_with_any_vocabulary(wordpiece, pieces, added, samples, strips):
    engine = tokenizer(pieces, alphabet="b[#", most=6)
    engine.add_tokens([AddedToken(text, normalized=False, lstrip=strips, rstrip=strips) for text in added])
    blob = packed(engine)
    for sample in samples:
        assert found(wordpiece, blob, [sample], 30) == expected(engine, [sample], 30)


@pytest.mark.parametrize("strips", [False, True])
def test_added_tokens_among_spaces(wordpiece, strips):
    engine = tokenizer(alphabet="x")
    names = ("x x", "xx", "[SEP]x", "xx x")
    engine.add_tokens([AddedToken(name, normalized=False, lstrip=strips, rstrip=strips) for name in names])
    blob = packed(engine)
    for length in range(1, 7):
        for parts in itertools.product((" ", "x", "<m>", "[SEP]", "\u2003"), repeat=length):
            text = "".join(parts)
            assert found(wordpiece, blob, [text], 40) == expected(engine, [text], 40), text


def test_added_tokens_beyond_the_model_count_in_the_vocabulary(engine, blob):
    assert (
        int.from_bytes(blob[28:32], "little")
        == engine.get_vocab_size()
        > engine.get_vocab_size(with_added_tokens=False)
    )


def test_many_threads_at_once(engine, blob, wordpiece, strings):
    engine.normalizer = normaliser(15)
    samples = list(strings(200, WORDS, seed=8))
    wanted = [expected(engine, [text], 64) for text in samples]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda text: found(wordpiece, flagged(blob, 15), [text], 64), samples)) == wanted


# What the native tokenizer refuses ---------------------------------------------------------------------

INVALID = {
    b"\x80": 0,
    b"a\xff": 1,
    b"\xc0\xaf": 0,
    b"12345678\xe0\x9f\xbf": 8,
    b"a\xed\xa0\x80": 1,
    b"\xf4\x90\x80\x80": 0,
}
INVALID |= {
    b"\xc3": 0,
    b"\xc3\xa9\xe2\x82": 2,
    b"\xf0\x9f\x91": 0,
    b"\xf5\x80\x80\x80": 0,
    b"\xe2\x82a": 0,
    b"\xf0\x8f\xbf\xbf": 0,
}


@pytest.mark.parametrize("text", INVALID)
def test_invalid_utf8_is_refused_with_its_place(blob, wordpiece, text):
    for call in (
        lambda: wordpiece.encode(blob, text, 3),
        lambda: wordpiece.encode_pair(blob, text, "a", 9),
        lambda: wordpiece.encode_pair(blob, "a", text, 9),
    ):
        with pytest.raises(DataError, match=f"not UTF-8 at byte {INVALID[text]}\\."):
            call()


@given(st.binary(max_size=40))
def test_bytes_are_refused_just_where_python_refuses_them(blob, wordpiece, data):
    try:
        data.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(DataError, match=f"at byte {error.start}\\."):
            wordpiece.encode(blob, data, 64)
    else:
        wordpiece.encode(blob, data, 64)


def test_a_limit_that_special_tokens_alone_exceed_is_refused(blob, wordpiece):
    assert wordpiece.encode(blob, "the cat", 2) == ([2, 3], True)
    assert wordpiece.encode_pair(blob, "", "the", 3) == ([2, 3, 3], [0, 0, 1], True)
    with pytest.raises(DataError, match="1 tokens has no room"):
        wordpiece.encode(blob, "", 1)
    with pytest.raises(DataError, match="2 tokens has no room"):
        wordpiece.encode_pair(blob, "", "", 2)


# What is not packed ------------------------------------------------------------------------------------


def template(single, pair, special=(("[CLS]", 2), ("[SEP]", 3))):
    return {"post_processor": processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(special))}


SINGLE, PAIR = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
FOREIGN = {
    "of kind 'BPE'": {"model": models.BPE()},
    "of kind 'Unigram'": {"model": models.Unigram([("a", 0.0)], 0)},
    "of kind 'WordLevel'": {"model": models.WordLevel({"[UNK]": 0}, "[UNK]")},
    "begin with '@@'": {"model": models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", continuing_subword_prefix="@@")},
    "unknown token '[UNK]' has no id": {"model": models.WordPiece({"a": 0}, unk_token="[UNK]")},
    "at most 1001 characters": {
        "model": models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=1001)
    },
    "at most 0 characters": {"model": models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=0)},
    "highest id is 4194304": {"model": models.WordPiece({"[UNK]": 1 << 22}, unk_token="[UNK]")},
    "normalizer is None": {"normalizer": None},
    "normalizer is Lowercase": {"normalizer": normalizers.Lowercase()},
    "normalizer is Sequence": {"normalizer": normalizers.Sequence([normalizers.BertNormalizer()])},
    "pre_tokenizer is None": {"pre_tokenizer": None},
    "pre_tokenizer is Whitespace": {"pre_tokenizer": pre_tokenizers.Whitespace()},
    "post_processor is None": {"post_processor": None},
    "post_processor is RobertaProcessing": {"post_processor": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))},
    "template is [('A', 0)": template("$A [SEP]", "$A [SEP] $B:1 [SEP]:1"),
    "template is [(2, 0), ('A', 0)]": template("[CLS] $A", "[CLS] $A $B:1"),
    "(2, 1)": template("[CLS]:1 $A [SEP]", PAIR),
    "('A', 1)": template("[CLS] $A:1 [SEP]", PAIR),
    "('B', 0)": template(SINGLE, "[CLS] $A [SEP] $B [SEP]"),
    "(3, 0), (3, 0), ('B', 1)": template(SINGLE, "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1"),
    "('B', 1), (4, 1)": template(SINGLE, "[CLS] $A [SEP] $B:1 [END]:1", [("[CLS]", 2), ("[SEP]", 3), ("[END]", 4)]),
}


@pytest.mark.parametrize("message", FOREIGN)
def test_what_the_native_tokenizer_does_not_do_is_not_packed(message):
    engine = tokenizer(alphabet="x")
    for role, part in FOREIGN[message].items():
        setattr(engine, role, part)
    refuse(engine.to_str().encode(), message)


@pytest.mark.parametrize("option", ["normalized", "single_word"])
def test_added_tokens_that_are_not_found_as_they_stand_are_not_packed(option):
    engine = tokenizer(alphabet="x")
    engine.add_tokens([AddedToken("<x>", **{"normalized": False} | {option: True})])
    refuse(engine.to_str().encode(), f"added token '<x>' is {option}")


@pytest.mark.parametrize("data", [b"", b"{}", b"[1", b"\xff", b'{"model": 3}'])
def test_what_is_no_tokenizer_is_not_packed(data):
    refuse(data, "The tokenizer cannot be read")


@pytest.mark.parametrize("name", [" ", " x", "x\u2003"])
def test_added_tokens_with_a_space_at_an_end_are_not_packed(name):
    """A neighbour with rstrip may take the space first, and then `tokenizers` drops the token or not, as it happens."""
    engine = tokenizer(alphabet="x")
    engine.add_tokens([AddedToken(name, normalized=False)])
    refuse(engine.to_str().encode(), f"added token {name!r} has a space at an end")


def test_added_tokens_may_have_256_bytes(wordpiece):
    engine = tokenizer(alphabet="x")
    engine.add_tokens([AddedToken("é" * 128, normalized=False)])
    text = "x" + "é" * 128 + "x " + "é" * 127
    assert found(wordpiece, packed(engine), [text], 40) == expected(engine, [text], 40)
    engine.add_tokens([AddedToken("é" * 128 + "!", normalized=False)])
    refuse(engine.to_str().encode(), "has 257 bytes")


def refuse(data, message):
    with pytest.raises(UnsupportedError) as raised:
        pack(data)
    lines = str(raised.value).splitlines()
    assert len(lines) == 2 and message in lines[0] and len(lines[1]) > 10, lines


def test_templates_equal_to_bert_are_packed_alike(engine, blob):
    other = tokenizer()
    other.post_processor = template(SINGLE, PAIR)["post_processor"]
    assert packed(other) == blob


def test_truncation_and_padding_of_the_file_are_ignored(blob):
    engine = tokenizer()
    engine.enable_truncation(7, stride=2, strategy="only_first", direction="left")
    engine.enable_padding(length=9)
    assert packed(engine) == blob


# The real tokenizer, and everything --------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(minilm):
    """The tokenizer of all-MiniLM-L6-v2, its words, and its packed form."""
    engine = Tokenizer.from_str(minilm.senses.tokenizer.decode())
    return engine, [piece.removeprefix("##") for piece in sorted(engine.get_vocab())], pack(minilm.senses.tokenizer)


@pytest.mark.network
def test_the_real_tokenizer_is_small_when_packed(real):
    assert len(real[2]) < 300_000


@pytest.mark.network
@pytest.mark.slow
def test_equals_the_real_tokenizer_on_random_texts(real, wordpiece, strings):
    """20,000 strings, or as many as TIGHTROPE_STRINGS says: a million take about three minutes."""
    engine, words, blob = real
    count = int(os.environ.get("TIGHTROPE_STRINGS", "20000"))
    assert compare(wordpiece, engine, blob, strings(count, words, seed=1)) == count


@pytest.mark.slow
def test_equals_a_tokenizer_that_spells_every_character(wordpiece, strings):
    """As many strings as the test above: here the ids tell just what each was normalised to, its order included."""
    spelt = [chr(code) for code in range(0x32000) if unicodedata.category(chr(code)) not in ("Cs", "Cc")]
    engine = tokenizer([form for character in spelt for form in (character, f"##{character}")], most=100)
    count = int(os.environ.get("TIGHTROPE_STRINGS", "20000"))
    assert compare(wordpiece, engine, packed(engine), strings(count, WORDS, seed=2)) == count


@pytest.mark.network
@pytest.mark.slow
def test_equals_the_real_tokenizer_on_all_texts_of_the_evaluation_data(real, wordpiece, data):
    engine, _, blob = real
    lines = {line for path in sorted(data.rglob("*")) for line in lines_of(path)}
    assert compare(wordpiece, engine, blob, sorted(lines)) > 100_000


def lines_of(path: Path):
    """The lines of a text file, and none of any other."""
    if not path.is_file() or path.suffix not in (".txt", ".tsv", ".csv", ".json", ".jsonl", ".md", ".conll", ".xml"):
        return []
    return [line[:2000] for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


@pytest.mark.slow
def test_equals_tokenizers_on_all_of_unicode(wordpiece):
    """Each character alone, inside a word, and between marks that move."""
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    engine = tokenizer([form for character in everything for form in (character, f"##{character}")], most=100)
    blob = packed(engine)
    for flags in (0, 3, 7, 11, 15):
        engine.normalizer, options = normaliser(flags), flagged(blob, flags)
        for start in range(0, len(everything), 64):
            text = " ".join(f"{item} a{item}\U0001d165{item}\u302e{item}" for item in everything[start : start + 64])
            assert found(wordpiece, options, [text], 4096) == expected(engine, [text], 4096)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["a", "the cat ", "\u0301", "\U0001d165\u302e", "[", "각", "的", "é#", "\0", "[SEP]"])
def test_ten_megabytes_take_no_longer_than_ten_times_one(blob, wordpiece, part):
    def seconds(size):
        text, start = part * (size // len(part.encode())), time.perf_counter()
        wordpiece.encode(blob, text, 10_000_000)
        return time.perf_counter() - start

    assert seconds(10_000_000) < 30 * min(seconds(1_000_000) for _ in range(3)) + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("part", ["a", "the cat ", "\U0001d165\u302e", "[SEP] ", "a\u0301\u302e "])
def test_equals_tokenizers_on_a_megabyte(engine, blob, wordpiece, part):
    engine.normalizer = normaliser(15)
    text = part * (1_000_000 // len(part.encode()))
    assert found(wordpiece, flagged(blob, 15), [text], 512) == expected(engine, [text], 512)
    assert found(wordpiece, flagged(blob, 15), [text], 10_000_000) == expected(engine, [text], 10_000_000)


@pytest.mark.slow
def test_the_tables_are_what_tokenizers_does():
    script = Path(__file__).parents[3] / "engine" / "tools" / "unicode_tables.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0
