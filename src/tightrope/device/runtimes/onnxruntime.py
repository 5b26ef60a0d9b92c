"""ONNX Runtime on the CPU.

Threads are set explicitly and spinning is off: by default it starts one thread a core, sets their
affinity itself and so escapes a pinned process. The memory arena is off: it never gives memory back.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tightrope.device.session import Array, Capabilities, Executed
from tightrope.errors import EngineError
from tightrope.ports import Port

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float16)": "float16"}
_PRECISIONS = {
    "DynamicQuantizeMatMul": "int8",
    "MatMulInteger": "int8",
    "MatMulIntegerToFloat": "int8",
    "QLinearMatMul": "int8",
    "QGemm": "int8",
    "MatMul": "fp32",
    "FusedMatMul": "fp32",
    "Gemm": "fp32",
    "FusedGemm": "fp32",
}


def version() -> str:
    """The engine's version."""
    return str(ort.__version__)


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "OnnxRuntimeSession":
    """Open `files["model"]`. Raises `EngineError` if the engine refuses it."""
    return OnnxRuntimeSession(files["model"], _options(threads))


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
        self.capabilities = Capabilities()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds."""
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
    """The share of multiply-adds by precision, from the engine's own profile of one run."""
    options = _options(1)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session: Any = ort.InferenceSession(str(files["model"]), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_bytes())
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    for event in events:
        details = event.get("args", {})
        operator = details.get("op_name")
        if not event.get("name", "").endswith("_kernel_time") or operator is None:
            continue
        precision = _precision(operator)
        if precision is None:
            continue
        name = event["name"].removesuffix("_kernel_time")
        layers[name] = precision
        work[precision] = work.get(precision, 0.0) + _multiply_adds(details)
    total = sum(work.values())
    return Executed(
        share={key: value / total for key, value in work.items()} if total else {},
        by_layer=layers,
        source="profile of one run",
    )


def _precision(operator: str) -> str | None:
    return "int4" if operator == "MatMulNBits" else _PRECISIONS.get(operator)


def _multiply_adds(details: Mapping[str, Any]) -> float:
    """Output elements times the reduced dimension, from the shapes that the profile states."""
    shapes = [next(iter(item.values())) for item in details.get("input_type_shape", ())]
    outputs = [next(iter(item.values())) for item in details.get("output_type_shape", ())]
    if not shapes or not outputs or not shapes[0]:
        return 0.0
    return float(np.prod(outputs[0], dtype=np.float64)) * float(shapes[0][-1])
