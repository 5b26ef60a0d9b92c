"""The mirror: requests that were answered are asked again, of both versions, one after the other and alone.

So a pair's times differ by nothing but the versions, whatever company the users' requests had, and the one that goes
first changes from pair to pair. The lowest priority is used: users' requests go before. Where both versions do not fit
into the memory beside each other, they take turns: the current one answers at once, and the candidate answers what has
gathered when nobody has asked for the current one for a while.
"""

import resource
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from tightrope.bundle import Bundle
from tightrope.device.model import Floats
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.evidence import Pair, agreements, request_digest
from tightrope.device.serve.loader import QUIET_S, Loader, Model
from tightrope.device.serve.releases import Release
from tightrope.device.serve.service import Answer, Service
from tightrope.errors import BundleError, EngineError, RefusedError, TightropeError

TEXTS = 4
"""Of a larger request only the first ones are mirrored."""
CHARACTERS = 20_000
"""A request whose first inputs are longer is not mirrored: it would have to be kept."""
PRIORITY = -2
DEADLINE_S = 20.0
_GATHERED = 32
_KNOWN = 4096
_NO_FAULT = ("overloaded", "deadline", "memory", "unavailable", "cancelled", "too_large")
"""Why a request may be refused without its model being to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A request to be mirrored: its first inputs, and its prompt."""

    inputs: Sequence[Any] | Encoded
    prompt: str | None = None

    @classmethod
    def of(cls, inputs: Sequence[Any] | Encoded, prompt: str | None) -> "Sample | None":
        """The first inputs of a request; `None` if they are too large to be kept for a while."""
        if isinstance(inputs, Encoded):
            some: Sequence[Any] | Encoded = inputs.slice(0, min(TEXTS, len(inputs)))
            return cls(inputs=some, prompt=prompt) if len(inputs.ids.values) <= CHARACTERS else None
        some = tuple(inputs[:TEXTS])
        size = sum(len(part) for item in some for part in ((item,) if isinstance(item, str) else item))
        return cls(inputs=some, prompt=prompt) if size <= CHARACTERS else None


_Opened = tuple[Model, Bundle]
Outcome = Pair | None
"""A pair, or `None` for a request that the candidate failed though the current version answered it."""


class Mirror:
    """Asks two versions of one model the same. For use from one thread."""

    def __init__(self, service: Service, loader: Loader, current: Release, candidate: Release) -> None:
        self._service = service
        self._loader = loader
        self._current = current
        self._candidate = candidate
        self._gathered: deque[tuple[Sample, Answer]] = deque(maxlen=_GATHERED)
        self._known: dict[bytes, None] = {}
        self._turn = 0
        self.in_turns = False
        """Whether both did not fit into the memory beside each other."""

    @property
    def waiting(self) -> int:
        """Requests that the current version answered and the candidate has not been asked yet."""
        return len(self._gathered)

    def show(self, sample: Sample) -> list[Outcome]:
        """What comes of one request; nothing if it says nothing new, or could not be asked now."""
        digest = request_digest(sample.inputs, sample.prompt or "")
        if digest in self._known:
            return []
        try:
            with self._loader.using(self._current, hurry=False) as current:
                self._remember(digest)
                return self._both(sample, current)
        except TightropeError:  # the current version's own trouble, or an input that it does not take
            return []

    def catch_up(self) -> list[Outcome]:
        """What the candidate says to the requests that have gathered, if nobody needs the current version now."""
        if not self._gathered or self._loader.quiet_s(self._current.lane) < QUIET_S:
            return []
        outcomes: list[Outcome] = []
        try:
            with self._loader.using(self._candidate, hurry=False) as candidate:
                while self._gathered:
                    sample, answer = self._gathered.popleft()
                    outcomes += self._compared(answer, self._tried(sample, candidate), candidate)
        except TightropeError as error:
            outcomes += _blamed(error)
        return outcomes

    def _both(self, sample: Sample, current: _Opened) -> list[Outcome]:
        """Both versions beside each other if they fit, else the current one now and the candidate later."""
        try:
            with self._loader.using(self._candidate, hurry=False) as candidate:
                self.in_turns = False
                self._turn += 1
                first = self._tried(sample, candidate) if self._turn % 2 else None
                answer = self._timed(self._current, current[0], sample)
                return self._compared(answer, first or self._tried(sample, candidate), candidate)
        except RefusedError as error:
            if error.reason != "memory":
                raise
        except (BundleError, EngineError):  # the candidate does not open any more
            return [None]
        self.in_turns = True
        self._gathered.append((sample, self._timed(self._current, current[0], sample)))
        return []

    def _timed(self, release: Release, model: Model, sample: Sample) -> Answer:
        """An answer, and as its time that of the computation alone."""
        timed = _Timed(model)
        answer = ask(self._service, release, cast(Model, timed), sample)
        return replace(answer, computed_s=timed.seconds)

    def _tried(self, sample: Sample, candidate: _Opened) -> Answer | TightropeError:
        try:
            return self._timed(self._candidate, candidate[0], sample)
        except TightropeError as error:
            return error

    def _compared(self, answer: Answer, found: Answer | TightropeError, candidate: _Opened) -> list[Outcome]:
        if isinstance(found, TightropeError):
            return _blamed(found)
        alike = None
        if found.rows.shape == answer.rows.shape and len(answer.rows):
            values = agreements(found.rows, answer.rows, scores=candidate[1].content.task["name"] == "scoring")
            alike = sum(values) / len(values)
        return [Pair(agreement=alike, candidate_s=found.computed_s, current_s=answer.computed_s)]

    def _remember(self, digest: bytes) -> None:
        """The same request again says nothing new, and would only make a test too sure."""
        self._known[digest] = None
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]


class _Timed:
    """A model whose batches are computed twice, one right after the other: the second time counts.

    The first time it may find its weights out of the processor's caches, where users' requests keep the current
    version's: without that, any candidate would seem slower.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def answer(self, encoded: Encoded) -> Floats:
        """Rows [n, width], and how long they took."""
        self._model.answer(encoded)
        waits, wall_s, own_s = _waits(), time.perf_counter(), time.thread_time()
        rows = self._model.answer(encoded)
        wall_s, own_s = time.perf_counter() - wall_s, time.thread_time() - own_s
        self.seconds += own_s if waits is not None and waits == _waits() else wall_s
        return rows


def _waits() -> int | None:
    """How often this thread has waited for anything; `None` where the system does not tell.

    A thread that did not wait took its own processor time. What else went by was the turn of other processes, and on a
    small device that is most of the noise there is.
    """
    which = getattr(resource, "RUSAGE_THREAD", None)
    return None if which is None else resource.getrusage(which).ru_nvcsw


def _blamed(error: TightropeError) -> list[Outcome]:
    """A failure of the candidate, unless it was refused for reasons that are none of its own."""
    return [] if isinstance(error, RefusedError) and error.reason in _NO_FAULT else [None]


def ask(
    service: Service,
    release: Release,
    model: Model,
    sample: Sample,
    *,
    why: str = "mirror",
    priority: int = PRIORITY,
    deadline_s: float = DEADLINE_S,
) -> Answer:
    """Ask a loaded version on a lane of its own: no company, no answer from the cache. Raises what the service does.

    Two who ask at once each need a `why` of their own.
    """
    lane = f"{release.lane}#{why}"
    service.add(lane, model, form=service.form(release.lane), cached=False)
    try:
        future = service.submit(
            lane, sample.inputs, prompt=sample.prompt, deadline_s=deadline_s, priority=priority, key=f"#{why}"
        )
        return future.result(timeout=2 * deadline_s)
    except TimeoutError as error:
        raise RefusedError(
            f"{release.lane} did not answer in {2 * deadline_s:.0f} s.", hint="See whether it hangs.", reason="failed"
        ) from error
    finally:
        service.remove(lane)
