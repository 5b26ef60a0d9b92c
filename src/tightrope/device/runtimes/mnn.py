"""MNN on the CPU, in float arithmetic: weights on a grid are widened when the file is opened.

MNN writes greetings to the standard output, which may be somebody's pipe: they are caught. A file that is not what its
name says is refused before MNN sees it, for MNN trusts what it reads.
"""

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from tightrope.device.session import Array, Executed, check_files, fed
from tightrope.errors import EngineError
from tightrope.ports import Capabilities, Port, of_lists

_DTYPES = {"float32": np.float32, "int64": np.int32, "int32": np.int32}
"""What MNN is fed for a port's dtype: it has no integers of 64 bits."""
_FAILURES = (RuntimeError, ValueError, TypeError, SystemError)
"""What its Python half raises; the last for errors that it forgot to say."""

_HEARING = Lock()


@contextmanager
def overheard() -> Iterator[Callable[[], str]]:
    """Catch what native code writes to the standard output of the process; called at the end, the value gives it."""
    flush = ctypes.CDLL(None).fflush
    text = ""
    with _HEARING, tempfile.TemporaryFile() as caught:
        sys.stdout.flush()
        flush(None)
        kept = os.dup(1)
        os.dup2(caught.fileno(), 1)
        try:
            yield lambda: text
        finally:
            flush(None)
            os.dup2(kept, 1)
            os.close(kept)
            caught.seek(0)
            text = caught.read().decode(errors="replace")


with overheard():
    import MNN
    from MNN import expr, nn


def version() -> str:
    """The engine's version."""
    return str(MNN.version())


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "MnnSession":
    """Open `files["model"]` with `files["weights"]`. Raises `EngineError` if they are damaged or refused.

    `settings["inputs"]` and `settings["outputs"]` are the ports (name, dtype, shape), `settings["weights_bytes"]` the
    size of the weights; `settings["precision"]` and `settings["memory"]` are MNN's own words.
    """
    check_files(files, settings["weights_bytes"])
    return MnnSession(files, settings, threads)


class MnnSession:
    """An open module. Not safe for use from several threads at once."""

    def __init__(self, files: Mapping[str, Path], settings: Mapping[str, Any], threads: int) -> None:
        self.inputs, self.outputs = of_lists(settings["inputs"]), of_lists(settings["outputs"])
        self.capabilities = Capabilities()
        options = {"backend": 0, "numThread": threads, "precision": settings["precision"], "memory": settings["memory"]}
        names = [[port.name for port in ports] for ports in (self.inputs, self.outputs)]
        try:
            with overheard():
                self._runtime: Any = nn.create_runtime_manager((options,))
                self._runtime.set_external(str(files["weights"]))
                self._module: Any = nn.load_module_from_file(str(files["model"]), *names, runtime_manager=self._runtime)
        except _FAILURES as error:
            raise EngineError(
                f"MNN {version()} refused {files['model'].name}: {str(error)[:300]}",
                hint="Make the bundle anew for this version.",
            ) from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds."""
        if self._module is None:
            raise EngineError("The MNN session is closed.", hint="Open the bundle again.")
        arrays = _arrays(feeds, self.inputs)
        variables = [_variable(array) for array in arrays]
        try:
            found = self._module.forward(variables)
            values = [np.array(expr.convert(value, expr.NCHW).read()) for value in found]
        except _FAILURES as error:
            raise EngineError(f"MNN failed: {str(error)[:300]}", hint="Check with `tightrope verify`.") from error
        return {port.name: value for port, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Release the module and what it runs on."""
        self._module = self._runtime = None


def _arrays(feeds: Mapping[str, Array], inputs: tuple[Port, ...]) -> list[Array]:
    """The arrays for the inputs, in order. Sizes of the same name must be the same: MNN does not look."""
    sizes: dict[str, int] = {}
    arrays = []
    for port in inputs:
        array = fed(feeds, port)
        if not array.size:
            raise EngineError(f"{port.name} is empty.", hint="Give what the inputs ask for.")
        for wanted, size in zip(port.shape, array.shape, strict=True):
            known = wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size)
            if known != size:
                raise EngineError(
                    f"{port.name} has the shape {array.shape}; its {wanted} must be {known}.",
                    hint="Give what the inputs ask for.",
                )
        arrays.append(np.ascontiguousarray(array, _DTYPES[port.dtype]))
    return arrays


def _variable(array: Array) -> Any:
    return expr.const(array, list(array.shape), expr.NCHW, expr.int if array.dtype == np.int32 else expr.float)


_PRECISIONS = ("wint8", "wint4")
BETWEEN = "between"
"""How an operator's name ends that multiplies two activations."""


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from MNN's own count in one run; names of operators tell the weights."""
    check_files(files, settings["weights_bytes"])
    inputs = of_lists(settings["inputs"])
    counted: list[tuple[str, str, float]] = []

    def count(_: Any, operator: Any) -> bool:
        counted.append((operator.getName(), operator.getType(), float(operator.getFlops())))
        return True

    with overheard():
        interpreter: Any = MNN.Interpreter(str(files["model"]))
        interpreter.setExternalFile(str(files["weights"]))
        session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": settings["precision"]})
        _feed(interpreter, session, inputs, _arrays(feeds, inputs))
        interpreter.runSessionWithCallBackInfo(session, lambda *_: True, count)
    return _shares(counted)


def _feed(interpreter: Any, session: Any, inputs: tuple[Port, ...], arrays: list[Array]) -> None:
    tensors = [interpreter.getSessionInput(session, port.name) for port in inputs]
    for tensor, array in zip(tensors, arrays, strict=True):
        interpreter.resizeTensor(tensor, array.shape)
    interpreter.resizeSession(session)
    for tensor, array in zip(tensors, arrays, strict=True):
        kind = MNN.Halide_Type_Int if array.dtype == np.int32 else MNN.Halide_Type_Float
        tensor.copyFrom(MNN.Tensor(array.shape, kind, array, MNN.Tensor_DimensionType_Caffe))


def _shares(counted: list[tuple[str, str, float]]) -> Executed | None:
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    attention = 0.0
    for name, kind, amount in counted:
        suffix = name.rpartition(".")[2]
        if kind.startswith("Convolution"):
            precision = suffix if suffix in _PRECISIONS else "fp32"
            layers[name] = precision
        elif suffix == BETWEEN and kind != "Raster":
            precision = "fp32"
            attention += amount
        else:
            continue
        work[precision] = work.get(precision, 0.0) + amount
    total = sum(work.values())
    if not total:
        return None
    share = {key: value / total for key, value in work.items() if value}
    return Executed(share=share, by_layer=layers, source="the engine's count in one run", attention=attention / total)
