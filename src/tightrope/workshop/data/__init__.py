"""Data: files with texts and labels, read into samples. What is broken is refused with its line, never guessed.

.txt                text, one a line
.tsv .csv .jsonl    texts, or pairs with a score or a label (see `tables`)
a folder            a retrieval collection: documents, queries, judgements (see `collections`);
                    for a model of images, these and their labels (see `images`)
"""

from pathlib import Path
from typing import Literal

from tightrope.errors import DataError
from tightrope.samples import LabelledImages, LabelledPairs, Retrieval, ScoredPairs, Texts
from tightrope.workshop.data.collections import is_judgements_of_collection, read_collection
from tightrope.workshop.data.images import read_images
from tightrope.workshop.data.split import split, split_images
from tightrope.workshop.data.tables import SUFFIXES, read_table

__all__ = ["AnySamples", "Kind", "TextSamples", "read", "read_images", "split", "split_images"]

TextSamples = Texts | ScoredPairs | LabelledPairs | Retrieval
AnySamples = TextSamples | LabelledImages
Kind = Literal["texts", "sts", "pairs", "retrieval"]


def read(path: Path | str, kind: Kind | None = None) -> TextSamples:
    """Read a file or folder; what it holds is recognised unless `kind` says it.

    Raises `DataError` with the line for columns that are missing, an empty file, bytes that are not UTF-8, NUL,
    scores that are no numbers or out of range, labels of one class only, quotes that do not close, and for a
    file of more than 2 GB.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no data at {path}.", hint="Check the path; the formats are in docs/guide/data.md.")
    if path.is_dir() or is_judgements_of_collection(path):
        if kind not in (None, "retrieval"):
            raise DataError(f"{path} is a retrieval collection, not {kind}.", hint="Give a file of pairs or texts.")
        return read_collection(path)
    if kind == "retrieval":
        raise DataError(
            f"{path} is a file, not a retrieval collection.", hint="Give a folder of documents, queries and judgements."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'!r}, which is not understood.",
            hint=f"Known: {', '.join(SUFFIXES)}.",
        )
    return read_table(path, kind)
