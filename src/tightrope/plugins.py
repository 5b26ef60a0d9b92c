"""The door: a plug-in is a file in a room, found by its name, imported on demand.

The file name is the registry. Other packages add plug-ins through entry points whose
group is the room's short name (`tightrope.passes`, `tightrope.runtimes`, …).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from tightrope.errors import MissingExtraError, UnknownNameError

ROOMS = {
    "passes": "tightrope.workshop.passes",
    "families": "tightrope.workshop.families",
    "sources": "tightrope.workshop.sources",
    "converters": "tightrope.workshop.convert",
    "runtimes": "tightrope.device.runtimes",
}
"""The rooms that take plug-ins, by the word that people and entry points use."""

EXTRAS = {
    "onnx": "fit",
    "ml_dtypes": "fit",
    "safetensors": "fit",
    "huggingface_hub": "fit",
    "rich": "fit",
    "chartkick": "fit",
    "ai_edge_litert": "litert",
    "litert_torch": "litert-convert",
    "pypdf": "index",
    "usearch": "ann",
    "MNN": "mnn",
    "PIL": "image",
    "coremltools": "coreml",
    "cuda": "tensorrt",
}
"""The extra that brings a top-level module, where it is not the module's own name."""


@cache
def _files(room: str) -> dict[str, str]:
    """Our own plug-ins of a room: the leaf name, and the module to import."""
    package = ROOMS[room]
    spec = find_spec(package)
    found: dict[str, str] = {}
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if not any(part.startswith("_") for part in parts):
                found[parts[-1]] = ".".join((package, *parts))
    return found


@cache
def _modules(room: str) -> dict[str, str]:
    """Every plug-in of a room. Other packages are looked through only here: it costs a device time and memory."""
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=f"tightrope.{room}")} | _files(room)


def names(room: str) -> tuple[str, ...]:
    """The names of all plug-ins of a room, whether or not their engines are installed."""
    return tuple(sorted(_modules(room)))


def load(room: str, name: str) -> ModuleType:
    """Import one plug-in, or say what is missing and how to get it.

    Raises `UnknownNameError` for a name that no file bears, `MissingExtraError` when the plug-in's engine is absent.
    """
    modules = _files(room) if name in _files(room) else _modules(room)
    if name not in modules:
        raise UnknownNameError(f"There is no {name!r} among the {room}.", hint=f"Known: {', '.join(sorted(modules))}.")
    return import_optional(modules[name], wanted_by=name)


def import_optional(module: str, *, wanted_by: str) -> ModuleType:
    """Import a module that may need an extra; `MissingExtraError` gives the exact command.

    Ctrl-C waits until it is loaded: libraries of C++ that are interrupted while they load have been seen to crash.
    """
    try:
        with _uninterrupted():
            return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "tightrope":
            raise  # a fault of our own is not disguised as a missing extra
        extra = EXTRAS.get(missing, missing)
        raise MissingExtraError(
            f"{wanted_by} needs {missing}, which is not installed.", hint=f"pip install 'tightrope[{extra}]'"
        ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
