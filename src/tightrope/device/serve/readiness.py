"""Readiness: does the server answer, and rightly? Found out by really asking, and remembered for a moment.

A text of the bundle goes the way of a request and its answer is compared with the recorded one; each time the next
text. Too much work is no reason to say that the server is not ready; a wrong answer, a failure or silence is.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device import proof
from tightrope.device.serve.loader import Loader, Model
from tightrope.device.serve.mirror import Sample, ask
from tightrope.device.serve.releases import Release
from tightrope.device.serve.service import Service
from tightrope.errors import BundleError, RefusedError, TightropeError

REMEMBERED_S = 1.0
DEADLINE_S = 2.0
_BUSY = ("overloaded", "deadline", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the server answers rightly; if not, why. `checked` are the versions that were asked."""

    ready: bool
    reason: str = ""
    checked: tuple[str, ...] = ()


NO_MODEL = "There is no model yet.", "Bring one: tightrope model deploy NAME BUNDLE."


class Prober:
    """Asks the versions that answer users. Safe for use from several threads: they share one answer."""

    def __init__(self, service: Service, loader: Loader, clock: Callable[[], float]) -> None:
        self._service = service
        self._loader = loader
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0
        self._last: tuple[float, Readiness] | None = None

    @property
    def last(self) -> Readiness | None:
        """What was found last, without asking."""
        return self._last[1] if self._last else None

    def ready(self, currents: Sequence[Release]) -> Readiness:
        """Ask those of these versions that are loaded, or the first of them if none is."""
        with self._lock:
            now = self._clock()
            if self._last is not None and now - self._last[0] < REMEMBERED_S:
                return self._last[1]
            loaded = self._loader.loaded()
            asked = [item for item in currents if item.lane in loaded] or list(currents[:1])
            found = Readiness(ready=bool(asked), reason="" if asked else " ".join(NO_MODEL))
            for release in asked:
                found = replace(found, checked=(*found.checked, release.lane))
                if wrong := self._wrong(release):
                    found = replace(found, ready=False, reason=wrong)
                    break
            self._turn += 1
            self._last = self._clock(), found
            return found

    def _wrong(self, release: Release) -> str:
        """What is wrong with one version's answer; empty if nothing is."""
        try:
            with self._loader.using(release) as (model, source):
                return self._compared(release, model, source)
        except RefusedError as error:
            return "" if error.reason in _BUSY else error.message
        except TightropeError as error:
            return error.message

    def _compared(self, release: Release, model: Model, source: Bundle) -> str:
        try:
            inputs, expected = proof.texts(source), proof.recorded(source, "expected")
        except BundleError:
            inputs, expected = ["ready?"], None
        place = self._turn % len(inputs)
        text = tuple(inputs[place]) if isinstance(inputs[place], list) else inputs[place]
        sample = Sample(inputs=(text,))
        rows = ask(self._service, release, model, sample, why="ready", priority=2, deadline_s=DEADLINE_S).rows
        if expected is None:
            return "" if np.isfinite(rows).all() else f"{release.lane} gives no numbers."
        agreement = proof.Agreement.of(rows, expected[place : place + 1])
        if proof.within(source, agreement) and np.isfinite(rows).all():
            return ""
        return f"{release.lane} does not answer as its bundle records: cosine {agreement.cosine_min:.4f}."
