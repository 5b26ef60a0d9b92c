"""What runs a converted model where its engine cannot run: it computes what the file says, not as the engine would.

So a file for a phone or a GPU is held against the reference all the same. What a stand-in does not prove is said with
its answers: the engine's kernels, its arithmetic in half precision, its speed.
"""

from typing import cast

from tightrope import plugins
from tightrope.device.session import Runtime

STAND_INS = {"coreml": "mil_program", "tensorrt": "onnx_program"}
"""The module of this room that stands in for an engine."""

UNPROVEN = {
    "coreml": "interpreted: Apple's kernels, arithmetic in fp16 and the placement on units are not proven",
    "tensorrt": "run by ONNX Runtime as written: TensorRT's own choice of kernels and precisions is not proven",
}
"""What answers of a stand-in leave open, in words for a report."""


def needed(engine: str) -> bool:
    """Whether the engine cannot run on this machine. Raises `MissingExtraError` if it is not installed."""
    return engine in STAND_INS and not plugins.load("runtimes", engine).runs_here()


def runtime(engine: str) -> Runtime:
    """The engine's own runtime where it can run, else what stands in for it."""
    if not needed(engine):
        return cast(Runtime, plugins.load("runtimes", engine))
    module = f"tightrope.workshop.verify.{STAND_INS[engine]}"
    return cast(Runtime, plugins.import_optional(module, wanted_by=engine))
