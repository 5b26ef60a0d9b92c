"""The inventory: bundles that lie where the server was told to look, and what there is as values for clients."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tightrope import bundle
from tightrope.bundle import MANIFEST, Bundle
from tightrope.device.serve import logs
from tightrope.device.serve.releases import Release, added, checked_name
from tightrope.device.serve.store import Store
from tightrope.errors import RefusedError, ServeError, TightropeError

SUFFIX = ".bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionState:
    """One version: what it is, its state (one of `metrics.STATES`) and, on trial, what was seen of it."""

    version: str
    digest: str
    state: str
    path: str = ""
    loaded_bytes: int = 0
    canary: float = 0.0
    reason: str = ""
    """Why it was taken back, or cannot be opened."""
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """One model by name: its versions, the one that answers, and that one's bundle."""

    name: str
    current: str | None
    versions: tuple[VersionState, ...]
    source: Bundle | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """The digest of the version that answers; empty if there is none."""
        return next((item.digest for item in self.versions if item.version == self.current), "")

    def to_json(self) -> dict[str, Any]:
        """As the admin interface tells it."""
        task = {} if self.source is None else {key: self.source.content.task[key] for key in ("name", "width")}
        versions = [{slot: getattr(item, slot) for slot in VersionState.__slots__} for item in self.versions]
        return {"name": self.name, "current": self.current, "task": task, "versions": versions}


def find(path: Path) -> dict[str, list[Release]]:
    """The bundles at a place, by model: one bundle, or a folder of NAME/VERSION.bundle. The newest version is last.

    What is no bundle, or bears no name, is left out and logged. There may be nothing at all: models are deployed later.
    Raises `ServeError` if there is something, but no bundle, `BundleError` for a single bundle that cannot be read.
    """
    if (path / MANIFEST).exists() or not path.is_dir():
        source = bundle.read(path, verify=False)
        name = _single_name(path)
        version = source.digest[:12]
        return {name: [Release(name=name, version=version, digest=source.digest, path=str(path.resolve()))]}
    found: dict[str, list[Release]] = {}
    for release in _in_folder(path):
        found.setdefault(release.name, []).append(release)
    if not found and any(not item.name.startswith(".") for item in path.iterdir()):
        raise ServeError(
            f"There is no bundle in {path}.", hint="Put them there as NAME/VERSION.bundle, or name one bundle."
        )
    return {name: sorted(releases, key=_natural) for name, releases in sorted(found.items())}


def _in_folder(path: Path) -> Iterator[Release]:
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
        for place in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                name = checked_name(folder.name)
                version = checked_name(place.name.removesuffix(SUFFIX), "version")
                source = bundle.read(place, verify=False)
            except TightropeError as error:
                logs.event("bundle.skipped", level="warning", model=folder.name, reason=error.message)
                continue
            yield Release(name=name, version=version, digest=source.digest, path=str(place.resolve()))


def _single_name(path: Path) -> str:
    name = path.resolve().name.removesuffix(SUFFIX)
    try:
        return checked_name(name)
    except RefusedError:
        return "model"


def _natural(release: Release) -> list[tuple[int, str]]:
    """Version 10 comes after version 9.

    >>> releases = [Release(name="m", version=version, digest="", path="") for version in ("10", "9", "9.1")]
    >>> [release.version for release in sorted(releases, key=_natural)]
    ['9', '9.1', '10']
    """
    parts = re.findall(r"\d+|\D+", release.version)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def register(store: Store, path: Path) -> tuple[str, ...]:
    """Let the store know what lies at a place; the names that are to be served.

    What is current stays so: after an update, the place still holds the version before. Only a single bundle that the
    store has never seen becomes current, because it was asked for by name. Models that were deployed by name, and never
    lay at a place, are served as well.
    """
    found = find(path)
    single = (path / MANIFEST).exists()
    for name, releases in found.items():
        known = store.releases.models.get(name)
        versions = known.releases if known else {}
        digests = {release.digest for release in versions.values()}
        new = [item for item in releases if versions.get(item.version) != item and not _kept(versions, item)]
        store.record(*(added(item) for item in new), durable=False)
        fitting = [item for item in releases if item.digest not in store.releases.rejected]
        none = known is None or known.current is None
        if fitting and (none or (single and fitting[-1].digest not in digests)):
            current = {"op": "current", "name": name, "version": fitting[-1].version}
            store.record(current, durable=False)
        if store.releases.models[name].current is None:
            raise ServeError(
                f"{releases[-1].lane} was taken back: {store.releases.rejected[releases[-1].digest].reason}.",
                hint=f"Serve another bundle, or insist with `tightrope model deploy {name} … --force`.",
            )
    models = store.releases.models
    deployed = (name for name, model in models.items() if all(item.kept for item in model.releases.values()))
    return tuple(sorted({*found, *deployed}))


def _kept(versions: Mapping[str, Release], release: Release) -> bool:
    """Whether the server has a copy of its own under this version's name."""
    return release.version in versions and versions[release.version].kept
