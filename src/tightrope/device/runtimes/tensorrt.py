"""TensorRT on an NVIDIA GPU.

An engine belongs to one kind of GPU and one version of TensorRT, so a bundle holds the ONNX file and the engine is
built when it is opened: minutes, once. Its types are the file's own (a strongly typed network), without TF32, so that
float32 means float32. Nothing of this was ever run where tightrope is made: no GPU is there.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.device.session import Array, Executed, fed
from tightrope.errors import EngineError, UnsupportedError
from tightrope.plugins import import_optional
from tightrope.ports import Capabilities, Port

DEVICES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu")
"""One of these exists where the driver of an NVIDIA GPU is loaded: of a card, of a Jetson."""
WANTED = "tensorrt"


def version() -> str:
    """The engine's version, or `none`: converting needs no TensorRT."""
    try:
        return _installed(WANTED)
    except PackageNotFoundError:
        return "none"


def runs_here() -> bool:
    """Whether this machine has an NVIDIA GPU, and TensorRT is installed."""
    return not _lacks()


def _lacks() -> str:
    """What this machine has not, in words."""
    if not any(Path(device).exists() for device in DEVICES):
        return "no NVIDIA GPU"
    return "" if find_spec(WANTED) and find_spec("cuda") else "a GPU, but not TensorRT and its CUDA bindings"


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "TensorRtSession":
    """Build an engine of `files["model"]` for the shapes in `settings["profile"]`, and open it.

    Raises `UnsupportedError` where no GPU or no TensorRT is, `EngineError` if TensorRT refuses the model.
    """
    if lacks := _lacks():
        raise UnsupportedError(
            f"TensorRT needs an NVIDIA GPU and its Python package, and this machine has {lacks}.",
            hint="Open the bundle where both are (pip install 'tightrope[tensorrt]'), or use another engine here.",
        )
    trt = import_optional(WANTED, wanted_by="TensorRT")
    logger = trt.Logger(trt.Logger.ERROR)
    plan = _built(trt, logger, files["model"], settings)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"TensorRT {version()} cannot load what it built.", hint="Look for a newer driver.")
    return TensorRtSession(trt, engine)


def _built(trt: Any, logger: Any, model: Path, settings: Mapping[str, Any]) -> Any:
    """The engine as bytes."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT {version()} refused {model.name}: {reasons:.300}", hint="Choose another engine.")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, shapes in settings.get("profile", {}).items():
        profile.set_shape(name, shapes["least"], shapes["usual"], shapes["most"])
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT {version()} could not build {model.name}.", hint="Choose another engine.")
    return plan


class TensorRtSession:
    """An engine with one context and one stream. Not safe for use from several threads at once."""

    def __init__(self, trt: Any, engine: Any) -> None:
        self._cuda = import_optional("cuda.bindings.runtime", wanted_by="TensorRT")
        self._engine, self._context = engine, engine.create_execution_context()
        self._stream = self._checked(self._cuda.cudaStreamCreate())
        self._memory: dict[str, tuple[int, int]] = {}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        ports = {True: [], False: []}  # type: dict[bool, list[Port]]
        for name in names:
            dtype = str(np.dtype(trt.nptype(engine.get_tensor_dtype(name))))
            shape = tuple("?" if size < 0 else int(size) for size in engine.get_tensor_shape(name))
            ports[engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT].append(Port(name, dtype, shape))
        self.inputs, self.outputs = tuple(ports[True]), tuple(ports[False])
        self.capabilities = Capabilities()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds."""
        if self._context is None:
            raise EngineError("The TensorRT session is closed.", hint="Open the bundle again.")
        held = [self._fed(feeds, port) for port in self.inputs]
        found = {port.name: self._room(port) for port in self.outputs}
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("TensorRT failed to run the model.", hint="Check the bundle with `tightrope verify`.")
        to_host = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, array in found.items():
            self._copy(array.ctypes.data, self._memory[name][0], array.nbytes, to_host)
        self._checked(self._cuda.cudaStreamSynchronize(self._stream))
        del held  # the copies to the device have ended
        return found

    def _fed(self, feeds: Mapping[str, Array], port: Port) -> Array:
        array = fed(feeds, port)
        if not self._context.set_input_shape(port.name, array.shape):
            raise EngineError(
                f"{port.name} of shape {array.shape} is not in the engine's profile.", hint="Give smaller batches."
            )
        to_device = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self._place(port.name, array.nbytes), array.ctypes.data, array.nbytes, to_device)
        return array

    def _room(self, port: Port) -> Array:
        array: Array = np.empty(tuple(self._context.get_tensor_shape(port.name)), port.dtype)
        self._place(port.name, array.nbytes)
        return array

    def _place(self, name: str, size: int) -> int:
        """Memory on the device for a tensor, kept as long as it is large enough."""
        place, room = self._memory.get(name, (0, -1))
        if room < size:
            if place:
                self._checked(self._cuda.cudaFree(place))
            place = int(self._checked(self._cuda.cudaMalloc(max(size, 1))))
            self._memory[name] = (place, size)
        self._context.set_tensor_address(name, place)
        return place

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._checked(self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream))

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        """What a call of the CUDA runtime gives. Raises `EngineError` if it failed."""
        code, *rest = answer
        if int(code):
            raise EngineError(f"CUDA failed: {code!r}.", hint="Look at the GPU with nvidia-smi.")
        return rest[0] if rest else None

    def close(self) -> None:
        """Give back the device's memory and the engine."""
        if self._context is None:
            return
        for place, _ in self._memory.values():
            self._cuda.cudaFree(place)
        self._cuda.cudaStreamDestroy(self._stream)
        self._memory, self._context, self._engine = {}, None, None


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """`None`: what a layer runs in is in the engine's own inspector, whose form differs by version."""
    return None
