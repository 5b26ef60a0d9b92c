"""Drops the words that a corpus never uses from the vocabulary and from its table.

Most of a small encoder is its table of word vectors, and an application uses a fraction of it. Text whose pieces are
all kept gives the very same ids but for their numbers, so the very same answers, bit for bit; `coverage` tells how much
of other text that is (cf. Abdaoui et al. 2020, "Load What You Need", arXiv:2010.05609).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tightrope.errors import DataError, RecipeError, UnsupportedError
from tightrope.workshop.model import Model, Table, TextSenses, text_senses
from tightrope.workshop.numerics.quantized import Quantized, Weight
from tightrope.workshop.observe import Observer
from tightrope.workshop.vocabulary import Vocabulary, characters, engine, prune, used

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`corpus`: a UTF-8 text file, a text a line; without one, the calibration texts.

    `letters`: keep single characters, so that a word outside the corpus is spelt and not lost. `common`: keep this
    many pieces from the front of the vocabulary too, which tokenizers order by how common a piece is.
    """

    corpus: str = ""
    letters: bool = True
    common: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of given texts a pruned vocabulary cuts exactly as the original does."""

    texts: int
    covered_texts: float
    """The share of texts that get the very same pieces, and so the very same answer."""
    covered_tokens: float
    """The share of the original's pieces, counted as often as they occur, that are kept."""
    lost: Mapping[str, int]
    """The most frequent pieces that are lost, and how often they occur."""
    example: str | None
    """The first text that is cut differently."""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model without the pieces, and the rows of its table, that the corpus does not use.

    Raises `DataError` for a corpus that cannot be read, `UnsupportedError` for a tokenizer or table that cannot be cut.
    """
    if options.common < 0:
        raise RecipeError(f"common is {options.common}.", hint="Give how many pieces to keep, zero or more.")
    texts = _corpus(options.corpus, observer)
    table = _vocabulary_table(model)
    senses = text_senses(model)
    tokenizer = senses.tokenizer
    keep = used(tokenizer, [*texts, *senses.prompts.values()])
    if options.letters:
        keep |= characters(tokenizer, texts)
    vocabulary = prune(tokenizer, keep | set(range(min(options.common, len(engine(tokenizer).get_vocab())))))
    cut = _rows(model.weights[table.weight], vocabulary, table.weight)
    return model.rewrite(weights={table.weight: cut}, senses=replace(senses, tokenizer=vocabulary.tokenizer))


def reads(options: Options) -> tuple[Path, ...]:
    """The files whose content the result depends on."""
    return (Path(options.corpus),) if options.corpus else ()


def coverage(original: TextSenses, pruned: TextSenses, texts: Sequence[str]) -> Coverage:
    """Hold the pieces that both tokenizers see of each text, cut at the model's limit, against each other."""
    before, after = _encoded(original, texts), _encoded(pruned, texts)
    kept = set(engine(pruned.tokenizer).get_vocab())
    counts = Counter(piece for pieces in before for piece in pieces)
    lost = Counter({piece: count for piece, count in counts.items() if piece not in kept})
    differ = [index for index, pieces in enumerate(before) if pieces != after[index]]
    return Coverage(
        texts=len(texts),
        covered_texts=1 - len(differ) / max(len(texts), 1),
        covered_tokens=1 - lost.total() / max(counts.total(), 1),
        lost=dict(lost.most_common(20)),
        example=texts[differ[0]] if differ else None,
    )


def _encoded(senses: TextSenses, texts: Sequence[str]) -> list[list[str]]:
    loaded: Any = engine(senses.tokenizer)
    loaded.enable_truncation(senses.max_length)
    return [[loaded.id_to_token(number) for number in item.ids] for item in loaded.encode_batch(list(texts))]


def _corpus(path: str, observer: Observer) -> list[str]:
    if not path:
        texts = list(observer.texts)
    else:
        try:
            texts = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(
                f"The corpus {path} cannot be read: {error.strerror}.", hint="Give vocab(corpus=a text file)."
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(f"The corpus {path} is not UTF-8: {error.reason}.", hint="Save it as UTF-8.") from error
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(
            f"The corpus {path or 'of calibration texts'} is empty.", hint="Give vocab(corpus=a text file) with texts."
        )
    return texts


def _vocabulary_table(model: Model) -> Table:
    table = next((item for item in model.tables() if item.is_vocabulary), None)
    if table is None:
        raise UnsupportedError("The model has no table of token ids to prune.", hint="Leave out vocab.")
    return table


def _rows(weight: Weight, vocabulary: Vocabulary, name: str) -> Weight:
    """The chosen rows of a table, as it is stored."""
    rows = vocabulary.rows
    if rows[-1] >= weight.shape[0]:
        raise UnsupportedError(
            f"{name} has {weight.shape[0]} rows, but the tokenizer has an id {rows[-1]}.",
            hint="Give a model and a tokenizer that belong together.",
        )
    if not isinstance(weight, Quantized):
        cut: Weight = weight[rows]
        return cut
    if weight.axis == 0 and weight.block is not None:
        raise UnsupportedError(f"{name} shares its scales among rows.", hint="Put vocab before embedding.")
    by_row = weight.axis == 0 or weight.block is not None
    zero = weight.zero_point
    return replace(
        weight,
        codes=weight.codes[rows],
        scale=weight.scale[rows] if by_row else weight.scale,
        zero_point=zero[rows] if by_row and zero is not None else zero,
    )
