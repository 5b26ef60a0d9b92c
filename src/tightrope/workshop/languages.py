"""Which of the languages that we have texts in a model knows, guessed from its vocabulary."""

from typing import Any

CHINESE_PIECES = 2000
"""A vocabulary with more pieces of Chinese characters than this knows Chinese; an English one has a few hundred."""


def guess(tokenizer: bytes) -> tuple[str, ...]:
    """`en`, `zh` or both, for a tokenizer.json. Only a vocabulary that is mostly Chinese leaves out English."""
    from tokenizers import Tokenizer, decoders

    engine: Any = Tokenizer.from_str(tokenizer.decode())
    pieces = engine.get_vocab(with_added_tokens=False)
    if isinstance(engine.decoder, decoders.ByteLevel):  # its pieces are bytes in disguise
        texts = [engine.decoder.decode([piece]) for piece in pieces]
    else:
        texts = [piece.removeprefix("##").lstrip("▁") for piece in pieces]
    chinese = sum(bool(text) and all("\u4e00" <= character <= "\u9fff" for character in text) for text in texts)
    if chinese <= CHINESE_PIECES:
        return ("en",)
    return ("zh",) if chinese > len(pieces) / 2 else ("en", "zh")
