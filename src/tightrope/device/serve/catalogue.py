"""The catalogue: names and versions. Which version answers, what is loaded, what is idle, what is on trial.

A name is looked up in a dictionary, never on the disk. Models are opened when they are asked for and given back when
memory runs short; a request that comes while its model is being opened waits for it. A version that is replaced
answers what it has taken, and what a candidate fails the current version answers: no request fails for an update.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.model import open_bundle
from tightrope.device.serve import logs
from tightrope.device.serve.admission import admit
from tightrope.device.serve.answering import Answering, Flight, Inputs, Served
from tightrope.device.serve.evidence import chosen
from tightrope.device.serve.inventory import ModelState, VersionState, register
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.loader import Loader, Model, Open, footprint_bytes
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.readiness import NO_MODEL, Prober, Readiness
from tightrope.device.serve.releases import Model as Known
from tightrope.device.serve.releases import Release, checked_name
from tightrope.device.serve.rollout import Rollout
from tightrope.device.serve.service import Service
from tightrope.device.serve.store import Store
from tightrope.errors import BundleError, RefusedError, ServeError, TightropeError

__all__ = ["Catalogue", "ModelState", "Readiness", "Served", "VersionState"]


class Catalogue:
    """Models by name. A context manager; every method may be called from any thread.

    `answer` never waits for a disk; the others may.
    """

    def __init__(
        self,
        path: Path,
        service: Service,
        ledger: Ledger,
        metrics: Metrics,
        limits: Limits,
        *,
        state: Path | None = None,
        open_model: Open = open_bundle,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._ledger = ledger
        self._deploying = threading.Lock()
        self._sources: dict[str, Bundle] = {}
        self._store = Store(state)
        try:
            self._names = register(self._store, path)
        except BaseException:
            self._store.close()
            raise
        self._loader = Loader(service, ledger, open_model=open_model, clock=clock)
        self._rollout = Rollout(service, ledger, metrics, self._loader, self._store)
        self._rollout.recover()
        self._answering = Answering(service, self._loader, self._rollout, limits, clock)
        self._prober = Prober(service, self._loader, clock)
        metrics.before_reading(self._show)

    @classmethod
    def open(cls, *given: Any, **named: Any) -> Self:
        """A catalogue whose models are loaded as far as there is room: what `tightrope serve` starts with.

        Raises `RefusedError` (memory) for a single model that is larger than the budget, `BundleError` for one that is
        damaged and has no version before it.
        """
        catalogue = cls(*given, **named)
        try:
            catalogue.start()
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Load what there is room for, and go on with what was being tried."""
        for name in self._names:
            try:
                self._warm(name)
            except TightropeError as error:
                if len(self._names) == 1:
                    raise
                logs.event("model.failed", level="error", model=name, reason=error.message)
        self._rollout.start()

    def close(self) -> None:
        """Let what runs finish, give the memory back, and let another server have the state folder."""
        self._answering.close()
        self._rollout.close()
        self._loader.close()
        self._store.close()

    def _warm(self, name: str) -> None:
        """Load the current version, or the one before it if that is damaged."""
        known = self._known(name)
        for version in filter(None, (known.current, known.before)):
            release = known.releases[version]
            try:
                free = self._ledger.free_bytes
                several = len(self._names) > 1
                if several and free is not None and footprint_bytes(self._source(release)) > free:
                    return  # it is opened when somebody asks for it
                with self._loader.using(release):
                    pass
            except RefusedError:
                raise
            except TightropeError as error:
                logs.event("model.failed", level="error", model=name, version=version, reason=error.message)
                if version == known.before or known.before is None:
                    raise
                continue
            if version != known.current:
                self._store.record({"op": "current", "name": name, "version": version}, durable=False)
            return

    # Answering ------------------------------------------------------------------------------------------

    def answer(
        self,
        name: str | None,
        inputs: Inputs,
        *,
        version: str | None = None,
        prompt: str | None = None,
        normalize: bool = True,
        deadline_s: float | None = None,
        key: str = "",
        priority: int = 0,
    ) -> "Flight":
        """Ask a model by name, or the only one; the future holds what was `Served`, or what went wrong.

        Raises `RefusedError` (unknown_model, or as the service does) and `DataError` as `Service.submit` does.
        """
        known = self._known(name)
        release = self._release(known, version)
        running = self._rollout.running(release.name) if version is None else None
        candidate = None
        if running is not None and running.stage == "canary":
            salt = running.release.digest
            candidate = running.release if chosen(inputs, running.canary, salt) else None
        deadline = self._limits.deadline_s if deadline_s is None else deadline_s
        return self._answering.start(
            Flight(
                current=release,
                candidate=candidate,
                mirrored=running is not None and running.mirror is not None,
                inputs=inputs,
                options={"prompt": prompt, "normalize": normalize, "key": key, "priority": priority},
                until_s=self._clock() + deadline,
            )
        )

    @contextmanager
    def opened(self, name: str | None = None) -> Iterator[Model]:
        """The current version's model, for its tokenizer and its facts; opened if need be, and kept meanwhile."""
        release = self._release(self._known(name), None)
        with self._loader.using(release, patience_s=self._limits.queue_s) as (model, _):
            yield model

    def ready(self) -> Readiness:
        """Whether models answer rightly: really asked, and remembered for a second."""
        known = [self._known(name) for name in self._names]
        return self._prober.ready([item.releases[item.current] for item in known if item.current is not None])

    @property
    def readiness(self) -> Readiness | None:
        """What was found last, without asking."""
        return self._prober.last

    def models(self) -> tuple[ModelState, ...]:
        """All models with their versions."""
        return tuple(self.about(name) for name in self._names)

    def about(self, name: str | None = None) -> ModelState:
        """One model with its versions. Raises `RefusedError` (unknown_model)."""
        known = self._known(name)
        release = self._release(known, None)
        try:
            source = self._source(release)
        except BundleError:
            source = None
        return ModelState(name=release.name, current=known.current, versions=self._versions(known), source=source)

    def _show(self) -> None:
        """Let the metrics say what each version is."""
        for name in self._names:
            for item in self._versions(self._known(name)):
                self._metrics.model_state.remove(model=name, version=item.version)
                self._metrics.model_state.set(1, model=name, version=item.version, state=item.state)

    @property
    def damage(self) -> str:
        """What was found wrong with the journal when it was opened, in words; empty if nothing was."""
        return self._store.damage

    # Changing -------------------------------------------------------------------------------------------

    def deploy(
        self,
        name: str,
        path: Path,
        *,
        canary: float = 0.0,
        shadow: bool = False,
        version: str | None = None,
        force: bool = False,
    ) -> ModelState:
        """Put another version beside the current one, verify it, and try it as asked or make it current at once.

        Returns once it is verified; a trial goes on by itself. `force` takes a digest that was taken back before.
        Raises `ServeError` if it is refused or wrong, `BundleError` if it is damaged, `RefusedError` (memory) if there
        is no room for it, `OutputError` if it cannot be stored; then the current version goes on as if nothing was.
        """
        checked_name(name)
        if not 0.0 <= canary < 1.0:
            raise ServeError(
                f"A canary's share of {canary:g} is no share.", hint="Give a share below all, such as 10%."
            )
        if not self._deploying.acquire(blocking=False):
            raise ServeError(f"{name} has to wait: another version is being deployed.", hint="Try again in a moment.")
        try:
            source = bundle.read(path)
            release = admit(self._store, self._ledger, name, source, version, force=force)
            self._names = tuple(sorted({*self._names, name}))
            try:
                self._rollout.begin(release, shadow=shadow, canary=canary)
            finally:
                models = self._store.releases.models
                self._names = tuple(item for item in self._names if item in models)
                known = {item.digest for model in models.values() for item in model.releases.values()}
                self._sources = {digest: source for digest, source in self._sources.items() if digest in known}
        finally:
            self._deploying.release()
        return self.about(name)

    def promote(self, name: str) -> ModelState:
        """Make the version on trial current, whatever is known of it. Raises `ServeError` if there is none."""
        known = self._known(name)
        running = self._rollout.running(name)
        if known.trial is None or running is None or running.stage == "verifying":
            raise ServeError(
                f"{name} has no version on trial.", hint=f"See `tightrope model list`; deploy one to {name}."
            )
        self._rollout.promote(name)
        return self.about(name)

    def rollback(self, name: str, reason: str = "asked") -> ModelState:
        """Take the version on trial back, or else the current one: the version before it is current again.

        Its digest is remembered and refused from then on. Raises `ServeError` if there is nothing to go back to.
        """
        known = self._known(name)
        if known.trial is not None:
            self._rollout.take_back(name, reason)
        elif known.before is None:
            raise ServeError(f"{name} has no version to go back to.", hint="See `tightrope model list`.")
        else:
            self._rollout.go_back(name)
        return self.about(name)

    def unload(self, name: str) -> ModelState:
        """Give a model's memory back when its requests are answered; it is opened again when somebody asks for it."""
        for release in self._known(name).releases.values():
            self._loader.retire(release.lane)
        self._rollout.wake()
        return self.about(name)

    def on_change(self, listener: Callable[[str, str], None]) -> None:
        """Tell the name and the digest whenever another version has become current."""
        self._rollout.on_change(listener)

    # Looking up -----------------------------------------------------------------------------------------

    def _known(self, name: str | None) -> Known:
        models = self._store.releases.models
        if name is None and len(self._names) == 1:
            return models[self._names[0]]
        found = models.get(name) if name in self._names and name is not None else None
        if found is None and not self._names:
            raise RefusedError(NO_MODEL[0], hint=NO_MODEL[1], reason="unavailable", retry_after_s=10.0)
        if found is None:
            what = "No model is named" if name is None else f"There is no model {name!a:.60}"
            raise RefusedError(f"{what}.", hint=f"There is: {_some(self._names)}.", reason="unknown_model")
        return found

    def _release(self, known: Known, version: str | None) -> Release:
        found = known.releases.get(known.current or "") if version is None else known.releases.get(version)
        if found is None:
            raise RefusedError(
                f"There is no version {version!a:.60}.",
                hint=f"There is: {_some(known.releases)}.",
                reason="unknown_model",
            )
        return found

    def _versions(self, known: Known) -> tuple[VersionState, ...]:
        loaded = self._loader.loaded()
        versions = [self._version(known, item, loaded) for item in known.releases.values()]
        there = {item.digest for item in versions}
        names = {item.name for item in known.releases.values()}
        gone = [
            VersionState(version=item.version, digest=digest, state="rolled_back", reason=item.reason)
            for digest, item in self._store.releases.rejected.items()
            if item.name in names and digest not in there
        ]
        return (*versions, *gone)

    def _version(self, known: Known, release: Release, loaded: dict[str, int]) -> VersionState:
        running = self._rollout.running(release.name)
        facts: dict[str, Any] = {"state": "retired"}
        if release.version == known.current:
            facts["state"] = "current" if release.lane in loaded else "idle"
        elif running is not None and running.release == release:
            facts = {"state": running.stage, "canary": running.canary, "evidence": running.evidence.figures()}
        return VersionState(
            version=release.version,
            digest=release.digest,
            path=release.path,
            loaded_bytes=loaded.get(release.lane, 0),
            **facts,
        )

    def _source(self, release: Release) -> Bundle:
        """What a version's bundle says, read once."""
        if release.digest not in self._sources:
            self._sources[release.digest] = bundle.read(Path(release.path), verify=False)
        return self._sources[release.digest]


def _some(names: Sequence[str] | Any) -> str:
    return ", ".join([*names][:8]) or "none"
