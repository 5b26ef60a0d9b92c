"""Models to spoil: the fixtures of the workshop's tests, made for the attacks too."""

import json
from pathlib import Path

import onnx
import pytest
from safetensors.numpy import save_file

from tightrope.workshop.reference import reference

collect_ignore = ["deploy_steps.py"]
"""A program for a library of its own, not a test."""


@pytest.fixture
def victim(tmp_path, tiny_bert) -> Path:
    """The tiny BERT as a folder, to be spoilt."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(tiny_bert.config)))
    (folder / "tokenizer.json").write_bytes(tiny_bert.senses.tokenizer)
    save_file(dict(tiny_bert.weights), folder / "model.safetensors")
    return folder


@pytest.fixture
def victim_onnx(victim, tiny_bert) -> Path:
    """The tiny BERT as an ONNX file, to be spoilt."""
    onnx.save(reference(tiny_bert), victim / "model.onnx")
    return victim / "model.onnx"


@pytest.fixture
def refused():
    """`refused(do)`: run it and expect an error of ours with two lines and nothing else; returns its text."""
    from tightrope.errors import TightropeError

    def check(do) -> str:
        with pytest.raises(TightropeError) as raised:
            do()
        lines = str(raised.value).splitlines()
        assert len(lines) == 2 and all(lines), lines
        return str(raised.value)

    return check
