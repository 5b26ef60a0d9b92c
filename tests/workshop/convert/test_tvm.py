"""TVM compiles in a process of its own: what becomes of it when that crashes, hangs or cannot begin."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tightrope import plugins
from tightrope.errors import EngineError, UnsupportedError
from tightrope.workshop.converted import convert
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.reference import opened, reference

pytestmark = [pytest.mark.engine, pytest.mark.slow]
WEIGHT = "encoder.layer.0.output.dense.weight"


@pytest.fixture(autouse=True)
def _tvm(need_engine, tmp_path_factory, monkeypatch):
    need_engine("tvm")
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def converter():
    return plugins.load("converters", "tvm")


@pytest.fixture
def python(tmp_path, monkeypatch, converter):
    """python(script): let a shell script stand in for the Python that compiles."""

    def put(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(converter.sys, "executable", str(path))
        monkeypatch.setattr(converter, "_made", {})

    return put


def test_without_a_compiler_it_says_so(cnn, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="C compiler") as caught:
        convert(cnn, "tvm")
    assert len(str(caught.value).splitlines()) == 2


def test_a_crash_is_an_error_of_two_lines(cnn, python):
    python("kill -SEGV $$")
    with pytest.raises(UnsupportedError, match=r"crashed \(signal 11\)") as caught:
        convert(cnn, "tvm")
    assert len(str(caught.value).splitlines()) == 2


def test_an_end_without_a_library_is_an_error(cnn, python):
    python("exit 0")
    with pytest.raises(UnsupportedError, match="cannot compile"):
        convert(cnn, "tvm")


def test_a_hang_ends_at_the_limit(cnn, python, converter):
    python("exec sleep 60")
    with pytest.raises(UnsupportedError, match=r"more than 0\.5 s"):
        converter.convert(cnn, limit_s=0.5)


def test_a_search_for_better_loops_wants_fixed_shapes(tiny_bert, converter):
    with pytest.raises(UnsupportedError, match="fixed shapes"):
        converter.convert(tiny_bert, trials=2)


def test_an_operator_that_it_does_not_know_is_named(cnn):
    proto = type(cnn.proto)()
    proto.CopyFrom(cnn.proto)
    for node in proto.graph.node:
        if node.op_type == "HardSwish":
            node.CopyFrom(helper.make_node("Bernoulli", node.input, node.output, name=node.name))
    with pytest.raises(UnsupportedError, match="Bernoulli"):
        convert(replace(cnn, proto=proto), "tvm")


def test_convolutions(cnn, coded_cnn, answers_of):
    x = {"image": np.random.default_rng(1).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}
    for model, precision in ((cnn, "fp32"), (coded_cnn, "wint8")):
        found = convert(model, "tvm")
        assert np.abs(answers_of(found, x) - opened(reference(model), threads=1).run(None, x)[0]).max() <= 1e-5
        assert found.precision == precision


def test_code_is_run_only_if_this_user_trusts_it(cnn, tmp_path):
    found = convert(cnn, "tvm")
    runtime = plugins.load("runtimes", "tvm")
    files = found.write(tmp_path)
    runtime.open_artefact(files, found.settings, threads=1).close()
    for note in (Path(os.environ["TIGHTROPE_CACHE"]) / "trusted-code").iterdir():
        note.unlink()
    with pytest.raises(EngineError, match="machine code") as caught:
        runtime.open_artefact(files, found.settings, threads=1)
    assert len(str(caught.value).splitlines()) == 2
    runtime.trust(files["model"].read_bytes())
    runtime.open_artefact(files, found.settings, threads=1).close()


def test_the_same_model_gives_the_same_library_and_weights_alone_need_none(tiny_bert, converter, monkeypatch):
    weight = round_to_nearest(tiny_bert.weights[WEIGHT], bits=8, block=None, symmetric=True)
    monkeypatch.setattr(converter, "_made", {})
    first = convert(tiny_bert, "tvm")
    coded = convert(tiny_bert.rewrite(weights={WEIGHT: weight}), "tvm")
    assert len(converter._made) == 1
    assert coded.files["model"] == first.files["model"]
    across = np.ascontiguousarray(weight.codes.T)
    assert across.tobytes() in coded.files["weights"][1]
    monkeypatch.setattr(converter, "_made", {})
    assert convert(tiny_bert, "tvm") == first


def test_the_order_of_loops_changes_no_answer_and_no_number_goes_out_of_bounds(tiny_bert, converter, tmp_path):
    ids, answers = np.array([2, 5, 9, 3], np.int32), []
    runtime = plugins.load("runtimes", "tvm")
    for name, schedule in (("plain", False), ("ordered", True)):
        found = converter.convert(tiny_bert, schedule=schedule)
        (tmp_path / name).mkdir()
        session = runtime.open_artefact(found.write(tmp_path / name), found.settings, threads=1)
        answers.append(session.run({"input_ids": ids, "offsets": np.array([0, 4])})["embedding"])
        for wrong in (ids + 100, ids - 5):
            with pytest.raises(EngineError, match="input_ids goes beyond"):
                session.run({"input_ids": wrong, "offsets": np.array([0, 4])})
        with pytest.raises(EngineError, match="positions goes beyond"):
            session.run({"input_ids": np.ones(65, np.int32), "offsets": np.array([0, 65])})
        session.close()
    assert np.allclose(*answers, atol=1e-5)
