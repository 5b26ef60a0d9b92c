"""What OpenVINO is given has the shape that it merges: seen in the graph that it compiles."""

from collections import Counter
from pathlib import Path

import pytest

from tightrope import plugins
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.converted import convert
from tightrope.workshop.observe import Observer

pytestmark = pytest.mark.engine

TEXTS = ["the cat sat on the mat", "a long walk along the river", "no"]
STATIC = "smooth(shift=true) + int8(activations=static)"


@pytest.fixture(scope="module")
def openvino():
    return pytest.importorskip("openvino")


def compiled(openvino, model, recipe: str, folder: Path) -> Counter[str]:
    """How many nodes of each kind are executed."""
    steps = Recipe.parse(f"{recipe} -> openvino").steps
    found = convert(compress(model, steps, Observer(model, TEXTS)), "openvino")
    files = {}
    for role, (suffix, data) in found.files.items():
        files[role] = folder / f"{role}.{suffix}"
        files[role].write_bytes(data)
    runtime = plugins.load("runtimes", "openvino")
    whole = runtime._compile(files, found.settings, 1).get_runtime_model()
    return Counter(str(node.get_rt_info()["layerType"].astype(str)) for node in whole.get_ordered_ops())


def test_norms_end_in_the_pass_that_rounds_and_in_the_one_that_sums(openvino, tiny_bert, tmp_path):
    layers = tiny_bert.config["num_hidden_layers"]
    nodes = compiled(openvino, tiny_bert, STATIC, tmp_path)
    assert nodes["MVN"] == 2 * layers + 1
    # one for each layer that rounds, one for each sum around a layer; the last norm has no layer behind it
    assert nodes["MulAdd"] <= 4 * layers + 1
    assert nodes["Add"] <= 1


def test_attention_is_one_pass_and_only_keys_are_turned_before_it(openvino, tiny_bert, tmp_path):
    layers = tiny_bert.config["num_hidden_layers"]
    nodes = compiled(openvino, tiny_bert, STATIC, tmp_path)
    assert nodes["Softmax"] == nodes["MatMul"] == 0
    assert nodes["Subgraph"] >= layers
    assert nodes["Transpose"] <= layers
    assert nodes["FullyConnected"] == 6 * layers


def test_the_scale_of_the_scores_is_taken_in_by_the_querys_product(openvino, tiny_bert, tmp_path):
    nodes = compiled(openvino, tiny_bert, "int8(activations=none)", tmp_path)
    assert nodes["Multiply"] <= 2  # what averages the tokens
