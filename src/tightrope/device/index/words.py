"""Full-text search: how a text enters SQLite's FTS5, and how a question is put to it.

Words are stemmed (Porter) and ranked by BM25. Scripts that are written without spaces are divided into characters, and
a question asks for pairs of neighbours, so that Chinese, Japanese and Thai are found without a dictionary.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_CHARACTER = re.compile(f"([{_UNSPACED}])")
_RUN = re.compile(f"[{_UNSPACED}]+|[^\\W_{_UNSPACED}]+")
MOST_WORDS = 64
"""A longer question is asked for its first words: each costs a pass over the documents that have it."""


def indexed(text: str) -> str:
    """The text as the full-text index takes it.

    >>> indexed("the 中文 cat").split()
    ['the', '中', '文', 'cat']
    """
    return _CHARACTER.sub(r" \1 ", text.replace("\0", " "))


def terms(text: str) -> list[str]:
    """The words that a question asks for, each once.

    >>> terms('NOT the "cat*" 中文字 the')
    ['NOT', 'the', 'cat', '中 文', '文 字']
    """
    found = dict.fromkeys(term for run in _RUN.findall(text) for term in _terms(run))
    return list(found)[:MOST_WORDS]


def expression(words: Sequence[str]) -> str:
    """What finds any of these in FTS5's language; nothing in them is taken for an operator.

    >>> expression(["NOT", "中 文"])
    '"NOT" OR "中 文"'
    """
    return " OR ".join(f'"{word}"' for word in words)


def _terms(run: str) -> list[str]:
    if not _CHARACTER.match(run):
        return [run]
    return [" ".join(pair) for pair in pairwise(run)] or [run]
