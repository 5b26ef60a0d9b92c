"""Fifty thousand real English texts: sentences that people compared, abstracts of papers, titles of films.

The evaluation data (`$TIGHTROPE_DATA`) is read where it lies; nothing is copied. The order is that of the texts'
digests, so that any part is a fair sample of all, and the same data gives the same texts on any machine.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tightrope.errors import DataError

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SHORTEST, _LONGEST = 20, 600


def data_folder() -> Path:
    """Where the evaluation data is. Raises `DataError` when it is nowhere."""
    folder = Path(os.environ.get("TIGHTROPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise DataError(f"There is no evaluation data: {folder} is missing.", hint="Set TIGHTROPE_DATA to its folder.")
    return folder


def sentences(count: int) -> list[str]:
    """So many different sentences. Raises `DataError` if the sources hold fewer."""
    folder = data_folder()
    found = set[str]()
    for source in (_similarity(folder), _abstracts(folder), _films(folder)):
        found.update(text for text in map(_plain, source) if _SHORTEST <= len(text) <= _LONGEST)
    if len(found) < count:
        raise DataError(f"There are {len(found)} texts, not {count}.", hint="Measure fewer.")
    return sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())[:count]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _similarity(folder: Path) -> Iterator[str]:
    """Sentences of STS-B and of the SemEval years and paraphrases beside it."""
    for name in ("stsbenchmark", "sts12_16_msrp"):
        for path in sorted((folder / name).rglob("*.[tc]s[v]")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                yield from (cell for cell in line.split("\t") if " " in cell)


def _abstracts(folder: Path) -> Iterator[str]:
    text = (folder / "cranfield_retrieval" / "cran.all.1400.xml").read_text(encoding="utf-8")
    for document in ElementTree.fromstring(f"<all>{text}</all>").iter("doc"):
        yield from _SENTENCE.split(" ".join((document.findtext("text") or "").split()))


def _films(folder: Path) -> Iterator[str]:
    with (folder / "movielens_latest_small" / "movies.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield f"{row['title']}, {row['genres'].replace('|', ', ')}"


def paraphrases() -> list[tuple[str, str]]:
    """Pairs of sentences of the news that say the same (Microsoft's paraphrases), no sentence twice."""
    folder = data_folder() / "sts12_16_msrp" / "data" / "para" / "msr"
    seen, found = set[str](), list[tuple[str, str]]()
    for path in sorted(folder.glob("*.tsv")):
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            cells = line.split("\t")
            if len(cells) == 5 and cells[0] == "1" and not seen.intersection(cells[3:]):
                seen.update(cells[3:])
                found.append((cells[3], cells[4]))
    return found
