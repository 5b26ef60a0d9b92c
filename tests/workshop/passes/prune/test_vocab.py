from dataclasses import replace

import numpy as np
import pytest

from tightrope.device.senses.text import Tokenizer
from tightrope.errors import DataError, RecipeError, UnsupportedError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import apply_step, compress
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.prune.vocab import Options, apply, coverage
from tightrope.workshop.reference import opened, reference

TABLE = "embeddings.word_embeddings.weight"
CORPUS = ("the cat", "cab")


def answers(model, texts, max_length=64):
    """One text at a time: batching is not what is compared."""
    session = opened(reference(model), threads=1)
    found = []
    for text in texts:
        ids, mask = Tokenizer(model.senses.tokenizer, max_length).encode([text]).ids.padded()
        found.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0][0])
    return np.stack(found)


@pytest.fixture
def observer(tiny_bert):
    return Observer(tiny_bert, CORPUS)


def test_the_table_keeps_the_rows_of_the_pieces_that_are_kept(tiny_bert, observer):
    model = apply(tiny_bert, Options(letters=False), observer)
    kept = Tokenizer(model.senses.tokenizer, 64)
    for text in CORPUS:
        before = Tokenizer(tiny_bert.senses.tokenizer, 64).encode([text]).ids.values
        after = kept.encode([text]).ids.values
        np.testing.assert_array_equal(model.weights[TABLE][after], tiny_bert.weights[TABLE][before])
    # [UNK] [CLS] [SEP], and: the, cat, c, ##a, ##b
    assert model.weights[TABLE].shape == (8, 32)


@pytest.mark.engine
@pytest.mark.parametrize("form", ["network", "graph"])
def test_covered_text_gets_the_same_bits(tiny_bert, observer, form):
    original = tiny_bert if form == "network" else lower(tiny_bert)
    pruned = apply(original, Options(letters=False), observer)
    texts = ["cab", "the cat the cab", "cat", "", "the the"]
    assert coverage(original.senses, pruned.senses, texts).covered_texts == 1
    assert answers(original, texts).tobytes() == answers(pruned, texts).tobytes()
    assert not np.array_equal(answers(original, ["dog"]), answers(pruned, ["dog"]))


def test_coverage_counts_texts_and_pieces_and_shows_what_is_lost(tiny_bert, observer):
    pruned = apply(tiny_bert, Options(letters=False), observer)
    found = coverage(tiny_bert.senses, pruned.senses, ["the cat", "the sat", "cab", "sat sat"])
    assert found.texts == 4
    assert found.covered_texts == 0.5
    # With [CLS] and [SEP]: 4 + 4 + 5 + 4 pieces, of which "sat" thrice is lost.
    assert found.covered_tokens == pytest.approx(14 / 17)
    assert found.lost == {"sat": 3}
    assert found.example == "the sat"
    assert coverage(tiny_bert.senses, tiny_bert.senses, []).covered_texts == 1


def test_common_pieces_and_prompts_are_kept(tiny_bert, observer):
    asked = tiny_bert.rewrite(senses=replace(tiny_bert.senses, prompts={"query": "sat: "}))
    pieces = Tokenizer(apply(asked, Options(letters=False), observer).senses.tokenizer, 64)
    assert pieces.encode(["sat"]).ids.values.tolist() != pieces.encode(["zzz"]).ids.values.tolist()
    assert apply(tiny_bert, Options(letters=False, common=20), observer).weights[TABLE].shape[0] == 20 + 4
    assert apply(tiny_bert, Options(common=10**6), observer).weights[TABLE].shape[0] == 60


@pytest.mark.parametrize(("axis", "block"), [(0, None), (1, None), (1, 16)])
def test_a_quantised_table_is_cut_as_it_is(tiny_bert, observer, axis, block):
    table = np.asarray(tiny_bert.weights[TABLE])
    rounded = round_to_nearest(table if axis == 0 or block else table.T.copy(), bits=4, block=block, symmetric=False)
    rounded = rounded if axis == 0 or block else rounded.transpose()
    assert (rounded.axis, rounded.shape) == (axis, (60, 32))
    cut = apply(tiny_bert.rewrite(weights={TABLE: rounded}), Options(letters=False), observer).weights[TABLE]
    plain = apply(tiny_bert.rewrite(weights={TABLE: rounded.dequantize()}), Options(letters=False), observer)
    assert isinstance(cut, Quantized)
    np.testing.assert_array_equal(values(cut), plain.weights[TABLE])


def test_scales_shared_among_rows_are_refused(tiny_bert, observer):
    table = np.asarray(tiny_bert.weights[TABLE])
    shared = round_to_nearest(table.T.copy(), bits=4, block=16, symmetric=True).transpose()
    with pytest.raises(UnsupportedError, match="shares its scales"):
        apply(tiny_bert.rewrite(weights={TABLE: shared}), Options(), observer)


def test_a_table_that_is_too_short_is_refused(tiny_bert, observer):
    short = tiny_bert.rewrite(weights={TABLE: np.asarray(tiny_bert.weights[TABLE])[:20]})
    with pytest.raises(UnsupportedError, match="has 20 rows"):
        apply(short, Options(), observer)


def test_a_corpus_is_read_from_a_file_and_its_content_is_in_the_digest(tiny_bert, observer, tmp_path):
    corpus = tmp_path / "corpus.txt"
    (step,) = Recipe.parse(f'vocab(corpus="{corpus}", letters=false)').steps
    corpus.write_text("sat\n\nthe\n", encoding="utf-8")
    first = apply_step(tiny_bert, step, observer)
    assert first.weights[TABLE].shape[0] == 5
    assert apply_step(tiny_bert, step, observer).digest == first.digest
    corpus.write_text("sat\nthe cat\n", encoding="utf-8")
    assert apply_step(tiny_bert, step, observer).digest != first.digest


@pytest.mark.engine
def test_later_steps_calibrate_on_the_original(tiny_bert, observer):
    steps = Recipe.parse("vocab(letters=false) + int4(method=gptq, block=16)").steps
    model = compress(tiny_bert, steps, observer)
    other = compress(tiny_bert, steps[::-1], observer)
    assert answers(model, CORPUS).tobytes() == answers(other, CORPUS).tobytes()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"\xff\xfe\xfa", "not UTF-8"), (b"\n \n", "is empty")]
)
def test_a_corpus_that_cannot_be_used_says_why(tiny_bert, observer, tmp_path, content, said):
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    with pytest.raises(DataError, match=said):
        apply(tiny_bert, Options(corpus=str(corpus)), observer)


def test_no_texts_and_no_corpus_is_no_corpus(tiny_bert):
    with pytest.raises(DataError, match="calibration texts is empty"):
        apply(tiny_bert, Options(), Observer(tiny_bert, ()))


def test_lone_surrogates_in_texts_do_no_harm(tiny_bert):
    observer = Observer(tiny_bert, ("the \ud800 cat",))
    assert apply(tiny_bert, Options(letters=False), observer).weights[TABLE].shape[0] == 5


def test_a_number_of_common_pieces_below_zero_is_refused(tiny_bert, observer):
    with pytest.raises(RecipeError, match="common is -1"):
        apply(tiny_bert, Options(common=-1), observer)
