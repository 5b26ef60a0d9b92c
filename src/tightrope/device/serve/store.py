"""What a server remembers: the journal, what its facts come to, and its own copies of the bundles that it was given.

The state folder holds `journal`, and `models/NAME/VERSION.bundle` for each version that was deployed. A copy is whole
before the journal speaks of it, and the journal has forgotten it before it is removed; what a crash left in between is
swept away at the next start. Without a state folder nothing is copied and nothing outlives the process.
"""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.serve import logs
from tightrope.device.serve.journal import Journal
from tightrope.device.serve.releases import Release, Releases, made_of
from tightrope.errors import OutputError

JOURNAL_BYTES = 64_000
"""Beyond this the journal is written anew, as short as it can be."""


class Store:
    """Releases that are remembered. A context manager; safe for use from several threads.

    Raises `ServeError` if the state folder is another server's, or cannot be read.
    """

    def __init__(self, state: Path | None) -> None:
        self._lock = threading.Lock()
        self._folder = None if state is None else state / "models"
        self._journal = None if state is None else Journal(state / "journal")
        self.damage = self._journal.damage if self._journal else ""
        """What was found wrong with the journal, in words."""
        self.releases: Releases = made_of(self._journal.records if self._journal else ())
        if self.damage:
            logs.event("journal.damaged", level="error", reason=self.damage)
        self._sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another server have the state folder."""
        if self._journal:
            self._journal.close()

    def record(self, *facts: Mapping[str, Any], durable: bool = True) -> None:
        """Make facts true, one after the other, each durable before it is.

        Raises `OutputError` at the first that cannot be written; those before it hold. With `durable` off
        a fact holds although it could not be written: until the next start, that is.
        """
        with self._lock:
            for fact in facts:
                self._write(fact, durable)
                self.releases = self.releases.after(fact)

    def _write(self, fact: Mapping[str, Any], durable: bool) -> None:
        if self._journal is None:
            return
        try:
            if self._journal.size_bytes > JOURNAL_BYTES:
                self._journal.rewrite(self.releases.records())
            self._journal.append(fact)
        except OutputError as error:
            if durable:
                raise
            logs.event("journal.failed", level="error", reason=error.message)

    def keep(self, name: str, version: str, source: Bundle) -> Release:
        """A version as the journal will know it: a whole copy of its bundle, where there is a state folder.

        Raises `OutputError` if it cannot be copied.
        """
        if self._folder is None or self._folder in source.path.resolve().parents:
            return Release(name=name, version=version, digest=source.digest, path=str(source.path.resolve()))
        place = self._folder / name / f"{version}.bundle"
        stems = {Path(item.path).stem for item in source.attachments if item.path.endswith(".json")}
        bundle.copy(source, place, {stem: source.attachment(stem) for stem in sorted(stems)}, force=True)
        return Release(name=name, version=version, digest=source.digest, path=str(place), kept=True)

    def remove(self, release: Release) -> None:
        """Forget a version, and then remove the copy of it."""
        self.record({"op": "removed", "name": release.name, "version": release.version}, durable=False)
        self.discard(release)

    def discard(self, release: Release) -> None:
        """Remove the copy of a version that is not known."""
        if release.kept:
            shutil.rmtree(release.path, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove copies that no fact speaks of, and what was left half-copied."""
        if self._folder is None or not self._folder.is_dir():
            return
        known = {release.path for model in self.releases.models.values() for release in model.releases.values()}
        for folder in self._folder.iterdir():
            for place in folder.iterdir() if folder.is_dir() else ():
                if str(place) not in known:
                    logs.event("store.swept", bundle=place.name)
                    shutil.rmtree(place, ignore_errors=True)
