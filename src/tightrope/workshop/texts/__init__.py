"""The built-in texts: for calibration and for fidelity where nobody gave data. Written for this purpose.

One file a language, `kind<TAB>text` on each line. Even lines (counted from zero) are what the search sees, odd
lines what the report quotes.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

from tightrope.errors import DataError

LANGUAGES = {"en": "english.tsv", "zh": "chinese.tsv"}
"""The languages that have texts, by their ISO 639 codes."""

Half = Literal["seen", "report"]


def kinds_and_texts(language: str) -> tuple[tuple[str, str], ...]:
    """All texts of one language with their kinds (question, prose, title, log …)."""
    if language not in LANGUAGES:
        raise DataError(
            f"There are no built-in texts in {language!r}.",
            hint=f"Known: {', '.join(LANGUAGES)}. Give texts of your own with --data.",
        )
    lines = (files("tightrope.workshop.texts") / LANGUAGES[language]).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line]
    return tuple((kind, text) for kind, text in pairs)


def default_texts(languages: Sequence[str], half: Half) -> tuple[str, ...]:
    """One half of the texts of these languages. Raises `DataError` for a language without texts, or for none."""
    if not languages:
        raise DataError("It is not known which languages the model knows.", hint="Give texts of your own with --data.")
    start = 0 if half == "seen" else 1
    return tuple(text for language in languages for _, text in kinds_and_texts(language)[start::2])
