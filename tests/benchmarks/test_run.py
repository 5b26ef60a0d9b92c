"""The run's own arithmetic, and the worker's conversation, without any peer."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers.adapters.direct import by_budget
from benchmarks.peers.corpus import corpus_folder
from benchmarks.peers.environments import ENVIRONMENTS, Environment, is_built
from benchmarks.peers.limit import compile_limit, fastest
from benchmarks.peers.rounds import Plan, cosines
from benchmarks.peers.worker import FEWEST_CALLS, WARM_S, Worker, _block, serve
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import DataError


@given(st.lists(st.integers(1, 256), min_size=1), st.sampled_from([0, 256, 1024]))
def test_every_text_is_in_one_batch_and_no_batch_is_over_the_budget(lengths, budget):
    plan = by_budget(lengths, budget)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@given(st.integers(1, 50), st.data())
def test_corpus_rounds_are_as_many_as_asked_for(rounds, data):
    wanted = data.draw(st.integers(0, rounds))
    plan = Plan(rounds=rounds, corpus_rounds=wanted, cold_starts=1)
    assert sum(plan.with_corpus(index) for index in range(rounds)) == wanted


def test_a_block_begins_with_calls_that_are_not_counted_and_is_long(monkeypatch):
    calls = []

    def timed(call):
        call()
        return 0.01, 0.01

    monkeypatch.setattr("benchmarks.peers.worker._timed", timed)
    cpu, _ = _block(lambda: calls.append(1), 0.15)
    assert sum(cpu) == pytest.approx(0.15)
    assert len(calls) - len(cpu) == WARM_S / 0.01  # the caches are warm after these
    assert WARM_S >= 0.04 and Plan(rounds=1, corpus_rounds=1, cold_starts=1).seconds >= 0.15


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_limits_of_this_processor_are_measured(tmp_path):
    per_s = compile_limit(tmp_path).measure()
    assert all(rate > 1e8 for rate in per_s.values())
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "amx_int8" in flags:
        assert fastest(per_s) == "amx-int8" and len(per_s) == 2


def test_cosines_do_not_depend_on_length():
    rows = np.array([[1.0, 0.0], [3.0, 4.0]], np.float32)
    found = cosines(rows, np.array([[2.0, 0.0], [4.0, 3.0]], np.float32))
    assert found["min"] == pytest.approx(0.96)
    assert found["mean"] == pytest.approx(0.98)


def test_an_environment_is_built_only_with_these_very_requirements(tmp_path):
    environment = Environment("one", (("a==1",),))
    stamp = tmp_path / "environments" / "one" / "finished"
    assert not is_built(tmp_path, environment)
    stamp.parent.mkdir(parents=True)
    stamp.write_text(environment.digest)
    assert is_built(tmp_path, environment)
    assert not is_built(tmp_path, Environment("one", (("a==2",),)))


def test_every_requirement_is_pinned():
    for environment in ENVIRONMENTS.values():
        assert all("==" in requirement for stage in environment.stages for requirement in stage)


def test_missing_texts_are_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TIGHTROPE_BENCH", str(tmp_path))
    with pytest.raises(DataError, match=r"corpus\.txt is missing") as caught:
        corpus_folder()
    assert "TIGHTROPE_BENCH" in caught.value.hint


def test_a_worker_answers_in_lines_and_survives_a_failure(tmp_path, monkeypatch):
    class OnePeer:
        batchings = (0, 8)
        files = ()
        versions = {"one": "1.0"}  # noqa: RUF012

        def encode(self, texts):
            return np.ones((len(texts), 2), np.float32)

        def encode_all(self, texts, batching):
            return np.full((len(texts), 2), batching, np.float32)

        def engine(self, text):
            return None if text == "whole" else lambda: None

    monkeypatch.setattr("benchmarks.peers.worker.open_peer", lambda adapter, options: OnePeer())
    out = tmp_path / "vectors.npy"
    requests = [
        {"do": "open", "text": "a"},
        {"do": "texts", "texts": ["a", "b", "c"]},
        {"do": "latency", "text": "a", "seconds": 0.0},
        {"do": "latency", "text": "whole", "seconds": 0.0},
        {"do": "throughput", "batching": 8, "every": 2},
        {"do": "nonsense"},
        {"do": "encode", "batching": 8, "out": str(out)},
        {"do": "memory"},
    ]
    answers = io.StringIO()
    serve(Worker("one", {}, False), io.StringIO("".join(json.dumps(item) + "\n" for item in requests)), answers)
    opened, _, latency, whole, throughput, failed, _, memory = map(json.loads, answers.getvalue().splitlines())
    assert opened["versions"] == {"one": "1.0"}
    assert opened["batchings"] == [0, 8]
    assert len(latency["cpu_s"]) == len(latency["wall_s"]) == FEWEST_CALLS
    assert len(latency["engine_cpu_s"]) == FEWEST_CALLS and whole["engine_cpu_s"] == []
    assert throughput["texts"] == 2
    assert failed == {"error": "AttributeError: 'Worker' object has no attribute 'do_nonsense'"}
    assert np.array_equal(np.load(out), np.full((3, 2), 8, np.float32))
    assert memory["peak_bytes"] > 1_000_000
