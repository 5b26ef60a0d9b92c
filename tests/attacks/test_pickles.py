"""Pickled weights: never read, whatever they are called, and a way out is given."""

import pickle

import pytest

from tightrope.workshop.load import load


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt", "model.pkl", "pytorch_model-00001-of-00002.bin"],
)
def test_a_pickle_is_refused_unread(victim, refused, name):
    (victim / "model.safetensors").unlink()
    (victim / name).write_bytes(pickle.dumps(Evil()))
    said = refused(lambda: load(str(victim)))
    assert name in said and "tightrope[torch]" in said and "safetensors" in said


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pickle_under_another_name_is_refused_unread(victim, refused, name):
    (victim / name).write_bytes(pickle.dumps(Evil()))
    refused(lambda: load(str(victim)))


def test_a_pickle_beside_safetensors_is_not_touched(victim):
    (victim / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert load(str(victim)).task.width == 32


def test_a_module_with_pickled_weights_is_refused_unread(victim, refused):
    import json

    kinds = ("Transformer", "Pooling", "Dense")
    modules = [{"type": f"x.{kind}", "path": f"{i}_{kind}" if i else ""} for i, kind in enumerate(kinds)]
    (victim / "modules.json").write_text(json.dumps(modules))
    for folder, config in (("1_Pooling", {"pooling_mode": "mean"}), ("2_Dense", {"activation_function": "x"})):
        (victim / folder).mkdir()
        (victim / folder / "config.json").write_text(json.dumps(config))
    settings = {"activation_function": "torch.nn.modules.activation.Tanh"}
    (victim / "2_Dense" / "config.json").write_text(json.dumps(settings))
    (victim / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert "pytorch_model.bin" in refused(lambda: load(str(victim)))
