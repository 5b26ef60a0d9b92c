"""A run on disk comes back as it was; anything else is refused with the value that is wrong."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import DataError, OutputError
from tightrope.workshop.report.run_file import plain, read_run, write_run
from tightrope.workshop.search.trial import Run

Make = Callable[..., Run]


def test_a_run_comes_back_as_it_was(make_run: Make, tmp_path: Path) -> None:
    write_run(make_run(), tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == make_run()


def test_what_to_json_wrote_without_us_can_be_read_too(make_run: Make, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(make_run().to_json()))
    assert read_run(tmp_path / "run.json") == make_run()


@settings(max_examples=30, deadline=None)
@given(
    seconds=st.floats(allow_nan=False, allow_infinity=False),
    model=st.text(),
    breaches=st.lists(st.text()).map(tuple),
    peak=st.none() | st.integers(0, 2**62),
    sensitivity=st.dictionaries(st.text(), st.floats(0, 1)),
)
def test_any_values_survive_the_round_trip(make_run: Make, tmp_path_factory: Any, **values: Any) -> None:
    path = tmp_path_factory.mktemp("run") / "run.json"
    values["peak_memory_bytes"] = values.pop("peak")
    run = make_run(**values)
    write_run(run, path)
    assert read_run(path) == run


def test_nan_is_written_as_null_and_comes_back(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    broken = replace(run.trials[0], parity=replace(run.trials[0].parity, cosine_min=math.nan))
    write_run(replace(run, trials=(broken, *run.trials[1:])), tmp_path / "run.json")
    assert "NaN" not in (tmp_path / "run.json").read_text()
    found = read_run(tmp_path / "run.json").trials[0].parity
    assert found is not None
    assert math.isnan(found.cosine_min)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.pop("model"), "lacks 'model'"),
        (lambda d: d.update(extra=1), "'extra'"),
        (lambda d: d.update(threads="two"), 'threads is "two", not a whole number'),
        (lambda d: d.update(threads=True), "threads is true, not a whole number"),
        (lambda d: d.update(threads=10**400), "threads is too large"),
        (lambda d: d.update(seconds=10**400), "seconds is too large"),
        (lambda d: d["trials"][3].update(state="lost"), "trials[3].state"),
        (lambda d: d["trials"][0]["measurement"]["latencies"][1].update(p50_s="5 ms"), "latencies[1].p50_s"),
        (lambda d: d["trials"][0]["quality"].pop("loss"), "trials[0].quality lacks 'loss'"),
        (lambda d: d.update(trials={}), "trials is {}, not a list"),
        (lambda d: d.update(chosen="no such recipe"), "'no such recipe'"),
        (lambda d: d.update(sensitivity={"a": []}), "sensitivity['a'] is [], not a number"),
        (lambda d: d.pop("breaches"), "breaches"),
    ],
)
def test_a_malformed_run_is_refused_in_two_lines(make_run: Make, tmp_path: Path, change: Any, named: str) -> None:
    data = plain(make_run())
    change(data)
    (tmp_path / "run.json").write_text(json.dumps(data))
    with pytest.raises(DataError) as caught:
        read_run(tmp_path / "run.json")
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DataError):
        read_run(tmp_path / "run.json")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(DataError, match="cannot be read"):
            read_run(path)


def test_a_run_that_cannot_be_written_says_so(make_run: Make, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_run(make_run(), tmp_path / "nowhere" / "run.json")
