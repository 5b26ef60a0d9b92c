"""Answers, and "I don't know": what a threshold promises is kept."""

from collections.abc import Iterator

import numpy as np
import pytest

from tightrope.device.apps import faq_bot
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.index.opened import Index
from tightrope.errors import DataError

WIDTH = 48


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


@pytest.fixture
def index(tmp_path) -> Iterator[Index]:
    with create(tmp_path / "faq.index", digest="ab" * 32, width=WIDTH) as opened:
        entries = [Document(key=f"q{n}", passages=(f"question {n}",), answer=f"answer {n}") for n in range(200)]
        opened.add(entries, vectors(200, 0))
        yield opened


def test_a_question_that_is_near_is_answered_and_a_far_one_is_not(index):
    faq_bot.calibrate(index, vectors(100, 1))
    known = vectors(200, 0)[17] + 0.3 * vectors(1, 5)[0]
    found = faq_bot.answered(index, known)
    assert found.text == "answer 17" and found.score > found.threshold and len(found.hits) == 3
    strange = faq_bot.answered(index, -vectors(200, 0).sum(0))
    assert strange.text is None and strange.score < strange.threshold and strange.hits


def test_the_share_of_wrong_answers_is_what_was_asked_for(index):
    shares = []
    for seed in range(20):
        faq_bot.calibrate(index, vectors(60, 100 + seed), wrong=0.1)
        asked = [faq_bot.answered(index, vector, k=1) for vector in vectors(40, 500 + seed)]
        shares.append(np.mean([answer.text is not None for answer in asked]))
    assert 0.02 < np.mean(shares) < 0.14  # 800 questions, 0.1 promised at most: two standard errors of both samplings


def test_without_questions_entries_are_asked_of_the_others(index):
    threshold = faq_bot.calibrate(index)
    assert 0 < threshold < 0.9 and index.about.settings["threshold_of"] == 200
    assert faq_bot.answered(index, vectors(200, 0)[5]).text == "answer 5"


def test_an_index_without_a_threshold_answers_nothing(index):
    with pytest.raises(DataError, match="no threshold") as caught:
        faq_bot.answered(index, vectors(1, 0)[0])
    assert "calibrate" in caught.value.hint


@pytest.mark.parametrize(("count", "wrong"), [(5, 0.05), (0, 0.5), (50, 0.0), (50, 1.0), (50, float("nan"))])
def test_too_few_questions_show_nothing(count, wrong):
    with pytest.raises(DataError):
        faq_bot.conformal([0.5] * count, wrong)
