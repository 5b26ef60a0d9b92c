"""A model of the Hugging Face hub: `hf:org/name` or `hf:org/name@revision`, by way of huggingface_hub.

The hub's own cache comes first, so that what was fetched once works offline; only data files are ever fetched.
The hub's settings hold: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tightrope.errors import SourceError
from tightrope.workshop.sources._files import brief, weight_files
from tightrope.workshop.sources._task import transformer_folder

ALLOWED = ("*.safetensors", "*.json", "*.txt")
IGNORED = ("onnx/*", "openvino/*")

_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)
_REVISION = re.compile(r"[\w./-]+", re.ASCII)


def fetch(name: str, *, cached_only: bool, cache: Path | None = None, endpoint: str | None = None) -> Path:
    """The model folder of `org/name[@revision]` in the hub's cache; fetched first unless it is there or `cached_only`.

    `cache` and `endpoint` are the hub's own unless given. Raises `SourceError`.
    """
    repository, at, revision = name.partition("@")
    if not _NAME.fullmatch(repository) or (at and not _REVISION.fullmatch(revision)) or ".." in name:
        raise SourceError(f"{name!r} is not a name on the hub.", hint="Write hf:org/name or hf:org/name@revision.")
    options: dict[str, Any] = {
        "revision": revision or None,
        "cache_dir": cache,
        "endpoint": endpoint,
        "allow_patterns": list(ALLOWED),
        "ignore_patterns": list(IGNORED),
    }
    cached = _cached(repository, options)
    if cached:
        return cached
    if cached_only:
        raise SourceError(f"{name} is not in the hub's cache.", hint=f"Fetch it once with a network: hf:{name}.")
    return _fetched(name, repository, options)


def _cached(repository: str, options: dict[str, Any]) -> Path | None:
    """The cached snapshot, if it is whole."""
    try:
        folder = Path(snapshot_download(repository, local_files_only=True, **options))
        inner = transformer_folder(folder)
        complete = (inner / "config.json").is_file() and all(file.is_file() for file in weight_files(inner))
    except (LocalEntryNotFoundError, SourceError, ValueError, OSError):
        return None
    return folder if complete else None


def _fetched(name: str, repository: str, options: dict[str, Any]) -> Path:
    try:
        return Path(snapshot_download(repository, **options))
    except RevisionNotFoundError as error:
        raise SourceError(
            f"{repository} has no revision {options['revision']!r}.", hint="Leave out the revision."
        ) from error
    except GatedRepoError as error:
        raise SourceError(
            f"{name} is only given to those who accepted its terms.", hint="Accept them on the hub and set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"There is no model {name} on the hub, or it is private.", hint="Check the name, or set HF_TOKEN."
        ) from error
    except Exception as error:  # the hub's HTTP library changes between its versions, and so do its exceptions
        raise SourceError(
            f"{name} could not be fetched from the hub: {brief(error)}.",
            hint="Check the network, or give a folder that holds the model.",
        ) from error
