"""Trials are simulated; the page on updates says what came of it, and what it promises is what was found."""

import json

import pytest

from benchmarks import canary


def test_the_page_is_made_of_the_stored_run() -> None:
    assert canary.write(check=True), "python -m benchmarks.canary --write"


def test_what_is_promised_was_found() -> None:
    found = json.loads(canary.STORED.read_text(encoding="utf-8"))
    assert found["conditions"]["pairs"] == 500
    for item in found["healthy"].values():
        assert item["runs"] >= 1000
        assert item["taken_back"] <= 0.01
    for name in ("agreement 0.02 lower", "agreement 0.02 lower, coarser", "1.2x as slow", "1.2x as slow, noisy clock"):
        assert found["worse"][name]["taken_back"] >= 0.99


@pytest.mark.parametrize(
    ("kind", "name", "share"),
    [("HEALTHY", "minilm", 0.0), ("WORSE", "agreement 0.02 lower", 1.0), ("WORSE", "1.2x as slow", 1.0)],
)
def test_a_small_simulation_says_the_same(kind: str, name: str, share: float) -> None:
    found = canary.simulate(getattr(canary, kind)[name], 20, 7)
    assert found["taken_back"] == share
