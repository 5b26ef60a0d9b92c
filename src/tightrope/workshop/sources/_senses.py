"""How a model folder turns text into ids: its tokenizer without padding, its limit and its prompts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tightrope.errors import SourceError
from tightrope.workshop.model import Model, TextSenses, text_senses
from tightrope.workshop.sources._files import FETCH_AGAIN, brief, optional_json, read_json

OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types whose positions begin after the padding token's id."""

_BELONGS = "Give the tokenizer.json that belongs to the model."
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read(path: Path, config: Mapping[str, Any], *, wrapper: Path | None = None) -> TextSenses:
    """The tokenizer and its settings out of `path`, the prompts out of `wrapper`.

    `sentence_bert_config.json` (max_seq_length, do_lower_case), `tokenizer_config.json` and the prompts of
    `config_sentence_transformers.json` are honoured. Raises `SourceError` if anything is missing or unusable.
    """
    sentence = optional_json(path / "sentence_bert_config.json")
    settings = optional_json(path / "tokenizer_config.json")
    tokenizer = _tokenizer(path, config, settings, lower=sentence.get("do_lower_case") is True)
    limit = sentence.get("max_seq_length") or settings.get("model_max_length")
    positions = _positions(config)
    if limit is None:
        limit = positions
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 4:
        raise SourceError(f"{path} limits texts to {limit!r} tokens.", hint="Give a max_seq_length of at least 4.")
    prompts, default = _prompts(wrapper or path)
    return TextSenses(
        tokenizer=tokenizer, max_length=int(min(limit, positions)), prompts=prompts, default_prompt=default
    )


def _positions(config: Mapping[str, Any]) -> int:
    positions, padding = config.get("max_position_embeddings", 512), config.get("pad_token_id", 1)
    if not isinstance(positions, int) or not isinstance(padding, int):
        raise SourceError(f"config.json says max_position_embeddings is {positions!r}.", hint="Give a whole number.")
    return positions - padding - 1 if config.get("model_type") in OFFSET_POSITIONS else positions


def _prompts(path: Path) -> tuple[dict[str, str], str | None]:
    file = path / "config_sentence_transformers.json"
    settings = optional_json(file)
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(value, str) for value in prompts.values()):
        raise SourceError(f"{file} has prompts that are not texts.", hint="Give each prompt as a name and a text.")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise SourceError(f"{file} names the default prompt {default!r}, which it lacks.", hint=FETCH_AGAIN)
    return prompts, default


def _tokenizer(path: Path, config: Mapping[str, Any], settings: Mapping[str, Any], *, lower: bool) -> bytes:
    if (path / "tokenizer.json").is_file():
        return normal(read_json(path / "tokenizer.json", hint=_BELONGS), path / "tokenizer.json", lower=lower)
    if (path / "vocab.txt").is_file() and config.get("model_type") in ("bert", "distilbert"):
        return normal(json.loads(_word_pieces(path / "vocab.txt", settings)), path / "vocab.txt", lower=lower)
    raise SourceError(
        f"{path} has no tokenizer.json.",
        hint="Save a fast tokenizer there (its save_pretrained writes tokenizer.json).",
    )


def normal(data: dict[str, Any], file: Path, *, lower: bool = False) -> bytes:
    """A tokenizer without its own padding and truncation, which the senses decide about, made lower-case if asked."""
    from tokenizers import Tokenizer

    data = data | {"padding": None, "truncation": None}
    if lower:
        steps = [{"type": "Lowercase"}, *([data["normalizer"]] if data.get("normalizer") else [])]
        data["normalizer"] = {"type": "Sequence", "normalizers": steps}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    try:
        Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise SourceError(f"{file} is not a tokenizer: {brief(error)}.", hint=_BELONGS) from error
    return text.encode()


def _word_pieces(file: Path, settings: Mapping[str, Any]) -> str:
    """BERT's tokenizer from its list of word pieces (Devlin et al. 2019); `settings` as in tokenizer_config.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    try:
        pieces = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except ValueError as error:
        raise SourceError(f"{file} is not UTF-8: {brief(error)}.", hint=FETCH_AGAIN) from error
    vocabulary = {piece.rstrip("\r"): number for number, piece in enumerate(pieces)}
    if lacking := [token for token in _SPECIALS if token not in vocabulary]:
        raise SourceError(f"{file} lacks the token {lacking[0]}.", hint=_BELONGS)
    engine: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True) is True,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True) is True,
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    engine.decoder = decoders.WordPiece()
    engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIALS])
    return str(engine.to_str())


def check(model: Model, place: Path) -> None:
    """Raise `SourceError` if a model's tokenizer cannot be its own: ids beyond the table, or no tokens around text."""
    from tokenizers import Tokenizer

    engine: Any = Tokenizer.from_str(text_senses(model).tokenizer.decode())
    most = max(engine.get_vocab(with_added_tokens=True).values(), default=0)
    for table in model.tables():
        rows = model.weights[table.weight].shape[0]
        if table.is_vocabulary and most >= rows:
            raise SourceError(
                f"The tokenizer of {place} knows {most + 1:,} tokens; the model's table has {rows:,} rows.",
                hint=_BELONGS,
            )
    if not engine.encode("").ids:
        raise SourceError(
            f"The tokenizer of {place} adds no first and last token to a text, which the model expects.", hint=_BELONGS
        )
