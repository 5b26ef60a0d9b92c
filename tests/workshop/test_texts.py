"""The built-in texts: enough, of mixed kinds and lengths, no templates, no near-duplicates, halves disjoint."""

from collections import Counter

import numpy as np
import pytest

from tightrope.device.senses.text import Tokenizer
from tightrope.errors import DataError
from tightrope.workshop.network import Network
from tightrope.workshop.texts import LANGUAGES, default_texts, kinds_and_texts

KINDS = {"question", "prose", "title", "log", "address", "comment", "message", "instruction"}

languages = pytest.mark.parametrize("language", sorted(LANGUAGES))


def shingles(text: str, size: int) -> frozenset[str]:
    return frozenset(text[place : place + size] for place in range(max(1, len(text) - size + 1)))


@languages
def test_there_are_enough_of_every_kind(language: str) -> None:
    found = kinds_and_texts(language)
    assert len(found) >= 400
    counts = Counter(kind for kind, _ in found)
    assert set(counts) == KINDS
    assert min(counts.values()) >= 40
    assert all(text == text.strip() and text.isprintable() for _, text in found)


@languages
def test_halves_are_disjoint_and_alike(language: str) -> None:
    seen, report = default_texts([language], "seen"), default_texts([language], "report")
    assert not set(seen) & set(report)
    assert sorted((*seen, *report)) == sorted(text for _, text in kinds_and_texts(language))
    kinds = {text: kind for kind, text in kinds_and_texts(language)}
    for half in (seen, report):
        assert {kinds[text] for text in half} == KINDS


@languages
def test_no_two_texts_are_near_duplicates(language: str) -> None:
    """Jaccard similarity of character shingles (4 letters, 2 for Chinese) at most 0.5, of any two texts."""
    size = 2 if language == "zh" else 4
    sets = [shingles(text.lower(), size) for _, text in kinds_and_texts(language)]
    places = {shingle: place for place, shingle in enumerate(sorted(frozenset().union(*sets)))}
    rows = np.zeros((len(sets), len(places)), np.float32)
    for row, items in zip(rows, sets, strict=True):
        row[[places[item] for item in items]] = 1
    shared = rows @ rows.T
    sizes = np.diag(shared)
    jaccard = shared / (sizes[:, None] + sizes - shared)
    np.fill_diagonal(jaccard, 0)
    assert jaccard.max() <= 0.5


@languages
def test_no_template_makes_many_texts(language: str) -> None:
    """No beginning of five words (eight characters of Chinese) is shared by more than three texts."""
    texts = [text for _, text in kinds_and_texts(language)]
    if language == "zh":
        starts = Counter(text[:8] for text in texts)
    else:
        starts = Counter(" ".join(text.lower().split()[:5]) for text in texts if len(text.split()) >= 5)
    assert starts.most_common(1)[0][1] <= 3


def test_a_language_without_texts_and_no_language_at_all() -> None:
    with pytest.raises(DataError, match="no built-in texts in 'fr'"):
        default_texts(["fr"], "seen")
    with pytest.raises(DataError, match="not known which languages"):
        default_texts([], "seen")
    assert len(default_texts(["en", "zh"], "seen")) > len(default_texts(["en"], "seen"))


@pytest.mark.network
def test_english_lengths_run_from_3_to_250_tokens(minilm: Network) -> None:
    tokenizer = Tokenizer(minilm.senses.tokenizer, 1000)
    lengths = tokenizer.encode([text for _, text in kinds_and_texts("en")]).ids.lengths - 2  # without [CLS] and [SEP]
    assert lengths.min() >= 3 and lengths.max() <= 250
    assert (lengths <= 8).sum() >= 20 and (lengths >= 100).sum() >= 20
