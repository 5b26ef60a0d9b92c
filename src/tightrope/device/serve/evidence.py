"""Evidence: what a new version has to show before it answers for everybody, and when it has to go.

First its own texts are answered as its bundle records them. Then requests are mirrored: both versions answer the same
inputs, one after the other, and the pair is evidence on agreement, time and failures. In `shadow` nobody gets the
candidate's answers; in `canary` a share of the requests does. Each kind of evidence is a sequential test that runs on
through both stages; the first that is rejected takes the version back. One that has answered enough pairs is promoted.
Values and functions only; `mirror.py` gathers the pairs, and `rollout.py` acts on what they say.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device.model import Floats
from tightrope.device.proof import Agreement, recorded
from tightrope.device.senses.text import Encoded
from tightrope.device.serve import sequential
from tightrope.device.serve.sequential import Expected, SequentialTest

ERROR_RATES = {"agreement": 0.004, "latency": 0.004, "errors": 0.001}
"""How often each test may take a healthy version back, over all time: together less than one in a hundred."""
PAIRS = 500
"""Mirrored requests after which a version that nothing speaks against is promoted."""
CANARY_ANSWERS = 20
"""Requests that a canary must have answered for real, in any case."""
DEATHS = 3
"""How often the process may die while a version is tried; power cuts do not count."""
_KINDRED = 0.5
"""A mean agreement below this is another model, whose answers mean nothing beside the current one's."""
_FEWEST_TEXTS = 4
"""Fewer recorded texts say too little about what agreement to expect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One mirrored request: how far both answers agree (`None` if that means nothing) and how long each took."""

    agreement: float | None
    candidate_s: float
    current_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen of a candidate so far.

    `expected` is its agreement with the current version on its bundle's own texts, found at verification; `None` if
    the two are not comparable: then only its owner can promote it.
    """

    expected: Expected | None
    agreement: SequentialTest | None
    latency: SequentialTest
    errors: SequentialTest
    pairs: int = 0
    answered: int = 0
    """Requests that the candidate answered for real."""
    ratio_log: float = 0.0
    """The sum of the logarithms of the ratios of times, candidate to current."""
    failures: int = 0
    wrong: int = 0
    """Requests that it answered, but with something else altogether."""
    over_budget: int = 0
    """Checks in a row that found the process over its memory budget."""

    @classmethod
    def begin(cls, expected: Expected | None) -> Self:
        """Nothing seen yet."""
        return cls(
            expected=expected,
            agreement=sequential.agreement_test(expected, ERROR_RATES["agreement"]) if expected else None,
            latency=sequential.latency_test(ERROR_RATES["latency"]),
            errors=sequential.failure_test(ERROR_RATES["errors"]),
        )

    def saw(self, pair: Pair) -> Self:
        """With one more mirrored request that both answered. An answer that is all wrong is a failure too."""
        agreement, wrong = self.agreement, False
        if agreement is not None and self.expected is not None and pair.agreement is not None:
            agreement = agreement.saw(sequential.agreement_excess(self.expected, pair.agreement))
            wrong = pair.agreement < self.expected.mean - sequential.WRONG_DROP
        ratio = max(pair.candidate_s, 1e-9) / max(pair.current_s, 1e-9)
        return replace(
            self,
            agreement=agreement,
            latency=self.latency.saw(sequential.latency_excess(pair.candidate_s, pair.current_s)),
            errors=self.errors.saw(sequential.failure_excess(wrong)),
            pairs=self.pairs + 1,
            wrong=self.wrong + wrong,
            ratio_log=self.ratio_log + math.log(ratio),
        )

    def saw_failure(self) -> Self:
        """With one more request that the candidate failed, though the current version answers it."""
        errors = self.errors.saw(sequential.failure_excess(True))
        return replace(self, errors=errors, pairs=self.pairs + 1, failures=self.failures + 1)

    def saw_answer(self) -> Self:
        """With one more request that the candidate answered for real."""
        return replace(self, answered=self.answered + 1)

    def saw_memory(self, over: bool) -> Self:
        """With one more comparison of the process with its budget."""
        return replace(self, over_budget=self.over_budget + 1 if over else 0)

    @property
    def verdict(self) -> str | None:
        """Why the candidate is to be taken back: agreement, latency, errors or memory; `None` while nothing says so."""
        if self.agreement is not None and self.agreement.rejected:
            return "agreement"
        if self.errors.rejected:
            return "agreement" if self.wrong > self.failures else "errors"
        if self.latency.rejected:
            return "latency"
        return "memory" if self.over_budget >= 3 else None

    def figures(self) -> dict[str, Any]:
        """For people: what was found, and how sure each test is that it is worse (`p`, valid whenever one looks)."""
        seen = self.agreement
        judged = seen is not None and self.expected is not None and seen.n > 0
        compared = self.pairs - self.failures
        return {
            "pairs": self.pairs,
            "answered": self.answered,
            "expected_agreement": self.expected.mean if self.expected else None,
            "agreement": self.expected.least - seen.mean if judged and self.expected and seen else None,
            "agreement_p": seen.p if seen else None,
            "latency_ratio": math.exp(self.ratio_log / compared) if compared else None,
            "latency_p": self.latency.p,
            "failures": self.failures,
            "wrong": self.wrong,
            "errors_p": self.errors.p,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; `from_json` reads them back."""
        tests = {"agreement": self.agreement, "latency": self.latency, "errors": self.errors}
        counts = {name: getattr(self, name) for name in ("pairs", "answered", "ratio_log", "failures", "wrong")}
        expected = self.expected
        return {
            "expected": {"mean": expected.mean, "error": expected.error, "n": expected.n} if expected else None,
            **{name: test.to_json() if test else None for name, test in tests.items()},
            **counts,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises `TypeError` or `KeyError` for what it did not write."""
        fields = dict(data)
        for name in ("agreement", "latency", "errors"):
            fields[name] = SequentialTest.from_json(data[name]) if data[name] else None
        fields["expected"] = Expected(**data["expected"]) if data["expected"] else None
        return cls(**fields)


def stage(evidence: Evidence, *, shadow: bool, canary: float) -> str:
    """Where a candidate that nothing speaks against is: `shadow`, `canary`, or ready to be `current`.

    With both, the first half of the pairs is seen in the shadow.
    """
    comparable = evidence.expected is not None
    if shadow and evidence.pairs < (PAIRS // 2 if canary else PAIRS):
        return "shadow"
    enough = evidence.pairs >= PAIRS and (evidence.answered >= CANARY_ANSWERS or not canary)
    if enough and comparable:
        return "current"
    return "canary" if canary else "shadow"


def chosen(inputs: Sequence[Any] | Encoded, share: float, salt: str) -> bool:
    """Whether a request belongs to the canary's share: the same request always gets the same version.

    >>> [chosen([text], 0.5, "salt") for text in ("c", "d", "d")]
    [False, True, True]
    """
    return share > 0.0 and int.from_bytes(request_digest(inputs, salt), "big") < share * 2.0**64


def request_digest(inputs: Sequence[Any] | Encoded, salt: str = "") -> bytes:
    """Eight bytes that stand for the inputs of a request."""
    mixed = hashlib.blake2b(salt.encode(), digest_size=8)
    if isinstance(inputs, Encoded):
        mixed.update(inputs.ids.offsets.tobytes() + inputs.ids.values.tobytes())
        return mixed.digest()
    for item in inputs:
        for part in (item,) if isinstance(item, str) else tuple(item):
            mixed.update(str(part).encode("utf-8", "surrogatepass") + b"\0")
    return mixed.digest()


def agreements(one: Floats, other: Floats, *, scores: bool) -> list[float]:
    """How far two versions' answers [n, width] agree, text by text; 1 is the same.

    Vectors: the cosine. Scores: 1 less the largest difference of the probabilities that the scores are the logits of.
    """
    if scores:
        gaps = np.abs(_probability(one) - _probability(other)).max(axis=1)
        return [float(1 - gap) for gap in gaps]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return [float(value) for value in np.minimum(1.0, (one * other).sum(axis=1) / np.maximum(lengths, 1e-12))]


def _probability(scores: Floats) -> Floats:
    bounded = np.clip(scores, -30, 30)
    return np.asarray(1 / (1 + np.exp(-bounded)), np.float32)


def expectation(found: Sequence[float] | None) -> Expected | None:
    """What agreement to expect, from that on the bundle's own texts; `None` if the two versions are not comparable."""
    if found is None or len(found) < _FEWEST_TEXTS:
        return None
    expected = Expected.of(list(found))
    return expected if expected.mean >= _KINDRED else None


def least_by_record(candidate: Bundle, current: Bundle) -> float | None:
    """The least agreement of two versions that were made of one model and each answer as their bundles record.

    Both record how far they are from the original, so the angle between them is at most the sum of both angles. `None`
    where the bundles do not record that, or were not made of the same model.
    """
    one, other = candidate.content.lineage.get("source_digest"), current.content.lineage.get("source_digest")
    if not one or one != other or candidate.content.task["name"] != "embedding":
        return None
    angles = []
    for source in (candidate, current):
        expected, original = recorded(source, "expected"), recorded(source, "original")
        if expected is None or original is None:
            return None
        angles.append(math.acos(max(-1.0, min(1.0, Agreement.of(expected, original).cosine_mean))))
    return math.cos(min(math.pi, sum(angles)))
