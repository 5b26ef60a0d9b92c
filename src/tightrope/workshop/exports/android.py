"""A Gradle project with a small library in plain Java around a bundle's LiteRT artefact."""

import shutil
from pathlib import Path

import numpy as np

from tightrope.bundle import Bundle
from tightrope.workshop.exports.content import Content, coded, parts, read, tokens, unicode_tables, write_template

ASSETS = Path("tightrope") / "src" / "main" / "assets" / "tightrope"
TESTS = Path("tightrope") / "src" / "test" / "resources"


def export(source: Bundle, folder: Path) -> Path:
    """Write the project. Raises as `content.read` does, and `OutputError`."""
    content = read(source, "litert")
    write_template("android", folder, {"OUTPUT": content.output, "DIGEST": source.digest, "TASK": content.task["name"]})
    assets = folder / ASSETS
    assets.mkdir(parents=True)
    shutil.copyfile(content.files["model"], assets / "model.tflite")
    (assets / "wordpiece.bin").write_bytes(content.wordpiece)
    (assets / "unicode.bin").write_bytes(unicode_tables())
    (assets / "bundle.properties").write_text(properties(content), encoding="ascii")
    (folder / TESTS).mkdir(parents=True)
    (folder / TESTS / "tokens.txt").write_text(token_lines(content), encoding="ascii")
    answers = folder / "tightrope" / "src" / "androidTest" / "assets"
    answers.mkdir(parents=True)
    (answers / "answers.txt").write_text(answer_lines(content), encoding="ascii")
    return folder


def properties(content: Content) -> str:
    """Java's own form of settings, in ASCII."""
    lengths = content.artefact.settings.get("lengths") or [content.senses["max_length"]]
    prompts = content.senses["prompts"]
    default = content.senses["default_prompt"]
    values = {
        "digest": content.source.digest,
        "task": content.task["name"],
        "width": content.task["width"],
        "max_tokens": min(int(content.senses["max_length"]), max(lengths)),
        "lengths": ",".join(map(str, sorted(lengths))),
        "types": str(content.takes_types).lower(),
        "normalized": str(bool(content.task.get("normalize", True))).lower(),
        "tolerance": content.tolerance,
        "default_prompt": prompts[default] if default else "",
    }
    values |= {f"prompt.{name}": text for name, text in prompts.items()}
    return "".join(f"{_escaped(key)}={_escaped(str(value))}\n" for key, value in values.items())


def _escaped(text: str) -> str:
    r"""A key or a value as `java.util.Properties` reads it.

    >>> print(_escaped("a: é"))
    a\u003a\u0020\u00e9
    """
    units = text.encode("utf-16-be")
    numbers = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(unit) if chr(unit) in _PLAIN else f"\\u{unit:04x}" for unit in numbers)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._,-")


def token_lines(content: Content) -> str:
    """A line for each text or pair: base64 of its one or two texts, its ids, its types; tabs between."""
    lines = []
    for item, ids, types in tokens(content):
        first, second = [coded(part.encode()) for part in parts(item)] + ([] if isinstance(item, tuple) else ["-"])
        lines.append(f"{first}\t{second}\t{' '.join(map(str, ids))}\t{' '.join(map(str, types))}\n")
    return "".join(lines)


def answer_lines(content: Content) -> str:
    """A line for each recorded input: base64 of its one or two texts, and of its answer as float32, little-endian."""
    lines = []
    for item, row in zip(content.inputs, content.expected, strict=True):
        first, second = [coded(part.encode()) for part in parts(item)] + ([] if isinstance(item, tuple) else ["-"])
        lines.append(f"{first}\t{second}\t{coded(np.asarray(row, '<f4').tobytes())}\n")
    return "".join(lines)
