"""What the pages of docs/techniques promise of int4, mixed and vocab, on the real MiniLM and the built-in texts."""

import numpy as np
import pytest

from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.network import lower
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes.mixed import sensitivity
from tightrope.workshop.passes.prune.vocab import coverage
from tightrope.workshop.texts import default_texts
from tightrope.workshop.verify.plain import Plain

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]
TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def texts():
    return default_texts(("en",), "report")[:60]


@pytest.fixture(scope="module")
def observer(minilm):
    return Observer(minilm, default_texts(("en",), "seen")[:96])


def answered(model, texts):
    answers = np.zeros((len(texts), model.task.width), np.float32)
    for rows, _, (batch,) in Plain(lower(model), threads=1).run(texts):
        answers[rows] = batch
    return answers


def cosines(minilm, recipe, observer, texts):
    model = compress(minilm, Recipe.parse(recipe).steps, observer)
    return (answered(model, texts) * answered(minilm, texts)).sum(1)


def test_compensation_halves_the_loss_of_plain_rounding(minilm, observer, texts):
    nearest = cosines(minilm, "int4(method=nearest)", observer, texts)
    compensated = cosines(minilm, "int4", observer, texts)
    assert 1 - compensated.mean() < 0.6 * (1 - nearest.mean())
    assert compensated.min() > 0.95


def test_mixed_stands_between_four_and_eight_bits(minilm, observer, texts):
    mixed = cosines(minilm, "mixed(loss=0.001, method=nearest)", observer, texts)
    assert 0.001 / 4 < 1 - mixed.mean() < 0.001 * 4
    layers = sensitivity(minilm, observer)
    assert len(layers) == 36
    assert max(layers.values()) > 10 * np.median(list(layers.values()))


def test_a_table_cut_to_a_corpus_answers_it_bit_for_bit(minilm, observer, texts, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")
    pruned = compress(minilm, Recipe.parse(f'vocab(corpus="{corpus}", common=10000)').steps, observer)
    assert pruned.weights[TABLE].shape[0] < 0.6 * minilm.weights[TABLE].shape[0]
    assert coverage(minilm.senses, pruned.senses, texts).covered_texts == 1
    assert answered(minilm, texts).tobytes() == answered(pruned, texts).tobytes()
    special = pruned.senses.tokenizer.decode()
    assert '"[CLS]":{"id":"[CLS]","ids":[' in special
    other = coverage(minilm.senses, pruned.senses, default_texts(("en",), "seen"))
    assert 0.5 < other.covered_tokens < 1
    assert other.lost
