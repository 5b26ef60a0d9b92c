"""Releases: facts come to a value, the value to facts, and names that could leave their folder are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve.releases import Releases, checked_name, made_of
from tightrope.errors import RefusedError

names = st.sampled_from(["minilm", "faq"])
versions = st.sampled_from(["1", "2", "3"])
digests = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])
facts = st.one_of(
    st.fixed_dictionaries(
        {"op": st.just("added"), "name": names, "version": versions, "digest": digests, "path": st.just("/models/x")}
    ),
    st.fixed_dictionaries({"op": st.sampled_from(["current", "removed"]), "name": names, "version": versions}),
    st.fixed_dictionaries(
        {"op": st.just("trial"), "name": names, "version": versions, "shadow": st.booleans(), "canary": st.just(0.1)}
    ),
    st.fixed_dictionaries(
        {"op": st.just("evidence"), "name": names, "version": versions, "evidence": st.just({"pairs": 3})}
    ),
    st.fixed_dictionaries({"op": st.sampled_from(["ended", "paused"]), "name": names}),
    st.fixed_dictionaries({"op": st.just("resumed"), "name": names, "boot": st.sampled_from(["x", "y"])}),
    st.fixed_dictionaries(
        {"op": st.just("rejected"), "digest": digests, "name": names, "version": versions, "reason": st.just("latency")}
    ),
    st.fixed_dictionaries({"op": st.just("allowed"), "digest": digests}),
)


@given(st.lists(facts, max_size=30))
def test_the_fewest_records_make_the_same_value(given_facts) -> None:
    releases = made_of(given_facts)
    assert made_of(releases.records()) == releases


@given(st.lists(facts, max_size=30))
def test_what_is_current_on_trial_or_before_is_there(given_facts) -> None:
    for model in made_of(given_facts).models.values():
        for version in (model.current, model.before, model.trial and model.trial.version):
            assert version is None or version in model.releases


@pytest.mark.parametrize(
    "record", [{}, {"op": "new kind"}, {"op": "current", "name": "x", "version": "9"}, {"op": "evidence", "name": "x"}]
)
def test_what_is_not_understood_changes_nothing(record) -> None:
    assert Releases().after(record) == Releases()


def test_a_death_on_trial_is_counted_but_not_a_power_cut_or_a_clean_end() -> None:
    start = [
        {"op": "added", "name": "m", "version": "2", "digest": "d", "path": "/p"},
        {"op": "trial", "name": "m", "version": "2", "shadow": True, "canary": 0.0, "boot": "x"},
    ]
    died = made_of([*start, {"op": "resumed", "name": "m", "boot": "x"}])
    assert died.models["m"].trial.deaths == 1
    cut = made_of([*start, {"op": "resumed", "name": "m", "boot": "y"}])
    assert cut.models["m"].trial.deaths == 0
    clean = made_of([*start, {"op": "paused", "name": "m"}, {"op": "resumed", "name": "m", "boot": "x"}])
    assert clean.models["m"].trial.deaths == 0


@pytest.mark.parametrize("name", ["minilm", "all-MiniLM-L6-v2", "m", "0.3", "a" * 63])
def test_ordinary_names_are_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../etc", "a/b", "a\\b", "/etc/passwd", "%2e%2e", "a%2fb", "a\0b", "a\n", "nul", "CON"),
        *("com1.x", "-rf", "a" * 64, "a" * 4096, "über", "a.", None, 7, "x\u202e", ".hidden", "\ud800"),
    ],
)
def test_names_that_could_lead_elsewhere_are_refused_in_two_lines(name: object) -> None:
    with pytest.raises(RefusedError) as refused:
        checked_name(name)
    assert refused.value.reason == "unknown_model"
    assert len(str(refused.value).splitlines()) == 2 and str(refused.value).isascii()
    assert len(str(refused.value)) < 200
