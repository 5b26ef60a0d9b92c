"""A Swift package around a bundle's Core ML artefact."""

import json
from pathlib import Path
from typing import Any

from tightrope.bundle import Bundle
from tightrope.device.mlpackage import write_package
from tightrope.workshop.exports.content import Content, parts, read, tokens, unicode_tables, write_template

RESOURCES = Path("Sources") / "Tightrope" / "Resources"
TESTS = Path("Tests") / "TightropeTests" / "Resources"
INTERPRETED = "The program was interpreted, operation by operation, and the answers in the tests are the interpreter's."
RUN = "The answers in the tests are Core ML's own, of the machine where the bundle was made."


def export(source: Bundle, folder: Path) -> Path:
    """Write the package. Raises as `content.read` does, and `OutputError`."""
    content = read(source, "coreml")
    proven = INTERPRETED if "answers" in source.content.lineage else RUN
    write_template("ios", folder, {"DIGEST": source.digest, "TASK": content.task["name"], "PROVEN": proven})
    (folder / RESOURCES).mkdir(parents=True)
    (folder / TESTS).mkdir(parents=True)
    write_package(content.files, folder / RESOURCES / "model.mlpackage")
    (folder / RESOURCES / "wordpiece.bin").write_bytes(content.wordpiece)
    (folder / RESOURCES / "unicode.bin").write_bytes(unicode_tables())
    _write(folder / RESOURCES / "bundle.json", settings(content))
    _write(folder / TESTS / "vectors.json", vectors(content))
    return folder


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="ascii")


def settings(content: Content) -> dict[str, Any]:
    """What the Swift code reads of the model."""
    prompts, default = content.senses["prompts"], content.senses["default_prompt"]
    return {
        "digest": content.source.digest,
        "task": content.task["name"],
        "width": content.task["width"],
        "maxTokens": content.senses["max_length"],
        "types": content.takes_types,
        "normalized": bool(content.task.get("normalize", True)),
        "tolerance": content.tolerance,
        "defaultPrompt": prompts[default] if default else "",
        "prompts": dict(prompts),
        "output": content.output,
        "computeUnits": content.artefact.settings["compute_units"],
    }


def vectors(content: Content) -> dict[str, Any]:
    """Texts with their ids, and recorded inputs with their answers."""
    answers = zip(content.inputs, content.expected.tolist(), strict=True)
    return {
        "tokens": [{"texts": parts(item), "ids": ids, "types": types} for item, ids, types in tokens(content)],
        "answers": [{"texts": parts(item), "values": row} for item, row in answers],
    }
