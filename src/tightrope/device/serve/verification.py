"""Verification: does a new version answer its own texts as its bundle records, and how far does it agree with the old?

Every text is a request of its own at the lowest priority, and the version is in use no longer than that takes: where
both do not fit into the memory beside each other, users' requests come between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device import proof
from tightrope.device.model import Floats
from tightrope.device.serve.evidence import agreements, expectation, least_by_record
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.loader import Loader
from tightrope.device.serve.mirror import Sample, ask
from tightrope.device.serve.releases import Release
from tightrope.device.serve.sequential import DROP, Expected
from tightrope.device.serve.service import Service
from tightrope.errors import BundleError, EngineError, RefusedError, TightropeError
from tightrope.units import show

PATIENCE_S = 5.0
"""How long a verification waits for room."""
_ANEW = "The version before it goes on. Make the bundle anew, or serve it under a name of its own."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a verification found: a reason to take the version back, in a word and in words, or what to expect of it.

    `expected` is `None` if its answers mean nothing beside those of the current version.
    """

    reason: str | None = None
    message: str = ""
    hint: str = _ANEW
    expected: Expected | None = None


class Verifier:
    """Asks loaded versions what their bundles record."""

    def __init__(self, service: Service, loader: Loader, ledger: Ledger) -> None:
        self._service = service
        self._loader = loader
        self._ledger = ledger

    def verify(self, release: Release, current: Release | None) -> Finding:
        """Look at one version, beside the current one if there is one.

        Raises `RefusedError` if there is no room for it now, `MissingExtraError` if its engine is not installed.
        """
        try:
            return self._verify(release, current)
        except RefusedError as error:
            if error.reason != "failed":
                raise
            return Finding(reason="errors", message=f"{release.lane} fails: {error.message}")
        except (BundleError, EngineError) as error:
            return Finding(reason="errors", message=f"{release.lane} fails: {error.message}", hint=error.hint)

    def _verify(self, release: Release, current: Release | None) -> Finding:
        source = self._source(release)
        inputs = [tuple(item) if isinstance(item, list) else item for item in proof.texts(source)]
        found = self._answers(release, inputs)
        judged = proof.judge(source, found, release.version)
        if not judged.holds:
            least = judged.expected.cosine_min
            message = f"{release.lane} does not answer as its bundle records: the least cosine is {least:.4f}."
            return Finding(reason="agreement", message=message)
        if over := self._over_budget(release):
            message = f"{release.lane} takes {show(over, 'bytes')} more than the memory budget leaves."
            return Finding(reason="memory", message=message, hint="Give the server more memory, or a smaller model.")
        if current is None:
            return Finding()
        before = self._source(current)
        task, other = source.content.task, before.content.task
        if (task["name"], task["width"]) != (other["name"], other["width"]):
            return Finding()
        try:
            said = agreements(found, self._answers(current, inputs), scores=task["name"] == "scoring")
        except TightropeError:  # the current version's own trouble says nothing about this one
            return Finding()
        mean, record = sum(said) / len(said), least_by_record(source, before)
        if record is not None and mean < record - DROP:
            message = (
                f"{release.lane} agrees with {current.version} to {mean:.4f}; by their records it is {record:.4f}."
            )
            return Finding(reason="agreement", message=message)
        return Finding(expected=expectation(said))

    def _over_budget(self, release: Release) -> int:
        """Bytes by which the process is over its budget with this version in memory, all others that can go gone."""
        with self._loader.using(release, patience_s=PATIENCE_S, hurry=False):
            return self._ledger.check()

    def _source(self, release: Release) -> Bundle:
        with self._loader.using(release, patience_s=PATIENCE_S, hurry=False) as (_, source):
            return source

    def _answers(self, release: Release, inputs: Sequence[Any]) -> Floats:
        """What a version says to each text, alone."""
        rows = []
        for item in inputs:
            with self._loader.using(release, patience_s=PATIENCE_S, hurry=False) as (model, _):
                rows.append(ask(self._service, release, model, Sample(inputs=(item,))).rows)
        return np.concatenate(rows)
