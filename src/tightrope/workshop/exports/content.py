"""What every export takes out of a bundle: an engine's files, the tokenizer for phones, and vectors to test with."""

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import Artefact, Bundle
from tightrope.device.senses.text import Tokenizer
from tightrope.errors import BundleError, OutputError, UnsupportedError
from tightrope.workshop.convert._wordpiece import pack

HARD_TEXTS = (
    "",
    " \t\r\n ",
    "The quick brown fox jumps over the lazy dog.",
    "Tête-à-tête, naïve façade; Ångström, İstanbul, ΑΣ, ẞ",
    "日本語のテキスト 中文文本 한국어 텍스트",
    "क्षत्रिय ไทย العربية עברית",
    "👩\u200d👩\u200d👧 🇩🇪 👍🏽 \u200b\ufeff\u00ad",
    "e\u0301\u0323 \u0344 \U0001d15e\U0001d165 \u1100\u1161\u11a8",
    "[CLS] [SEP] [MASK] [UNK] ##ing [sep]",
    "\x00\x07\x7f\x85\ufffd\u2028",
    "a" * 300 + " " + "supercalifragilisticexpialidocious" * 4,
    "https://example.org/a_b?c=d&e=%20#f 12,345.67€ ½ ²",
)
"""Texts that a tokenizer easily gets wrong: accents, scripts, joined emoji, control characters, long words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A bundle's model for text, with all that an app needs besides."""

    source: Bundle
    artefact: Artefact
    files: Mapping[str, Path]
    wordpiece: bytes
    inputs: tuple[Any, ...]
    expected: np.ndarray[Any, np.dtype[np.float32]]
    tolerance: float

    @property
    def senses(self) -> Mapping[str, Any]:
        """How text becomes ids."""
        return self.source.content.senses

    @property
    def task(self) -> Mapping[str, Any]:
        """What the model is for."""
        return self.source.content.task

    @property
    def takes_types(self) -> bool:
        """Whether the model tells two texts of one input apart."""
        return any(port.name == "token_type_ids" for port in self.source.content.models[0].inputs)

    @property
    def output(self) -> str:
        """The name of what the model gives."""
        return self.source.content.models[0].outputs[0].name

    def prompted(self, item: Any) -> Any:
        """An input as the tokenizer meets it: a text behind the default prompt, a pair as it is."""
        default = self.senses["default_prompt"]
        before = self.senses["prompts"][default] if default else ""
        return before + item if isinstance(item, str) else item


def artefact_of(source: Bundle, engine: str) -> tuple[Artefact, dict[str, Path]]:
    """One engine's artefact and its files. Raises `BundleError` if the bundle has none."""
    held = source.content.models[0].artefacts
    found = next((item for item in held if item.engine == engine), None)
    if found is None:
        has = ", ".join(item.engine for item in held)
        raise BundleError(
            f"{source.path} holds nothing for {engine}; it has: {has}.",
            hint=f"Make one that does: tightrope compress MODEL --recipe 'int8 -> {engine}' --out OTHER.bundle.",
        )
    return found, {role: source.file(path) for role, path in found.files.items()}


def read(source: Bundle, engine: str) -> Content:
    """The content of a bundle for an app.

    Raises `UnsupportedError` for a task without a tokenizer and for one that no phone's tokenizer is written for,
    `BundleError` for a bundle without the engine's artefact or without answers to test with.
    """
    if source.content.senses["kind"] != "text":
        raise UnsupportedError(
            f"{source.path} takes {source.content.senses['kind']}s, and has no tokenizer to export.",
            hint="Exports for phones are for models of text; take the engine's file out of the bundle instead.",
        )
    artefact, paths = artefact_of(source, engine)
    vectors = source.content.vectors
    recorded = vectors.get("expected") or vectors.get("original")
    if recorded is None:
        raise BundleError(f"{source.path} holds no answers to test with.", hint="Make the bundle anew.")
    return Content(
        source=source,
        artefact=artefact,
        files=paths,
        wordpiece=pack(source.file(source.content.senses["tokenizer"]).read_bytes()),
        inputs=tuple(tuple(item) if isinstance(item, list) else item for item in vectors["inputs"]),
        expected=np.load(source.file(recorded), allow_pickle=False),
        tolerance=float(vectors["tolerance"]),
    )


def tokens(content: Content) -> list[tuple[Any, list[int], list[int]]]:
    """Texts and pairs to test a tokenizer with, and the ids and types that the bundle's own tokenizer gives."""
    tokenizer = Tokenizer(content.source.file(content.senses["tokenizer"]), int(content.senses["max_length"]))
    texts: Sequence[Any] = [*HARD_TEXTS, *(content.prompted(item) for item in content.inputs if isinstance(item, str))]
    pairs = [*zip(HARD_TEXTS, HARD_TEXTS[::-1], strict=True), *(i for i in content.inputs if not isinstance(i, str))]
    found = []
    for items in (texts, pairs):
        encoded = tokenizer.encode(items)
        for row, item in enumerate(items):
            start, stop = encoded.ids.offsets[row], encoded.ids.offsets[row + 1]
            found.append((item, encoded.ids.values[start:stop].tolist(), encoded.types.values[start:stop].tolist()))
    return found


def parts(item: Any) -> list[str]:
    """A text, or the two of a pair, as a list."""
    return [item] if isinstance(item, str) else list(item)


def coded(data: bytes) -> str:
    """Bytes in a line of text."""
    return base64.b64encode(data).decode()


def unicode_tables() -> bytes:
    """What the phones' tokenizers know of characters: docs/formats/wordpiece.md."""
    return (files(__package__) / "unicode.bin").read_bytes()


def write_template(name: str, folder: Path, values: Mapping[str, str]) -> None:
    """Copy a template's folder, with `@NAME@` replaced in its texts. Raises `OutputError` if the folder exists."""
    if folder.exists():
        raise OutputError(f"{folder} exists.", hint="Remove it first, or choose another folder.")
    with as_file(files(__package__) / "templates" / name) as template:
        try:
            shutil.copytree(template, folder)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}.", hint="Choose another.") from error
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            for key, value in values.items():
                text = text.replace(f"@{key}@", value)
            path.write_text(text, encoding="utf-8")
