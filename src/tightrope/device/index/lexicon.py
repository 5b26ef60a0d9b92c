"""Search by words: which of a question's words are asked for, so that a large index answers in time.

A word that many passages have tells little and costs most. BM25 is computed for few passages, and as exactly for those
as if all had been looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tightrope.device.index.store import Store
from tightrope.device.index.words import terms

COMMON_SHARE, COMMON_PASSAGES = 0.2, 5000
"""A word is common in this share of the passages, and never in fewer than so many."""
CANDIDATES = 1000
"""Passages with rare words, among which the best by all words are looked for."""
KNOWN = 4096


class Lexicon:
    """How common words are in one store, and the passages that have them. Safe for use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._frequencies: dict[str, int] = {}

    def matching(self, text: str, k: int, where: Mapping[str, Any] | None, passages: int) -> list[tuple[int, float]]:
        """Slots and BM25 scores of `k` of so many passages, the best first; none for a text without words.

        Words that are common are left out where rarer ones remain, and where the rarest have been found in enough
        passages, the others only add to the scores of those.
        """
        words, common = terms(text), max(COMMON_PASSAGES, int(COMMON_SHARE * passages))
        rare = [word for word in words if self._frequency(word, common) < common] or words
        return self._store.matching(rare, k, where, self.telling(rare, common, k)) if rare else []

    def telling(self, words: Sequence[str], common: int, k: int) -> list[str]:
        """The rarest of the words that are found in enough passages, and not in too many; none if all are needed."""
        chosen, found = list[str](), 0
        for word in sorted(words, key=lambda word: self._frequency(word, common)):
            more = self._frequency(word, common)
            if found >= 2 * k and found + more > CANDIDATES:
                return chosen
            chosen.append(word)
            found += more
        return []

    def _frequency(self, word: str, most: int) -> int:
        """How many passages have a word, counted once and remembered for a while: it changes slowly."""
        known = self._frequencies.get(word)
        if known is None:
            if len(self._frequencies) >= KNOWN:
                self._frequencies.clear()
            known = self._frequencies[word] = self._store.frequency(word, most)
        return known
