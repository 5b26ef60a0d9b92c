"""How often a healthy version is taken back, and how soon a worse one is: many simulated trials of each kind.

python -m benchmarks.canary              # simulate, store, write the table of docs/guide/updates.md
python -m benchmarks.canary --write      # write the table anew from what is stored
python -m benchmarks.canary --check      # fail if the page says anything else

Each run draws the agreement of 16 recorded texts, as a bundle has them, expects what they say, and then lets the tests
of `evidence.Evidence` see up to 500 mirrored requests. No model is run. `minilm` is as found between two versions of
all-MiniLM-L6-v2 (rotate + int8 with a table of 4 bits, and int8 with one of 8 bits) on a busy machine: agreement
0.9952 ± 0.0018 on the recorded texts, 0.9943 ± 0.005 on English words drawn at random; times that vary by 0.10 to 0.17.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import RESULTS, ROOT, command, read_stored, store, update
from tightrope.device.serve import evidence, sequential
from tightrope.device.serve.evidence import PAIRS, Evidence, Pair, expectation

STORED = RESULTS / "canary.json"
PAGE = ROOT / "docs" / "guide" / "updates.md"
BEGIN, END = "<!-- canary:begin -->", "<!-- canary:end -->"
RUNS = 1000
TEXTS = 16
SEED = 20_260_101


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How live requests look: the agreement of a healthy version, the noise of one time, and its failures."""

    agreement: float = 0.995
    spread: float = 0.004
    noise: float = 0.15
    """Standard deviation of the logarithm of the ratio of two times."""
    ratio: float = 1.0
    failures: float = 0.0
    drop: float = 0.0
    """By how much the live agreement is below that of the recorded texts."""
    wrong: float = 0.0
    """The share of live requests whose answers have nothing to do with the current version's."""

    def agreements(self, random: np.random.Generator, n: int, *, drop: float = 0.0) -> np.ndarray:
        """Cosines: their distance from 1 follows a gamma distribution, which has the long tail that real ones have."""
        distance = 1 - self.agreement
        shape = (distance / self.spread) ** 2
        return 1 - drop - random.gamma(shape, distance / shape, n)

    def pairs(self, random: np.random.Generator) -> Iterator[Pair | None]:
        """Mirrored requests; `None` for one that the candidate fails."""
        agreements = self.agreements(random, PAIRS, drop=self.drop)
        agreements[random.random(PAIRS) < self.wrong] = 0.0
        ratios = self.ratio * np.exp(random.normal(0, self.noise, PAIRS))
        pauses = random.random((2, PAIRS)) < 0.01  # of the machine: one in a hundred calls takes ten times as long
        failed = random.random(PAIRS) < self.failures
        for index in range(PAIRS):
            times = (ratios[index] * 10 ** pauses[0, index], 10 ** pauses[1, index])
            yield (
                None
                if failed[index]
                else Pair(agreement=float(agreements[index]), candidate_s=0.01 * times[0], current_s=0.01 * times[1])
            )


HEALTHY = {
    "minilm": World(drop=0.001),
    "as recorded": World(),
    "noisy clock": World(noise=0.3),
    "very noisy clock": World(noise=0.5),
    "faster": World(ratio=0.8),
    "coarser": World(agreement=0.98, spread=0.008),
    "much coarser": World(agreement=0.97, spread=0.015),
    "at the edge of what is tolerated": World(
        drop=sequential.TOLERATED_DROP, ratio=sequential.TOLERATED_RATIO, failures=sequential.TOLERATED_FAILURES
    ),
}
WORSE = {
    "agreement 0.02 lower": World(drop=0.02),
    "agreement 0.02 lower, coarser": replace(HEALTHY["coarser"], drop=0.02),
    "agreement 0.02 lower, much coarser": replace(HEALTHY["much coarser"], drop=0.02),
    "one request in forty all wrong": World(wrong=0.025),
    "1.2x as slow": World(ratio=1.2),
    "1.2x as slow, noisy clock": World(ratio=1.2, noise=0.3),
    "1.2x as slow, very noisy clock": World(ratio=1.2, noise=0.5),
    "2x as slow": World(ratio=2.0),
    "one request in twenty fails": World(failures=0.05),
    "every request fails": World(failures=1.0),
}


def trial(world: World, random: np.random.Generator) -> tuple[int, str] | None:
    """After how many requests a version is taken back and why; `None` if it is promoted."""
    expected = expectation([float(value) for value in world.agreements(random, TEXTS)])
    seen = Evidence.begin(expected)
    for number, pair in enumerate(world.pairs(random), 1):
        seen = seen.saw_failure() if pair is None else seen.saw(pair)
        if seen.verdict:
            return number, seen.verdict
    return None


def simulate(world: World, runs: int, seed: int) -> dict[str, Any]:
    """The share of runs in which a version is taken back, after how many requests, and why."""
    random = np.random.default_rng(seed)
    back = [found for found in (trial(world, random) for _ in range(runs)) if found]
    after = [number for number, _ in back]
    reasons = [reason for _, reason in back]
    return {
        "runs": runs,
        "taken_back": len(back) / runs,
        "after_median": float(np.median(after)) if after else None,
        "after_p99": float(np.percentile(after, 99)) if after else None,
        "reasons": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
    }


def measure(runs: int = RUNS) -> dict[str, Any]:
    """All worlds, each with a seed of its own."""
    found = {}
    for kind, worlds in (("healthy", HEALTHY), ("worse", WORSE)):
        found[kind] = {
            name: simulate(world, runs, SEED + number) for number, (name, world) in enumerate(worlds.items())
        }
    conditions = {
        "command": "python -m benchmarks.canary",
        "seed": SEED,
        "pairs": PAIRS,
        "recorded_texts": TEXTS,
        "error_rates": dict(evidence.ERROR_RATES),
    }
    return {"conditions": conditions, **found}


def block(found: Mapping[str, Any]) -> str:
    """What belongs between the markers, with them."""
    head = ["| version | taken back | after requests: median, 99 % | for |", "|---|---:|---:|---|"]
    rows = [_row(name, item) for kind in ("healthy", "worse") for name, item in found[kind].items()]
    about = found["conditions"]
    runs = max(item["runs"] for item in found["healthy"].values())
    foot = (
        f"{runs:,} simulated trials a row of at most {about['pairs']} mirrored requests; what to expect comes "
        f"from {about['recorded_texts']} recorded texts each time. The first {len(found['healthy'])} rows are healthy."
    )
    return "\n".join([BEGIN, *head, *rows, "", foot, END])


def _row(name: str, item: Mapping[str, Any]) -> str:
    after = "–" if item["after_median"] is None else f"{item['after_median']:.0f}, {item['after_p99']:.0f}"
    reasons = ", ".join(item["reasons"]) or "–"
    return f"| {name} | {100 * item['taken_back']:.1f} % | {after} | {reasons} |"


def write(page: Path = PAGE, stored: Path = STORED, *, check: bool = False) -> bool:
    """Whether the page said the same already. It is written unless only a check was asked for."""
    return update(page, block(read_stored(stored, "python -m benchmarks.canary makes one.")), check=check)


def main() -> int:
    """Simulate and write; or only write, or only check."""
    return command("The table of docs/guide/updates.md", write, lambda: store(STORED, measure()))


if __name__ == "__main__":
    sys.exit(main())
