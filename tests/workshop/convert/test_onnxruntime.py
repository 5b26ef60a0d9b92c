"""What an artefact of ONNX Runtime says about itself."""

import pytest

from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.converted import convert
from tightrope.workshop.observe import Observer

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("recipe", "saturates"),
    [
        ("int8(granularity=tensor)", True),
        ("int8(granularity=tensor, reduce_range=true)", False),
        ("int8(activations=none)", False),  # weights alone: multiplied by another kernel
        ("original", False),
    ],
)
def test_layers_that_may_saturate_without_vnni_are_counted(tiny_bert, recipe, saturates):
    steps = Recipe.parse(f"{recipe} -> onnxruntime").steps
    settings = convert(compress(tiny_bert, steps, Observer(tiny_bert, ["the cat"])), "onnxruntime").settings
    assert (settings.get("saturating_layers", 0) > 0) == saturates
