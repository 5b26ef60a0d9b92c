"""Admission: may this bundle become a version of that model? Asked before it is copied, opened or tried."""

from pathlib import Path

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device import proof
from tightrope.device.serve.ledger import PROCESS, Ledger
from tightrope.device.serve.loader import footprint_bytes
from tightrope.device.serve.releases import Model, Release, added, checked_name
from tightrope.device.serve.store import Store
from tightrope.errors import ServeError


def admit(store: Store, ledger: Ledger, name: str, source: Bundle, version: str | None, *, force: bool) -> Release:
    """The version in the store, with a copy of its bundle, if nothing that is known speaks against it.

    Without a `version` it is called as its file in a folder of that name is, or else by its digest. Raises
    `ServeError`, `RefusedError` (memory) if it could never fit, `BundleError` if it proves nothing, `OutputError` if it
    cannot be kept.
    """
    in_folder = source.path.resolve().parent.name == name
    stem = source.path.name.removesuffix(".bundle") if in_folder else source.digest[:12]
    version = checked_name(version or stem, "version")
    proof.texts(source)
    known = store.releases.models.get(name, Model())
    _check_versions(store, known, f"{name}@{version}", source, force=force)
    taken = known.releases.get(version)
    if taken is not None and taken.digest != source.digest:
        raise ServeError(
            f"{taken.lane} is there already, with digest {taken.digest:.12}.",
            hint="Give the new one another --version.",
        )
    _check_task(known, source)
    _check_memory(ledger, f"{name}@{version}", source)
    release = taken or store.keep(name, version, source)
    try:
        if source.digest in store.releases.rejected:
            store.record({"op": "allowed", "digest": source.digest})
        if taken is None:
            store.record(added(release))
    except BaseException:
        if taken is None:
            store.discard(release)
        raise
    return release


def _check_versions(store: Store, known: Model, lane: str, source: Bundle, *, force: bool) -> None:
    if (rejection := store.releases.rejected.get(source.digest)) and not force:
        raise ServeError(
            f"{lane} was taken back before ({rejection.reason}): digest {source.digest:.12}.",
            hint="Make another one, or insist with --force.",
        )
    if known.trial is not None:
        tried = known.releases[known.trial.version]
        raise ServeError(f"{tried.lane} is still on trial.", hint="Promote it or roll it back first.")
    if known.current is not None and known.releases[known.current].digest == source.digest:
        raise ServeError(
            f"{known.releases[known.current].name} answers with {source.digest:.12} already.",
            hint="Deploy another bundle.",
        )


def _check_task(known: Model, source: Bundle) -> None:
    """A name keeps its task: clients rely on it."""
    if known.current is None:
        return
    current, task = known.releases[known.current], source.content.task["name"]
    before = bundle.read(Path(current.path), verify=False).content.task["name"]
    if before != task:
        raise ServeError(
            f"{current.name} is for {before}; the bundle is for {task}.", hint="Deploy it by another name."
        )


def _check_memory(ledger: Ledger, lane: str, source: Bundle) -> None:
    """What could never fit is refused before it is copied, with the numbers."""
    budget, needed = ledger.budget_bytes, footprint_bytes(source)
    if budget is not None and needed > budget - ledger.usage()[PROCESS]:
        ledger.reserve(f"model:{lane}", needed).release()
