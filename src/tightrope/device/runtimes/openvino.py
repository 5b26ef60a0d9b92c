"""OpenVINO on the CPU.

Precision is stated, because by default it computes in bfloat16 where the processor can; threads are stated and not
pinned, because by default it pins them itself. Kernels are made anew for each shape it meets and kept in a cache of
bounded size, so that texts of many lengths do not fill the memory.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from tightrope.device.session import Array, Executed, fed
from tightrope.errors import EngineError
from tightrope.ports import Capabilities, Port

_FIXED = {"NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": "NO", "ENABLE_MMAP": "YES"}
_PRECISIONS = {"u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4", "f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_DTYPES = {"f32": "float32", "i64": "int64", "i32": "int32", "f16": "float16", "boolean": "bool"}


def version() -> str:
    """The engine's version, without the build's number."""
    return str(ov.__version__).partition("-")[0]


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "OpenVinoSession":
    """Open `files["model"]` (.xml) with `files["weights"]` (.bin). Raises `EngineError` if the engine refuses them.

    `settings["properties"]` are properties of the CPU plug-in to set besides.
    """
    return OpenVinoSession(_compile(files, settings, threads))


def _read(files: Mapping[str, Path]) -> Any:
    try:
        return ov.Core().read_model(str(files["model"]), str(files["weights"]))
    except RuntimeError as error:
        raise _refused(files, error) from error


def _compile(files: Mapping[str, Path], settings: Mapping[str, Any], threads: int) -> Any:
    properties = {"INFERENCE_PRECISION_HINT": "f32", **_FIXED, **settings.get("properties", {})}
    try:
        return ov.Core().compile_model(_read(files), "CPU", {**properties, "INFERENCE_NUM_THREADS": str(threads)})
    except RuntimeError as error:
        raise _refused(files, error) from error


def _refused(files: Mapping[str, Path], error: Exception) -> EngineError:
    return EngineError(
        f"OpenVINO {version()} refused {files['model'].name}: {_reason(error)}",
        hint="Make the bundle anew for this version.",
    )


class OpenVinoSession:
    """A compiled model with one request. Not safe for use from several threads at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request: Any = compiled.create_infer_request()
        self._held: list[Array] = []
        """The arrays whose memory the request reads."""
        self.inputs = tuple(map(_port, compiled.inputs))
        self.outputs = tuple(map(_port, compiled.outputs))
        self.capabilities = Capabilities()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds."""
        if self._request is None:
            raise EngineError("The OpenVINO session is closed.", hint="Open the bundle again.")
        self._held = [fed(feeds, port) for port in self.inputs]  # OpenVINO takes fewer dimensions without a word
        try:
            # Its own way from a mapping of arrays to tensors and back is a twentieth of a short text's time.
            for index, array in enumerate(self._held):
                self._request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
            views = self._request.infer(None, share_outputs=True).values()
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO failed: {_reason(error)}", hint="Check the bundle with `tightrope verify`."
            ) from error
        return {port.name: view.copy() for port, view in zip(self.outputs, views, strict=True)}

    def close(self) -> None:
        """Release the request and the compiled model."""
        self._request = self._compiled = None
        self._held = []


def _port(item: Any) -> Port:
    kind = item.get_element_type().get_type_name()
    shape = tuple(int(size.get_length()) if size.is_static else "?" for size in item.get_partial_shape())
    return Port(item.get_any_name(), _DTYPES.get(kind, kind), shape)


def _reason(error: Exception) -> str:
    """The last line that says something: OpenVINO puts the places in its own sources first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from the compiled graph; sizes that are open are those of the feeds.

    It hides attention inside a subgraph: its work is counted in the model before compilation.
    """
    batch, length = next(iter(feeds.values())).shape[:2]
    model = _read(files)
    model.reshape({port: list(feeds[port.get_any_name()].shape) for port in model.inputs})
    convolutions = {node.get_friendly_name(): _convolved(node) for node in model.get_ops() if _is_convolution(node)}
    work: Counter[str] = Counter()
    layers: dict[str, str] = {}
    subgraphs = "fp32"
    for node in _compile(files, settings, 1).get_runtime_model().get_ordered_ops():
        details = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        kind = details.get("layerType", "")
        precision = _PRECISIONS.get(details.get("runtimePrecision", ""), "unknown")
        if kind in ("Subgraph", "MatMul", "ScaledDotProductAttention"):
            subgraphs = precision
        if kind == "Convolution":
            whole = str(details.get("originalLayersNames", "")).split(",")
            amount = sum(convolutions.get(name, 0) for name in whole)
            precision = "int8" if details["primitiveType"].endswith("I8") else precision
            layers[node.get_friendly_name()] = precision
            work[precision] += amount
        if kind != "FullyConnected":
            continue
        if precision.startswith("int") and not details["primitiveType"].endswith("I8"):
            precision = f"w{precision}"  # weights are integers; how the input is grouped, the graph does not tell
        layers[node.get_friendly_name()] = precision
        work[precision] += _multiply_adds(node, batch, length)
    attention = sum(_multiply_adds(node, batch, length) for node in model.get_ops() if _is_attention(node))
    work[subgraphs] += attention
    total = sum(work.values())
    share = {key: value / total for key, value in work.items() if value}
    return (
        Executed(share=share, by_layer=layers, source="compiled graph", attention=attention / total) if total else None
    )


def _is_convolution(node: Any) -> bool:
    return node.get_type_name() in ("Convolution", "GroupConvolution")


def _convolved(node: Any) -> int:
    """Output elements times the taps of one; the weights of groups have one dimension more."""
    output, weights = (list(port.get_partial_shape()) for port in (node.output(0), node.input(1)))
    taps = weights[2:] if node.get_type_name() == "GroupConvolution" else weights[1:]
    return math.prod(int(size.get_length()) for size in (*output, *taps))


def _is_attention(node: Any) -> bool:
    """Whether a node multiplies two activations: both sides have batch and heads."""
    return node.get_type_name() == "MatMul" and all(port.get_partial_shape().rank == 4 for port in node.inputs())


def _multiply_adds(node: Any, batch: int, length: int) -> int:
    """Output elements times the reduced dimension."""

    def sizes(port: Any) -> list[int]:
        shape = list(port.get_partial_shape())
        return [
            int(size.get_length()) if size.is_static else (batch if index == 0 else length)
            for index, size in enumerate(shape)
        ]

    return math.prod(sizes(node.output(0))) * sizes(node.input(0))[-1]
