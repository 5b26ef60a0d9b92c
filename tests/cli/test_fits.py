"""Whole fits through the command line: other tasks, other doors, things that break on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tightrope.device import engine
from tightrope.workshop.network import Network
from tightrope.workshop.reference import reference
from tightrope.workshop.texts import default_texts

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Network) -> Path:
    """An encoder, the same as an ONNX file, a cross-encoder, and two files of labelled pairs."""
    folder = tmp_path_factory.mktemp("fits")
    for name in ("encoder", "scorer", "onnx"):
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_bytes(tiny_bert.senses.tokenizer)
    (folder / "onnx" / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    config = dict(tiny_bert.config)
    save_file(dict(tiny_bert.weights), folder / "encoder" / "model.safetensors")
    (folder / "encoder" / "config.json").write_text(json.dumps(config))
    (folder / "onnx" / "model.onnx").write_bytes(reference(tiny_bert).SerializeToString())
    random = np.random.default_rng(3)
    head = {
        "pooler.dense.weight": (32, 32),
        "pooler.dense.bias": (32,),
        "classifier.weight": (1, 32),
        "classifier.bias": (1,),
    }
    scores = dict(tiny_bert.weights) | {
        name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in head.items()
    }
    save_file(scores, folder / "scorer" / "model.safetensors")
    about = config | {"architectures": ["BertForSequenceClassification"], "num_labels": 1}
    (folder / "scorer" / "config.json").write_text(json.dumps(about))
    for name, half in (("seen.tsv", "seen"), ("report.tsv", "report")):
        texts = default_texts(("en",), half)  # type: ignore[arg-type]
        rows = [f"{texts[i]}\t{texts[i + 1] if i % 2 else texts[i][:40]}\t{1 - i % 2}" for i in range(90)]
        (folder / name).write_text("\n".join(["text_a\ttext_b\tlabel", *rows]) + "\n")
    return folder


def fit(folder: Path, *arguments: str, code: int = 0) -> dict[str, object]:
    """Run a fit of few recipes; returns the run that it wrote."""
    out = f"{len(list(folder.iterdir()))}.bundle"
    command = [
        sys.executable,
        "-m",
        "tightrope",
        "fit",
        *arguments,
        "--time",
        "60s",
        "--out",
        out,
        "--json",
        "run.json",
        "--force",  # the run of the fit before
    ]
    environment = os.environ | {"TIGHTROPE_CACHE": str(folder / "cache"), "TIGHTROPE_DATA": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    run: dict[str, object] = json.loads((folder / "run.json").read_text())
    return run


EASY = ("--budget", "loss<=60%", "--engines", "onnxruntime", "--recipe", "int8-simple")


def test_a_cross_encoder_on_pairs_of_its_own(home: Path) -> None:
    easy = (*EASY[:4], "--recipe", "half")  # it knows few words, and its scores lie close together
    run = fit(home, "scorer", "--data", "seen.tsv", "--report-data", "report.tsv", *easy)
    assert run["chosen"] == "half -> onnxruntime"
    report = run["report"]
    assert isinstance(report, dict)
    assert (report["kind"], report["metric"], report["samples"], report["n"]) == ("pairs", "auc", "report.tsv", 90)


def test_an_onnx_file_is_fitted_as_the_network_it_was(home: Path) -> None:
    graph, network = fit(home, "onnx/model.onnx", *EASY), fit(home, "encoder", *EASY)
    sizes = [run["trials"][0]["size_bytes"] for run in (graph, network)]  # type: ignore[index]
    assert graph["chosen"] == network["chosen"]
    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[1]


def test_a_second_run_takes_up_what_the_first_one_found(home: Path) -> None:
    fit(home, "encoder", *EASY)
    again = fit(home, "encoder", *EASY)
    assert all(trial["reused"] for trial in again["trials"])  # type: ignore[union-attr]


def test_what_really_ran_is_told_layer_by_layer(home: Path) -> None:
    run = fit(home, "encoder", *EASY)
    command = [sys.executable, "-m", "tightrope", "show", str(run["bundle"])]
    shown = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True).stdout
    assert "ran in" in shown and "% int8" in shown
    whole = subprocess.run([*command, "--json"], cwd=home, capture_output=True, text=True, check=True).stdout
    layers = json.loads(whole)["attachments"]["run"]["trials"][0]["layers"]
    assert set(layers.values()) == {"int8", "fp32"}
    assert any(name.startswith("encoder.layer.1.output.dense") for name in layers)


def test_the_native_engine_is_tried_on_every_instruction_set(home: Path) -> None:
    run = fit(home, "encoder", "--budget", "loss<=60%", "--recipe", "rotate + int8 -> native")
    agreement: dict[str, float] = run["agreement"]  # type: ignore[assignment]
    assert list(agreement) == list(engine.isas())
    assert all(least >= 0.999 for least in agreement.values())
    assert fit(home, "encoder", *EASY)["agreement"] == {}


def test_the_same_samples_are_not_quoted_twice(home: Path) -> None:
    command = [sys.executable, "-m", "tightrope", "fit", "encoder", "--data", "seen.tsv", "--report-data", "seen.tsv"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "same samples" in done.stderr


def test_a_judge_of_ones_own(home: Path) -> None:
    (home / "mine.py").write_text("def judge(embed):\n    return float(abs(embed(['the cat', 'sat'])).mean())\n")
    run = fit(home, "encoder", "--judge", "mine:judge", *EASY)
    assert run["report"]["kind"] == "mine:judge"  # type: ignore[index]


def test_a_bench_elsewhere_is_sent_the_bundle(home: Path) -> None:
    bench = f"{sys.executable} -m tightrope bench-worker"
    run = fit(home, "encoder", "--bench", bench, *EASY)
    assert run["target"] == "the bench" and run["chosen"]


def test_a_bench_that_is_not_the_target_is_refused(home: Path) -> None:
    bench = f"{sys.executable} -m tightrope bench-worker"
    command = [sys.executable, "-m", "tightrope", "fit", "encoder", "--bench", bench, "--target", "android-phone"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "android-phone is aarch64" in done.stderr


def test_a_recipe_that_breaks_is_a_failed_trial_and_not_the_end(home: Path) -> None:
    run = fit(home, "encoder", "--recipe", "vocab(corpus=nowhere.txt)", *EASY)
    states = {trial["recipe"].partition(" ")[0]: trial["state"] for trial in run["trials"]}  # type: ignore[union-attr]
    assert states == {"vocab(corpus=nowhere.txt)": "failed", "int8(granularity=tensor)": "timed"}


def test_an_interrupt_after_the_first_timing_keeps_the_best_so_far(home: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "tightrope",
        "fit",
        "encoder",
        "--budget",
        "loss<=60%",
        "--out",
        "kept.bundle",
    ]
    environment = os.environ | {"TIGHTROPE_CACHE": str(home / "another-cache")}
    process = subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if " timed " in line:
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert json.loads((home / "kept.run.json").read_text())["interrupted"] is True
    assert (home / "kept.bundle" / "manifest.json").is_file()
