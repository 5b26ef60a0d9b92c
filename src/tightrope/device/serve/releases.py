"""Releases: which versions of which models there are, which one is current, which is on trial, which must not return.

A value that is made of the journal's records, one after the other, and that can be written as the fewest records which
make it again. Nothing here touches a file or a model.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tightrope.errors import RefusedError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Files of this name are devices on Windows, whose folders a server may have mounted."""


def checked_name(name: object, what: str = "model") -> str:
    """A name that can be a folder's: letters, digits, `.`, `_` and `-`, at most 63. Else a `RefusedError`."""
    fits = isinstance(name, str) and _NAME.fullmatch(name) and not name.endswith(".") and not _DEVICES.fullmatch(name)
    if not fits:
        raise RefusedError(
            f"{name!a:.60} cannot name a {what}.",
            hint="Use at most 63 letters, digits, '.', '_' and '-', a letter or digit first.",
            reason="unknown_model",
        )
    return str(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version of a model: what it is called, what it is, and the folder it lies in.

    `kept`: the folder is the server's own copy, and goes when the version does.
    """

    name: str
    version: str
    digest: str
    path: str
    kept: bool = False

    @property
    def lane(self) -> str:
        """What the service calls it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A version that was taken back: which one that was, and why."""

    name: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A version that has to prove itself: how, what was seen so far, and how often the process died meanwhile."""

    version: str
    shadow: bool
    canary: float
    evidence: Mapping[str, Any] | None = None
    deaths: int = 0
    boot: str = ""
    """The boot of the machine in which it is being tried; empty while it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The versions of one model by name; `current` answers, `before` did so last, `trial` may do so next."""

    releases: Mapping[str, Release] = field(default_factory=dict)
    current: str | None = None
    before: str | None = None
    trial: Trial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """All models by name, and what was taken back by its digest."""

    models: Mapping[str, Model] = field(default_factory=dict)
    rejected: Mapping[str, Rejection] = field(default_factory=dict)

    def after(self, record: Mapping[str, Any]) -> "Releases":
        """With one more fact. What is not understood, or fits nothing that is known, changes nothing."""
        try:
            match record:
                case {"op": "rejected", "digest": str(digest)}:
                    rejection = Rejection(**{slot: str(record[slot]) for slot in ("name", "version", "reason")})
                    return replace(self, rejected={**self.rejected, digest: rejection})
                case {"op": "allowed", "digest": str(digest)}:
                    return replace(self, rejected={key: why for key, why in self.rejected.items() if key != digest})
                case {"op": str(op), "name": str(name)}:
                    changed = _changed(self.models.get(name, Model()), op, record)
                    if changed is not None:
                        models = {**self.models, name: changed}
                        return replace(self, models={key: model for key, model in models.items() if model.releases})
        except (KeyError, TypeError):
            pass
        return self

    def records(self) -> Iterable[dict[str, Any]]:
        """The fewest facts that make this value again."""
        for digest, rejection in self.rejected.items():
            yield {"op": "rejected", "digest": digest, **asdict(rejection)}
        for name, model in self.models.items():
            for release in model.releases.values():
                yield added(release)
            for version in (model.before, model.current):
                if version is not None:
                    yield {"op": "current", "name": name, "version": version}
            if model.trial is not None:
                trial = model.trial
                facts = {slot: getattr(trial, slot) for slot in ("version", "shadow", "canary", "deaths", "boot")}
                yield {"op": "trial", "name": name, **facts, "evidence": trial.evidence}


def made_of(records: Iterable[Mapping[str, Any]]) -> Releases:
    """What these facts, one after the other, come to."""
    releases = Releases()
    for record in records:
        releases = releases.after(record)
    return releases


def added(release: Release) -> dict[str, Any]:
    """The fact that a version is there."""
    return {"op": "added", **asdict(release)}


def rejected(release: Release, reason: str) -> dict[str, Any]:
    """The fact that a version was taken back and must not return."""
    facts = {"name": release.name, "version": release.version, "reason": reason}
    return {"op": "rejected", "digest": release.digest, **facts}


def _changed(model: Model, op: str, record: Mapping[str, Any]) -> Model | None:
    version, trial = record.get("version"), model.trial
    if op == "added":
        fields = {slot: str(record[slot]) for slot in ("name", "version", "digest", "path")}
        release = Release(**fields, kept=record.get("kept") is True)
        return replace(model, releases={**model.releases, release.version: release})
    if version is not None and version not in model.releases:
        return None
    match op:
        case "current" if version is not None:
            before = model.current if model.current != version else model.before
            return replace(model, current=version, before=before, trial=None if _tries(trial, version) else trial)
        case "trial" if version is not None:
            return replace(model, trial=_trial(record))
        case "evidence" if trial is not None and trial.version == version:
            return replace(model, trial=replace(trial, evidence=record["evidence"]))
        case "ended":
            return replace(model, trial=None)
        case "paused" if trial is not None:
            return replace(model, trial=replace(trial, boot=""))
        case "resumed" if trial is not None:
            boot = str(record["boot"])
            died = bool(boot) and trial.boot == boot
            return replace(model, trial=replace(trial, boot=boot, deaths=trial.deaths + died))
        case "removed" if version is not None:
            left = {key: release for key, release in model.releases.items() if key != version}
            current = None if model.current == version else model.current
            before = None if current is None or model.before == version else model.before
            return Model(releases=left, current=current, before=before, trial=None if _tries(trial, version) else trial)
    return None


def _trial(record: Mapping[str, Any]) -> Trial:
    return Trial(
        version=record["version"],
        shadow=bool(record["shadow"]),
        canary=float(record["canary"]),
        evidence=record.get("evidence"),
        deaths=int(record.get("deaths", 0)),
        boot=str(record.get("boot", "")),
    )


def _tries(trial: Trial | None, version: object) -> bool:
    return trial is not None and trial.version == version
