"""ONNX Runtime on the CPU.

Threads are set explicitly and spinning is off: by default it starts one thread a core, sets their
affinity itself and so escapes a pinned process. The memory arena is on: without it the heap breaks into pieces and the
peak is higher (1.31, a thousand texts of mixed length).
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tightrope.device.session import Array, Executed
from tightrope.errors import EngineError
from tightrope.ports import Capabilities, Port

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float16)": "float16"}
_INTEGERS = ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QAttention")
_FLOATS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul")
_CONVOLUTIONS = {"QLinearConv": "int8", "ConvInteger": "int8", "Conv": "fp32", "FusedConv": "fp32"}
_ATTENTIONS = ("Attention", "MultiHeadAttention", "GroupQueryAttention")


def version() -> str:
    """The engine's version."""
    return str(ort.__version__)


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "OnnxRuntimeSession":
    """Open `files["model"]`. Raises `EngineError` if the engine refuses it.

    `settings["session"]` are entries of the engine's session configuration to set besides.
    """
    return OnnxRuntimeSession(files["model"], _options(threads, settings))


def _options(threads: int, settings: Mapping[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in settings.get("session", {}).items():
        options.add_session_config_entry(str(name), str(value))
    return options


class OnnxRuntimeSession:
    """An opened ONNX file. Safe for use from several threads."""

    def __init__(self, model: Path, options: Any) -> None:
        try:
            self._session: Any = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine's own exception classes share no public base
            raise EngineError(
                f"ONNX Runtime {version()} refused {model.name}: {_first_line(error)}",
                hint="Make the bundle anew for this version.",
            ) from error
        self.inputs = tuple(_port(item) for item in self._session.get_inputs())
        self.outputs = tuple(_port(item) for item in self._session.get_outputs())
        self.capabilities = Capabilities(parallel=True)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds."""
        if self._session is None:
            raise EngineError("The ONNX Runtime session is closed.", hint="Open the bundle again.")
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed: {_first_line(error)}", hint="Check the bundle with `tightrope verify`."
            ) from error
        return {port.name: value for port, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Release the engine's session."""
        self._session = None


def _port(item: Any) -> Port:
    return Port(item.name, _DTYPES.get(item.type, item.type), tuple(item.shape))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from the engine's own profile of one run.

    Of integer convolutions the profile does not tell the weights' shape: with any of them the share is not known, and
    only the layers' precision is told.
    """
    options = _options(1, settings)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session: Any = ort.InferenceSession(str(files["model"]), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_bytes())
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    attention, hidden = 0.0, False
    for event in events:
        details = event.get("args", {})
        operator = details.get("op_name", "")
        if not event.get("name", "").endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        inputs, outputs = _shapes(details, "input_type_shape"), _shapes(details, "output_type_shape")
        precision = _precision(operator, name)
        if precision is None or not inputs or not outputs:
            continue
        layers[name] = precision
        if operator in _CONVOLUTIONS:
            amount = _convolved(inputs, outputs[0])
            hidden |= amount is None
            work[precision] = work.get(precision, 0.0) + (amount or 0.0)
            continue
        amount, between = _multiply_adds(operator, inputs, outputs[0])
        work[precision] = work.get(precision, 0.0) + amount
        attention += amount if between else 0.0
    total = sum(work.values())
    return Executed(
        share={key: value / total for key, value in work.items()} if total and not hidden else {},
        by_layer=layers,
        source="profile of one run",
        attention=attention / total if total else 0.0,
    )


def _shapes(details: Mapping[str, Any], key: str) -> list[list[int]]:
    return [next(iter(item.values())) for item in details.get(key, ())]


def _precision(operator: str, name: str) -> str | None:
    """The precision of an operator's products; `None` for one that makes none."""
    if operator in _CONVOLUTIONS:
        return _CONVOLUTIONS[operator]
    if operator in _INTEGERS:
        return "int8"
    if operator in (*_FLOATS, *_ATTENTIONS):
        return "fp32"
    if operator != "MatMulNBits":
        return None
    return "wint4" if name.endswith(".int4") else "wint8"  # the profile tells no attributes; our converter's names do


def _convolved(inputs: list[list[int]], output: list[int]) -> float | None:
    """Multiply-adds of a convolution, or `None` if the profile hides its weights, as it does once they are packed."""
    if len(inputs) < 2 or len(inputs[1]) != len(output):
        return None
    return float(np.prod(output, dtype=np.float64) * np.prod(inputs[1][1:]))


def _multiply_adds(operator: str, inputs: list[list[int]], output: list[int]) -> tuple[float, bool]:
    """Multiply-adds of an operator, and whether both of its sides are activations, as in attention."""
    if operator in _ATTENTIONS:
        query, key, value = inputs[:3]
        return float(np.prod(query[:-1])) * key[1] * (query[-1] + value[-1]), True
    between = operator in _FLOATS and len(inputs) > 1 and len(inputs[1]) > 2
    return float(np.prod(output, dtype=np.float64)) * inputs[0][-1], between
