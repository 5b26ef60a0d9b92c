"""Core ML: on Apple's systems through coremltools, which hands the model to the system's own framework.

Elsewhere the framework does not exist, and opening says so.
"""

import logging
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

logging.getLogger("coremltools").setLevel(logging.ERROR)  # off Apple's systems it warns of each part that is missing

import coremltools as ct  # noqa: E402
from coremltools.proto import Model_pb2  # noqa: E402

from tightrope.device.mlpackage import write_package  # noqa: E402
from tightrope.device.session import Array, Executed, fed  # noqa: E402
from tightrope.errors import EngineError, UnsupportedError  # noqa: E402
from tightrope.ports import Capabilities, Port  # noqa: E402

UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
Predict = Callable[[dict[str, Array]], Mapping[str, Array]]
_DTYPES = {"INT32": "int32", "FLOAT32": "float32", "FLOAT16": "float16", "DOUBLE": "float64"}


def version() -> str:
    """The version of coremltools; the framework's own belongs to the system."""
    return str(ct.__version__)


def runs_here() -> bool:
    """Whether this is one of Apple's systems."""
    return sys.platform == "darwin"


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "CoreMlSession":
    """Open the program in `files["model"]` with `files["weights"]`. Raises `UnsupportedError` off Apple's systems.

    `settings["compute_units"]` is one of `UNITS`. Core ML decides about threads by itself.
    """
    if not runs_here():
        raise UnsupportedError(
            f"Core ML runs on Apple's systems only, and this is {platform.system()}.",
            hint="Open the bundle there, put it into an app (tightrope export --ios), or use another engine here.",
        )
    units = settings.get("compute_units", "ALL")
    if units not in UNITS:
        raise EngineError(f"There are no compute units {units!r}.", hint=f"Known: {', '.join(UNITS)}.")
    folder = tempfile.mkdtemp(prefix="tightrope.")
    try:
        spec = read(files)
        package = write_package(files, Path(folder) / "model.mlpackage")
        model = ct.models.MLModel(str(package), compute_units=ct.ComputeUnit[units])
    except RuntimeError as error:
        raise _refused(files, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the model is compiled and loaded by then
    return CoreMlSession(spec, model.predict)


def read(files: Mapping[str, Path]) -> Any:
    """The model's specification. Raises `EngineError` for a file that holds none, or whose weights are missing."""
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(files["model"].read_bytes())
    except Exception as error:  # protobuf's own exceptions differ by its implementation
        raise _refused(files, error) from error
    if spec.WhichOneof("Type") != "mlProgram":
        raise _refused(files, ValueError("it holds no ML program"))
    if not files["weights"].is_file():
        raise _refused(files, ValueError(f"its weights {files['weights'].name} are missing"))
    return spec


def _refused(files: Mapping[str, Path], error: Exception) -> EngineError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return EngineError(
        f"Core ML (coremltools {version()}) refused {files['model'].name}: {reason}", hint="Make the bundle anew."
    )


class CoreMlSession:
    """A loaded program, which takes one text or image at a time. Not safe for use from several threads at once."""

    def __init__(self, spec: Any, predict: Predict) -> None:
        self._predict: Predict | None = predict
        self.inputs = tuple(_port(item) for item in spec.description.input)
        self.outputs = tuple(_port(item, _shape(spec, item.name)) for item in spec.description.output)
        self.capabilities = Capabilities()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds, whose first axis counts texts or images."""
        if self._predict is None:
            raise EngineError("The Core ML session is closed.", hint="Open the bundle again.")
        arrays = {port.name: fed(feeds, port) for port in self.inputs}
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1 or counts == {0}:
            raise EngineError(f"The inputs hold {sorted(counts)} rows.", hint="Give as many of each, and one or more.")
        rows = []
        try:
            for row in range(counts.pop()):
                found = self._predict({name: array[row : row + 1] for name, array in arrays.items()})
                rows.append({port.name: found[port.name] for port in self.outputs})
        except (RuntimeError, ValueError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise EngineError(f"Core ML failed: {reason}", hint="Check the bundle with `tightrope verify`.") from error
        return {port.name: np.concatenate([row[port.name] for row in rows]) for port in self.outputs}

    def close(self) -> None:
        """Let go of the model."""
        self._predict = None


def _port(item: Any, shape: tuple[int | str, ...] = ()) -> Port:
    kind = item.type.multiArrayType
    name = kind.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[kind.dataType].name
    ranges = kind.shapeRange.sizeRanges
    sizes = [int(size.lowerBound) if size.lowerBound == size.upperBound else "?" for size in ranges] or kind.shape
    return Port(item.name, _DTYPES.get(name, name), shape or tuple(sizes))


def _shape(spec: Any, name: str) -> tuple[int | str, ...]:
    """The shape of an output, which the description leaves out where an input's length is open."""
    main = spec.mlProgram.functions["main"]
    for operation in reversed(main.block_specializations[main.opset].operations):
        for item in operation.outputs:
            if item.name == name:
                sizes = item.type.tensorType.dimensions
                return tuple(int(size.constant.size) if size.HasField("constant") else "?" for size in sizes)
    return ()


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """`None`: Core ML tells which unit it would like for an operation, but not in which arithmetic it runs there."""
    return None
