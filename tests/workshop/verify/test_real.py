"""The real model on real data: the figures that are known for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tightrope.samples import Texts
from tightrope.workshop.data import read
from tightrope.workshop.network import Network
from tightrope.workshop.texts import default_texts
from tightrope.workshop.verify.answers import Answers, answers_of, open_reference
from tightrope.workshop.verify.parity import first_divergence
from tightrope.workshop.verify.quality import judge

pytestmark = [pytest.mark.engine, pytest.mark.network]


@pytest.mark.slow
def test_sts_benchmark(minilm: Network, data: Path) -> None:
    samples = read(data / "stsbenchmark" / "sts-dev.csv")
    answers = answers_of(open_reference(minilm, threads=2), samples)
    found = judge(samples, answers, answers, name="sts-dev.csv")
    assert found.original == pytest.approx(0.8672, abs=0.002)


@pytest.mark.slow
def test_cranfield(minilm: Network, data: Path) -> None:
    samples = read(data / "cranfield_retrieval")
    short = minilm.rewrite(senses=replace(minilm.senses, max_length=64))  # the beginnings: a quarter of the time
    answers = answers_of(open_reference(short, threads=2), samples)
    found = judge(samples, answers, answers, name="cranfield")
    assert 0.3 < found.original < 0.45
    assert 1000 < answers.truncated < 1400


def test_fidelity_falls_with_noise(minilm: Network) -> None:
    samples = Texts(default_texts(["en"], "report")[::3])
    original = answers_of(open_reference(minilm), samples)
    noise = np.random.default_rng(0).normal(0, 0.01, original.values.shape).astype(np.float32)
    found = judge(samples, Answers(kind="embedding", values=original.values + noise), original, name="texts")
    assert 0.95 < found.score < 0.995
    assert 0.75 < found.beside["recall@10"] < 1


def test_a_spoilt_layer_of_the_real_model_is_named(minilm: Network) -> None:
    weight = minilm.weights["encoder.layer.3.intermediate.dense.weight"]
    candidate = minilm.rewrite(weights={"encoder.layer.3.intermediate.dense.weight": np.roll(weight, 1, axis=0)})
    named = first_divergence(candidate, minilm, default_texts(["en"], "seen")[:4])
    assert named == "encoder.layer.3.intermediate.dense"
