"""Rates: what was put in is found again, and nothing costs less than nothing."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.workshop.prediction.costs import NAMES, Costs
from tightrope.workshop.prediction.rates import Rates, Timed, fit

TRUE = Rates(seconds=(2e-5, 3e-7, 2e-11, 4e-11, 0.0, 0.0, 5e-11, 1e-10), error=0.0)


def some_costs(count: int, seed: int = 0) -> list[Costs]:
    random = np.random.default_rng(seed)
    sizes = {"steps": 200, "linear": 1e9, "attention": 1e8, "weight_bytes": 1e7, "moved_bytes": 1e8}
    return [
        Costs(**{name: float(most * random.uniform(0.001, 1)) for name, most in sizes.items()}) for _ in range(count)
    ]


def test_rates_that_made_the_times_are_found():
    found = fit([Timed(costs=item, seconds=TRUE.predict(item)) for item in some_costs(30)])
    assert np.allclose(found.seconds, TRUE.seconds, rtol=1e-4, atol=1e-15)
    assert found.error < 1e-6


def test_noise_of_a_tenth_is_an_error_of_about_that_on_what_was_not_seen():
    random = np.random.default_rng(1)
    timed = [Timed(costs=item, seconds=TRUE.predict(item) * random.uniform(0.9, 1.1)) for item in some_costs(60)]
    found = fit(timed)
    errors = [abs(found.predict(item) / TRUE.predict(item) - 1) for item in some_costs(40, seed=2)]
    assert np.median(errors) < 0.08
    assert 0.02 < found.error < 0.08


@given(st.integers(0, 10_000))
def test_no_rate_is_negative_and_nothing_fits_better(seed):
    """The conditions of Kuhn and Tucker: no slope where a rate is positive, none that leads downwards elsewhere."""
    random = np.random.default_rng(seed)
    timed = [Timed(costs=item, seconds=float(random.uniform(1e-4, 1e-1))) for item in some_costs(12, seed)]
    found = np.array(fit(timed).seconds)
    assert (found >= 0).all()
    table = np.array([astuple(item.costs) for item in timed]) / np.array([[item.seconds] for item in timed])
    scale = np.maximum(np.abs(table).max(axis=0), 1e-300)
    slope = (table / scale).T @ (1 - table @ found)
    assert (slope <= 1e-6).all()
    assert np.abs(slope[found > 0]).max(initial=0) <= 1e-6


@pytest.mark.parametrize("name", ["convolution", "depthwise"])
def test_what_no_model_did_has_no_rate(name):
    found = fit([Timed(costs=item, seconds=TRUE.predict(item)) for item in some_costs(20)])
    assert found.seconds[NAMES.index(name)] == 0
