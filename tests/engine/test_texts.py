"""Texts of every kind through `tightrope.open`: each gets an answer, the same alone and in company."""

import numpy as np
import pytest

import tightrope
from tightrope.errors import DataError, EngineError

TEXTS = (
    "",
    " ",
    " \t\r\n\u3000\u2028 ",
    "\0",
    "the\0cat",
    "😀",
    "👨\u200d👩\u200d👧 👍🏽 🇩🇪",
    "\ud800",
    "the \udfff cat \ud83d",
    "é e\u0301 \u0301\u0301\u0301",
    "漢字かな각",
    "a" * 10_000,
    "[CLS][SEP][MASK] [PAD]",
    "the cat sat",
)


@pytest.fixture
def embedder(sealed):
    with tightrope.open(sealed("rotated").path) as model:
        yield model


def test_every_text_has_an_answer_the_same_alone_and_in_company(embedder):
    together = embedder.embed(TEXTS)
    assert np.isfinite(together).all() and np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert together.tobytes() == alone.tobytes()


def test_what_is_no_text_at_all_is_as_empty_as_nothing(embedder):
    empty = embedder.embed([""])
    for text in (" ", " \t\r\n\u3000\u2028 ", "\0", "\u200d\ufeff"):
        assert embedder.embed([text]).tobytes() == empty.tobytes()


def test_a_lone_surrogate_is_a_replacement_character(embedder):
    assert embedder.embed(["the \ud800 cat"]).tobytes() == embedder.embed(["the \ufffd cat"]).tobytes()


def test_no_texts_are_no_answers(embedder):
    assert embedder.embed([]).shape == (0, 32)


def test_ten_megabytes_are_cut_and_counted(embedder):
    assert embedder.embed(["the cat " * 1_250_000]).tobytes() == embedder.embed(["the cat " * 100]).tobytes()
    assert embedder.truncated == 2
    assert embedder.embed(["x" * 10_000_000, "\u0301" * 5_000_000, " " * 10_000_000, "the"]).shape == (4, 32)


def test_pairs_of_anything_have_scores(sealed):
    with tightrope.open(sealed("scorer").path) as scorer:
        pairs = [(first, second) for first in TEXTS for second in ("", "the cat", "z" * 500)]
        scores = scorer.score(pairs)
        assert scores.shape == (len(pairs),) and ((scores > 0) & (scores < 1)).all()
        assert scores.tobytes() == b"".join(scorer.score([pair]).tobytes() for pair in pairs)
        with pytest.raises(DataError):
            scorer.score([("the", None)])


def test_a_closed_model_says_so(sealed):
    model = tightrope.open(sealed("rotated").path)
    model.close()
    with pytest.raises(EngineError, match="closed"):
        model.embed(["the cat"])


MANY = """
import resource, sys
import tightrope
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with tightrope.open(sys.argv[1]) as model:
    texts = [f"the cat sat {i % 977}" for i in range(100_000)]
    model.embed(texts[:10_000])
    before = peak()
    rows = model.embed(texts)
    print(peak() - before - rows.nbytes)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("plain_build")
def test_a_hundred_thousand_texts_take_no_more_memory_than_ten_thousand(child, sealed):
    done = child(MANY, sealed("rotated").path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 << 20
