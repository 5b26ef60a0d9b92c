"""`probe` and `predict` as a user calls them."""

import json

import pytest
from click.testing import CliRunner

from tightrope import target
from tightrope.cli.main import cli
from tightrope.errors import DataError, OutputError, TightropeError, UnknownNameError, UnsupportedError

KNOWN = {"once": 1e-4, "steps": 1e-6, "linear": 1e-11, "attention": 2e-11, "error": 0.08}


@pytest.fixture
def call():
    """`call(*words)`: what the command prints. Raises what it raises."""

    def run(*words: object):
        done = CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)
        if done.exception:
            raise done.exception
        return done.stdout

    return run


@pytest.fixture
def model(tmp_path, encoder_folder):
    """The tiny BERT as a folder."""
    return encoder_folder(tmp_path / "model")


@pytest.fixture
def probed(tmp_path):
    """A target file as a probe writes it."""
    from dataclasses import replace

    found = replace(target.load("raspberry-pi-5"), rates={"native int8": KNOWN})
    path = tmp_path / "pi.toml"
    path.write_text(target.written(found), encoding="utf-8")
    return path


def test_predictions_say_that_they_are_predictions(call, model, probed):
    said = call("predict", model, "--target", probed, "--precision", "int8", "--lengths", "5,40")
    assert "Nothing here was measured" in said
    assert said.count("off by 8% on its own models") == 2
    said = call("predict", model, "--target", "raspberry-pi-4", "--engines", "native", "--lengths", "5")
    assert said.count("from specifications") == 2


def test_predictions_as_json(call, model, probed):
    rows = json.loads(call("predict", model, "--target", probed, "--precision", "int8", "--lengths", "5,40", "--json"))
    assert [row["tokens"] for row in rows] == [5, 40]
    assert all(row["predicted"] is True and row["basis"] == "probe" for row in rows)
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"]
    work = rows[0]["costs"]
    expected = sum(work[name] * rate for name, rate in KNOWN.items() if name in work)
    assert rows[0]["seconds"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("--target", "toaster"), UnknownNameError, "toaster"),
        (("--target", "raspberry-pi-5", "--engines", "coreml"), UnsupportedError, "coreml"),
        (("--target", "raspberry-pi-5", "--precision", "int3"), UnknownNameError, "int3"),
        (("--target", "raspberry-pi-5", "--lengths", "many"), DataError, "many"),
        (("--target", "nowhere.toml"), DataError, "nowhere.toml"),
    ],
)
def test_what_cannot_be_predicted(call, model, words, kind, said):
    with pytest.raises(kind, match=said) as raised:
        call("predict", model, *words)
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "here.txt"), "here.txt"),
        (("--out", "nowhere/here.toml"), "no folder nowhere"),
        (("--engines", "steam"), "steam"),
        (("--precision", "int3"), "int3"),
    ],
)
def test_what_cannot_be_probed(call, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TightropeError, match=said):
        call("probe", *words)
    assert not list(tmp_path.iterdir())


def test_a_target_file_is_not_replaced_unasked(call, probed):
    before = probed.read_text()
    with pytest.raises(OutputError, match=r"pi\.toml"):
        call("probe", "--out", probed, "--engines", "native")
    assert probed.read_text() == before


@pytest.mark.engine
def test_a_probe_writes_a_target_that_predicts(call, tmp_path, model, monkeypatch):
    from tightrope.workshop.prediction import models, probing

    monkeypatch.setattr(models, "ENCODERS", models.ENCODERS[:2])
    monkeypatch.setattr(probing, "BLOCK_S", 0.002)
    monkeypatch.setattr(probing, "COPIED_BYTES", 1_000_000)
    out = tmp_path / "here.toml"
    said = call("probe", "--engines", "native", "--precision", "int8", "--out", out)
    assert "GMAC/s" in said and str(out) in said
    assert "native" in call("predict", model, "--target", out, "--precision", "int8", "--lengths", "9")
