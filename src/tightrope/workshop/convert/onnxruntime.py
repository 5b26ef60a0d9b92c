"""ONNX Runtime: the annotated graph as one ONNX file."""

from tightrope.device.runtimes.onnxruntime import version
from tightrope.workshop.converted import Converted, precision
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.reference import reference


def convert(model: Model) -> Converted:
    """One ONNX file."""
    graph = lower(model)
    return Converted(
        engine="onnxruntime",
        engine_version=version(),
        precision=precision(model),
        files={"model": ("onnx", reference(graph).SerializeToString(deterministic=True))},
        inputs=graph.inputs,
        outputs=graph.outputs,
    )
