"""A torch module through its exporter: the same answers, settings beside the file, and a refusal in two lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.errors import UnsupportedError
from tightrope.workshop.load import load
from tightrope.workshop.passes import reparameterize
from tightrope.workshop.reference import opened, reference

torch = pytest.importorskip("torch")
source = pytest.importorskip("tightrope.workshop.sources.torch_module")

PREPROCESSING = {"do_resize": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2}


class Two(torch.nn.Module):  # type: ignore[misc]
    """Two branches and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        nn = torch.nn
        self.wide = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.point = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 4)
        for norm in (self.wide[1], self.point[1]):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.wide(x) + self.point(x)).mean((2, 3)))


def test_a_module_is_a_graph_with_the_same_answers() -> None:
    module = Two().train()
    graph = source.load(module, (8, 10), PREPROCESSING, ["a", "b", "c", "d"])
    assert module.training and graph.task.labels == ("a", "b", "c", "d")
    pixels = np.random.default_rng(0).normal(size=(1, 3, 8, 10)).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(pixels)).numpy()
    for model in (graph, reparameterize.merged(graph)):
        answer = opened(reference(model), threads=1).run(None, {"image": pixels})[0]
        assert np.abs(answer - expected).max() <= 1e-5
    assert len(reparameterize.merged(graph).convolutions()) == 1


def test_a_module_is_written_where_any_command_takes_it(tmp_path: Path) -> None:
    path = source.write(Two(), tmp_path / "two" / "model.onnx", (8, 8), PREPROCESSING)
    assert load(str(path)).task.labels == ("0", "1", "2", "3")
    assert json.loads(path.with_name("preprocessor_config.json").read_text()) == PREPROCESSING


def test_a_module_that_cannot_be_exported_says_why() -> None:
    with pytest.raises(UnsupportedError, match="Linear cannot be exported") as error:
        source.load(torch.nn.Linear(3, 4), (8, 8), PREPROCESSING)
    assert error.value.hint
