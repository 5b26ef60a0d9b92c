"""Measuring: with a worker that tells known numbers, and with a real one."""

import dataclasses
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.device.meter.bench import LOCAL, Bench
from tightrope.device.meter.run import Place, Plan, Subject, measure, measure_bundle
from tightrope.device.senses.text import Tokenizer
from tightrope.errors import BenchError, BundleError, DataError
from tightrope.measurement import Measurement
from tightrope.recipe import Recipe
from tightrope.workshop.assemble import Origin, Vectors, assemble
from tightrope.workshop.converted import convert
from tightrope.workshop.network import Network

FAKE = Place(command=shlex.join([sys.executable, str(Path(__file__).with_name("fake_worker.py"))]), target="a stove")
QUICK = Plan(seconds=0.5, least_rounds=2, most_rounds=4, lengths=(12, 32, 128))


def test_known_numbers_become_a_measurement(bundle_without_engine: Bundle, sentences: tuple[str, ...]) -> None:
    found = measure(bundle_without_engine, sentences, QUICK, FAKE)
    assert [item.tokens for item in found.latencies] == [12, 32]  # 128 is more than the model takes
    assert found.latencies[0].p50_s == found.latencies[0].p99_s == 0.002
    assert found.latencies[0].speedup is None
    assert found.throughput_per_s == len(sentences) / 0.5
    assert found.memory_peak_bytes == 50_000_000
    assert found.memory_steady_bytes == 40_000_000
    assert found.memory_above_interpreter_bytes == 40_000_000
    assert found.cold_start_s == 0.25 + 0.5 + 1.0 + 0.125  # start, imports, opening, first answer
    assert found.energy_j is None
    assert found.size_bytes == bundle_without_engine.size_bytes
    conditions = found.conditions
    assert (conditions.target, conditions.processor, conditions.isa) == ("a stove", "Fake 1", ("abacus",))
    assert (conditions.engine, conditions.engine_version, conditions.threads) == ("fake", "1", 1)
    assert not conditions.pinned and conditions.baseline is None


def test_equal_times_are_a_ratio_of_one(bundle_without_engine: Bundle, sentences: tuple[str, ...]) -> None:
    with Subject(bundle_without_engine, sentences, QUICK, FAKE) as original:
        found = measure(bundle_without_engine, sentences, QUICK, FAKE, against=original)
        again = measure(bundle_without_engine, sentences, QUICK, FAKE, against=original)
    for item in (*found.latencies, *again.latencies):
        assert item.speedup is not None
        assert (item.speedup.low, item.speedup.value, item.speedup.high) == (1, 1, 1)
        assert item.speedup.n >= 2
    assert found.conditions.baseline == "fake"


def test_a_bundle_is_measured_with_the_texts_it_carries(bundle_without_engine: Bundle) -> None:
    assert FAKE.command is not None
    found = measure_bundle(bundle_without_engine, lengths=(12,), bench=FAKE.command, seconds=0.2)
    assert found.conditions.target == "the bench"  # never the command, which may name people and hosts
    assert found.throughput_per_s == 5 / 0.5
    beside = measure_bundle(
        bundle_without_engine, lengths=(12,), against=bundle_without_engine.path, bench=FAKE.command, seconds=0.2
    )
    assert beside.latencies[0].speedup is not None


def test_a_model_that_scores_is_given_pairs(scoring_bundle_without_engine: Bundle, sentences: tuple[str, ...]) -> None:
    with Subject(scoring_bundle_without_engine, sentences, QUICK, FAKE) as subject:
        assert all(isinstance(item, tuple) and len(item) == 2 for item in subject._texts)


def test_the_most_texts_are_kept_and_the_longest_is_among_them(
    bundle_without_engine: Bundle, sentences: tuple[str, ...]
) -> None:
    plan = Plan(texts=2)
    with Subject(bundle_without_engine, sentences, plan, FAKE) as subject:
        assert len(subject._texts) == 2
        assert max(sentences, key=len) in subject._texts


def test_no_texts(bundle_without_engine: Bundle) -> None:
    with pytest.raises(DataError, match="no texts"):
        measure(bundle_without_engine, [], QUICK, FAKE)


def test_a_crash_is_an_error_and_the_original_lives_on(
    bundle_without_engine: Bundle, sentences: tuple[str, ...]
) -> None:
    with Subject(bundle_without_engine, sentences, QUICK, FAKE) as original:
        with pytest.raises(BenchError, match="SIGSEGV"):
            measure(bundle_without_engine, sentences, QUICK, Place(command=f"{FAKE.command} crash"), against=original)
        assert original.text(12)


def test_the_interval_is_stored_and_read_back(bundle_without_engine: Bundle, sentences: tuple[str, ...]) -> None:
    with Subject(bundle_without_engine, sentences, QUICK, FAKE) as original:
        found = measure(bundle_without_engine, sentences, QUICK, FAKE, against=original)
    assert Measurement.from_json(found.to_json()) == found


# With the real worker and engine ---------------------------------------------------------------------------


@pytest.mark.engine
def test_a_real_bundle_beside_itself(float_bundle: Bundle, sentences: tuple[str, ...]) -> None:
    plan = Plan(seconds=1.0, least_rounds=4, most_rounds=12, lengths=(12, 32, 128))
    with Subject(float_bundle, sentences, plan) as original:
        found = measure(float_bundle, sentences, plan, against=original)
    assert [item.tokens for item in found.latencies] == [12, 32]  # this model takes 64 at most
    for item in found.latencies:
        assert item.speedup is not None
        assert 0 < item.speedup.low <= item.speedup.value <= item.speedup.high
        assert 0 < item.p50_s <= item.p95_s <= item.p99_s
    assert found.conditions.engine == found.conditions.baseline == "onnxruntime"
    assert found.conditions.pinned == (sys.platform == "linux")
    assert found.conditions.target == "this machine"
    assert found.memory_peak_bytes is not None and found.memory_above_interpreter_bytes is not None
    assert 20e6 < found.memory_above_interpreter_bytes < found.memory_peak_bytes < 500e6
    assert found.throughput_per_s is not None and found.throughput_per_s > 1
    assert found.cold_start_s is not None and found.cold_start_s > 0
    assert Measurement.from_json(found.to_json()) == found


@pytest.mark.engine
def test_a_bench_that_cannot_see_the_bundle_is_sent_it_once(
    float_bundle: Bundle, sentences: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command stands for another machine: its worker looks for the bundle under another root."""
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path / "cache"))
    code = (
        "from tightrope.device.meter import verbs, worker; find = verbs.Worker.find; "
        "verbs.VERBS['find'] = lambda self, request, data: find(self, {**request, 'path': '/elsewhere'}, data); "
        "raise SystemExit(worker.main())"
    )
    elsewhere = shlex.join([sys.executable, "-c", code])
    with Bench(elsewhere) as bench:
        there = Path(bench.bring(float_bundle))
        assert there.is_relative_to(tmp_path / "cache") and there.name == float_bundle.digest
        written = there.stat().st_mtime_ns
        assert bench.bring(float_bundle) == str(there)
        assert there.stat().st_mtime_ns == written
        bench.request("open", {"path": str(there), "threads": 1, "cores": None})
        rows, _ = bench.answers(list(sentences))
    expected = np.load(float_bundle.file(float_bundle.content.vectors["expected"]))
    assert np.abs(rows - expected).max() < 1e-4


@pytest.mark.engine
def test_a_broken_bundle_is_the_workers_error(float_bundle: Bundle, sentences: tuple[str, ...], tmp_path: Path) -> None:
    copy = tmp_path / "broken.bundle"
    shutil.copytree(float_bundle.path, copy)
    model = copy / float_bundle.content.models[0].artefacts[0].files["model"]
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(BundleError, match="was changed"):
        measure(copy, sentences, Plan(seconds=0.5))


@pytest.mark.engine
def test_a_command_that_starts_the_same_worker_is_as_good(float_bundle: Bundle, sentences: tuple[str, ...]) -> None:
    found = measure(
        float_bundle, sentences, Plan(seconds=0.5, lengths=(12,)), Place(command=shlex.join(LOCAL), target="next door")
    )
    assert found.conditions.target == "next door"
    assert found.cold_start_s is not None and 0 < found.cold_start_s < 60


@pytest.mark.engine
def test_a_text_of_exact_length_counts_the_default_prompt(tiny_bert: Network, tmp_path: Path) -> None:
    senses = dataclasses.replace(tiny_bert.senses, prompts={"query": "the cat "}, default_prompt="query")
    model = tiny_bert.rewrite(senses=senses)
    recipe = Recipe.parse("original -> onnxruntime")
    vectors = Vectors(inputs=["dogs bark at night"])
    origin = Origin(source="tiny", recipe=recipe, calibration={})
    assemble(model, convert(model, "onnxruntime"), origin, vectors, tmp_path / "prompted.bundle")
    with Subject(tmp_path / "prompted.bundle", vectors.inputs, QUICK) as subject:
        text = subject.text(12)
    assert Tokenizer(senses.tokenizer, 64).encode(["the cat " + text]).ids.lengths.tolist() == [12]
