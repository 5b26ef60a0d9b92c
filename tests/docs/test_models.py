"""What the pages on models and families show is run, on a small BERT that stands in for the reader's model."""

import doctest
import json
import sys
from pathlib import Path

import onnx
import pytest
from safetensors.numpy import save_file

from tightrope import plugins
from tightrope.workshop.network import Network
from tightrope.workshop.reference import reference

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


def folder_of(network: Network, path: Path, prefix: str = "", **settings: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(dict(network.config) | settings), encoding="utf-8")
    (path / "tokenizer.json").write_bytes(network.senses.tokenizer)
    save_file({f"{prefix}{name}": value for name, value in network.weights.items()}, path / "model.safetensors")
    return path


def examples_of(page: str) -> int:
    result = doctest.testfile(str(GUIDE / page), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    return result.attempted


@pytest.mark.engine
def test_the_page_on_models_is_true(tiny_bert: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path / "cache"))
    folder = folder_of(tiny_bert, tmp_path / "my-model")
    (folder / "onnx").mkdir()
    onnx.save(reference(tiny_bert), folder / "onnx" / "model.onnx")
    pickled = folder_of(tiny_bert, tmp_path / "pickled-model")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert examples_of("models.md") >= 10


def test_the_page_on_families_is_true(tiny_bert: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (GUIDE / "add-a-family.md").read_text(encoding="utf-8")
    source = text.partition("```python title=electra.py\n")[2].partition("```")[0]
    (tmp_path / "electra_family.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    known = plugins._modules
    added = {"electra": "electra_family"}  # as an entry point of the group tightrope.families would add it
    monkeypatch.setattr(plugins, "_modules", lambda room: known(room) | (added if room == "families" else {}))
    folder_of(tiny_bert, tmp_path / "an-electra", "electra.", model_type="electra", embedding_size=32)
    assert examples_of("add-a-family.md") >= 3
    sys.modules.pop("electra_family", None)


def test_the_page_on_models_names_every_family_and_source() -> None:
    text = (GUIDE / "models.md").read_text(encoding="utf-8")
    assert [name for name in plugins.names("families") if f"`{name.replace('_', '-')}`" not in text] == []
    assert all(written in text for written in ("`hf:", "`hf-cache:", "`pypi:", ".onnx`"))
