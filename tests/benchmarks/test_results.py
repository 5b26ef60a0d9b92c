"""A whole run with made-up workers: from the first question to the table."""

import numpy as np
import pytest
from benchmarks.peers import rounds
from benchmarks.peers.candidates import Candidate
from benchmarks.peers.corpus import LENGTHS, Corpus
from benchmarks.peers.results import results
from benchmarks.peers.rounds import Plan, Run
from benchmarks.table import summary, table

SPEEDS = {"onnxruntime_int8": 1.0, "openvino_int8": 2.0, "tightrope_native": 4.0}
VECTORS = np.eye(3, 4, dtype=np.float32)


class FakeLimit:
    def measure(self):
        return {"avx512-vnni": 4e11, "amx-int8": 3e12}


class FakeConversation:
    """A worker that is as fast as its name says; the first one open is hampered by a factor."""

    hampered: dict[str, float]
    open_now: list[str]

    def __init__(self, work, candidate):
        self._name = candidate.name
        self._kept_open = candidate.name not in self.open_now
        self.open_now.append(candidate.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, do, **what):
        speed = SPEEDS[self._name] / (self.hampered.get(self._name, 1.0) if self._kept_open else 1.0)
        if do == "open":
            facts = {"versions": {}, "file_bytes": 10, "batchings": [0, 8], "priority": False}
            return facts | {"cpu_s": 0.1, "peak_bytes": 5}
        if do == "latency":
            seconds = [len(what["text"]) / 1e4 / speed] * 5
            return {"cpu_s": seconds, "wall_s": seconds, "engine_cpu_s": [] if self._name[0] == "t" else seconds}
        if do == "throughput":
            return {"cpu_s": 1 / speed, "wall_s": 1 / speed}
        if do == "encode":
            np.save(what["out"], VECTORS)
        return {"peak_bytes": 7}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(hampered={})`: what a run with these workers found."""

    def go(hampered=None):
        monkeypatch.setattr(FakeConversation, "hampered", hampered or {}, raising=False)
        monkeypatch.setattr(FakeConversation, "open_now", [], raising=False)
        monkeypatch.setattr(rounds, "Conversation", FakeConversation)
        (tmp_path / "models").mkdir(exist_ok=True)
        np.save(tmp_path / "models" / "reference.npy", VECTORS)
        corpus = Corpus(("a", "b", "c"), (), (12, 32, 128), {length: "x" * length for length in LENGTHS})
        plan = Plan(rounds=4, corpus_rounds=2, cold_starts=2)
        found = Run(tmp_path, corpus, plan, FakeLimit(), lambda _: None)
        found.measure(
            [
                Candidate(name=name, label=name, environment=None, adapter=name.partition("_")[0], options={})
                for name in SPEEDS
            ]
        )
        return results(found, 0)

    return go


def test_a_quiet_run_counts_by_what_each_did_alone(run):
    found = run()
    assert found["validity"] == {
        "valid": True,
        "yardstick": "alone",
        "shares": {
            name: dict.fromkeys(("12", "32", "128", "corpus"), 1.0) for name in ("onnxruntime_int8", "openvino_int8")
        },
        "reasons": [],
    }
    assert "than alone" in summary(found)


def test_a_peer_that_its_neighbours_hamper_spoils_the_run(run):
    found = run({"openvino_int8": 1.5})
    assert found["validity"]["valid"] is False
    assert "openvino_int8 is" in found["validity"]["reasons"][0]
    assert "than it was alone" in found["validity"]["reasons"][0]


def test_we_may_be_hampered_and_the_run_still_counts(run):
    assert run({"tightrope_native": 3.0})["validity"]["valid"] is True


def test_a_bundle_of_ours_is_held_against_both_references_and_both_limits(run):
    found = run()
    quantity = found["candidates"]["tightrope_native"]["quantities"]["32"]
    assert {name: ratio["value"] for name, ratio in quantity["speed_ratio"].items()} == {
        "onnxruntime_int8": pytest.approx(4),
        "openvino_int8": pytest.approx(2),
    }
    assert set(quantity["limit_share"]) == {"avx512-vnni", "amx-int8"}
    assert quantity["engine_limit_share"] is None
    assert found["candidates"]["openvino_int8"]["quantities"]["32"]["engine_limit_share"]["amx-int8"]["value"] > 0
    assert len(quantity["alone_s"]) == 2 and len(quantity["rounds_s"]) == 4
    assert found["limit"]["instructions"] == "amx-int8"
    assert found["candidates"]["tightrope_native"]["cosine"] == {"min": 1.0, "mean": 1.0}
    assert "times as fast as openvino_int8" in table(found)
