"""Fit a model to a small device, and prove that it still works.

    import tightrope
    result = tightrope.fit("all-MiniLM-L6-v2", budget="speedup>=1.8x, loss<=1%")
    model = tightrope.open("minilm.bundle")
    model.embed(["a sentence", "another"])

Importing this package loads the standard library only; each verb fetches its room when it is called.
"""

from typing import TYPE_CHECKING, Any

from tightrope.version import __version__

if TYPE_CHECKING:
    from tightrope.device.classifier import open_any as open
    from tightrope.device.serve.server import serve
    from tightrope.workshop.search.fit import fit
    from tightrope.workshop.search.single import compress

__all__ = ["__version__", "compress", "fit", "open", "serve"]

_VERBS = {
    "open": ("tightrope.device.classifier", "open_any"),
    "fit": ("tightrope.workshop.search.fit", "fit"),
    "serve": ("tightrope.device.serve.server", "serve"),
    "compress": ("tightrope.workshop.search.single", "compress"),
}


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'tightrope' has no attribute {name!r}")
    from tightrope.plugins import import_optional

    module, verb = _VERBS[name]
    return getattr(import_optional(module, wanted_by=f"tightrope.{name}"), verb)


def __dir__() -> list[str]:
    return sorted(__all__)
