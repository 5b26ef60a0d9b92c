"""Adapters: an open bundle in the shape that other libraries expect. They need none of those libraries.

    from tightrope.adapters import SentenceTransformerAdapter, LangChainEmbeddings

Importing this room loads the standard library only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tightrope.adapters.langchain import LangChainEmbeddings
    from tightrope.adapters.sentence_transformers import SentenceTransformerAdapter

__all__ = ["LangChainEmbeddings", "SentenceTransformerAdapter"]

_MODULES = {"LangChainEmbeddings": "langchain", "SentenceTransformerAdapter": "sentence_transformers"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tightrope.adapters' has no attribute {name!r}")
    return getattr(import_module(f"tightrope.adapters.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
