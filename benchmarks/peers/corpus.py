"""The texts of the benchmark: in `$TIGHTROPE_BENCH`, or a folder beside the project, of which they are no part."""

import os
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.peers.adapters.direct import MAX_TOKENS
from tightrope.errors import DataError

LENGTHS = (12, 32, 128)
SHORT = "How do I reset the password of a router"  # 12 tokens with the two that mark its ends


@dataclass(frozen=True, slots=True)
class Corpus:
    """`texts` are measured; `calibration` are other ones, which recipes may look at; `probes` one text a length."""

    texts: tuple[str, ...]
    calibration: tuple[str, ...]
    lengths: tuple[int, ...]
    probes: dict[int, str]


def corpus_folder() -> Path:
    """Where the texts are. Raises `DataError` when they are nowhere."""
    default = Path(__file__).parents[3] / "shared" / "bench" / "peers"
    folder = Path(os.environ.get("TIGHTROPE_BENCH", default))
    for name in ("corpus.txt", "calib.txt"):
        if not (folder / name).is_file():
            raise DataError(
                f"The benchmark has no texts: {folder / name} is missing.",
                hint="Set TIGHTROPE_BENCH to a folder with corpus.txt (texts to measure, one a line) and calib.txt.",
            )
    return folder


def read_corpus(folder: Path, tokenizer_file: Path) -> Corpus:
    """Read the texts, count their tokens and cut the probes."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = _lines(folder / "corpus.txt")
    lengths = tuple(min(len(item.ids), MAX_TOKENS) for item in tokenizer.encode_batch(list(texts)))
    probes = {length: probe(tokenizer, (SHORT, *texts), length) for length in LENGTHS}
    return Corpus(texts, _lines(folder / "calib.txt"), lengths, probes)


def probe(tokenizer: Tokenizer, texts: tuple[str, ...], length: int) -> str:
    """The first text that has exactly `length` tokens, or can be cut between words to have them."""

    def count(words: list[str]) -> int:
        return len(tokenizer.encode(" ".join(words)).ids)

    for text in texts:
        words = text.split()
        while count(words) > length:
            words.pop()
        if count(words) == length:
            return " ".join(words)
    raise DataError(f"No text can be cut to {length} tokens.", hint="Give a corpus with longer texts.")


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
