"""Proof elsewhere: on workers that are really other processes, and on those that are not what they should be."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tightrope import bundle
from tightrope.device import engine
from tightrope.device.meter import elsewhere
from tightrope.device.meter.elsewhere import Place, emulated, instruction_sets, prove_at
from tightrope.errors import BenchError, BundleError, MissingExtraError

WORKER = shlex.join([sys.executable, "-m", "tightrope", "bench-worker"])


@pytest.fixture(scope="module")
def tiny(native_bundle, tmp_path_factory):
    """A small bundle for the native engine."""
    return native_bundle(tmp_path_factory.mktemp("bundles") / "tiny.bundle")


def test_a_worker_answers_as_was_recorded(tiny):
    outcome = prove_at(tiny, Place(name="here", command=WORKER))
    assert outcome.holds and outcome.error == ""
    assert outcome.proof.engine == "native"
    assert outcome.proof.expected.largest_difference == 0


def test_every_instruction_set_answers_and_is_what_it_says(tiny):
    places = instruction_sets()
    assert [place.name for place in places] == list(engine.isas())
    outcomes = [prove_at(tiny, place) for place in places]
    assert all(outcome.holds for outcome in outcomes), outcomes
    fused = [outcome for outcome in outcomes if outcome.place != "plain"]
    assert {outcome.proof.expected for outcome in fused} <= {outcomes[0].proof.expected}


def test_an_instruction_set_that_is_not_here_is_an_outcome(tiny):
    outcome = prove_at(tiny, Place(name="elsewhere", command=f"env TIGHTROPE_ISA=fast {WORKER}"))
    assert not outcome.holds and outcome.proof is None
    assert "fast" in outcome.error


@pytest.mark.parametrize(
    "command", ["false", f"{shlex.quote(sys.executable)} -c 'import os; os.abort()'", "/nowhere/worker"]
)
def test_a_crash_is_an_outcome(tiny, command):
    outcome = prove_at(tiny, Place(name="elsewhere", command=command))
    assert not outcome.holds and outcome.error


def test_an_engine_that_the_bundle_lacks_is_an_outcome(tiny):
    outcome = prove_at(tiny, Place(name="here", command=WORKER), engine="openvino")
    assert not outcome.holds and "openvino" in outcome.error


def test_wrong_answers_do_not_hold(native_bundle, tmp_path):
    wrong = native_bundle(tmp_path / "wrong.bundle", claim=lambda rows: np.roll(rows, 1, axis=1))
    outcome = prove_at(wrong, Place(name="here", command=WORKER))
    assert not outcome.holds and outcome.proof is not None


def test_a_bundle_without_proof_is_refused(tiny, tmp_path):
    from dataclasses import replace

    bare = replace(tiny, content=replace(tiny.content, vectors={}))
    with pytest.raises(BundleError, match="holds no texts"):
        prove_at(bare, Place(name="here", command=WORKER))


def test_what_emulation_needs_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtraError, match="qemu-aarch64-static") as raised:
        emulated(tmp_path)
    assert "apt-get install" in raised.value.hint
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv(elsewhere.ROOT, raising=False)
    with pytest.raises(MissingExtraError, match="no Python") as raised:
        emulated()
    assert elsewhere.ROOT in raised.value.hint
    with pytest.raises(BenchError, match="holds no Python"):
        emulated(tmp_path)


def test_emulated_processors_are_those_with_and_without_dot_products(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.11").touch()
    (tmp_path / "opt/tightrope/tightrope").mkdir(parents=True)
    places = emulated(tmp_path)
    assert [place.name for place in places] == ["cortex-a72", "neoverse-n1", "max"]
    assert all(f"-L {tmp_path}" in place.command and "bench-worker" in place.command for place in places)


@pytest.mark.slow
def test_the_same_bits_on_arm(tiny, qemu):
    root = Path(os.environ.get(elsewhere.ROOT, Path(__file__).parents[3] / "build/arm/root"))
    if not root.is_dir():
        pytest.skip("needs Python for 64-bit ARM: engine/arm.sh root")
    for place in emulated(root):
        outcome = prove_at(tiny, place)
        assert outcome.holds, outcome
        assert outcome.proof.expected.cosine_min >= 0.9999


def test_the_command_says_it_of_each_place(tiny, capsys):
    from click.testing import CliRunner

    from tightrope.cli.main import cli

    done = CliRunner().invoke(cli, ["verify", str(tiny.path), "--bench", WORKER], standalone_mode=False)
    assert done.exit_code == 0 and "bench: agrees on 8 texts" in done.stdout
    done = CliRunner().invoke(cli, ["verify", str(tiny.path), "--bench", "false", "--json"], standalone_mode=False)
    assert '"holds": false' in done.stdout and done.return_value == 3
    assert bundle.read(tiny.path).digest in done.stdout
