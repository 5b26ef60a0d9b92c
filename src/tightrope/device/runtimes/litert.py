"""LiteRT (TFLite) on the CPU, by XNNPACK.

A file holds one signature for each of a few lengths. A text is padded to the next of them, and texts run one by one.
The signatures share the weights of the file. What XNNPACK makes of them they share only through its cache, which is
therefore on, and kept in memory: without it there is a copy for each length (2.3: three times the memory for five).
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert import compiled_model, options
from ai_edge_litert.hardware_accelerator import HardwareAccelerator

from tightrope.device.session import Array, Executed
from tightrope.errors import EngineError, UnsupportedError
from tightrope.ports import Capabilities, Port

PHONES = ("nnapi", "gpu")
"""Delegates that a file may name for a phone. Here there is one: `xnnpack`."""
CACHE = ":memory"
"""What XNNPACK calls a cache of prepared weights that is no file."""


def version() -> str:
    """The engine's version."""
    return str(ai_edge_litert.__version__)


def signature(length: int) -> str:
    """The name of the signature for a length; 0 stands for a model whose shapes are all fixed.

    >>> signature(64)
    'length_64'
    """
    return f"length_{length}" if length else "fixed"


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "LiteRtSession":
    """Open `files["model"]`. Raises `EngineError` if the engine refuses it.

    `settings`: `lengths` of the signatures; `open`, for each input and output the axes whose size is the batch or the
    length; `delegate`. Raises `UnsupportedError` for a delegate that only a phone has.
    """
    return LiteRtSession(_opened(files["model"], settings.get("delegate", "xnnpack"), threads), settings)


def _opened(model: Path, delegate: str, threads: int) -> Any:
    if delegate in PHONES:
        raise UnsupportedError(
            f"The delegate {delegate} is a phone's, and this is none.",
            hint="Open the model there, or set its delegate to xnnpack.",
        )
    if delegate != "xnnpack":
        raise EngineError(f"LiteRT has no delegate {delegate!r}.", hint=f"Known: {', '.join(('xnnpack', *PHONES))}.")
    wanted = options.Options.create()
    wanted.hardware_accelerators = HardwareAccelerator.CPU
    wanted.cpu_options.num_threads = threads
    wanted.cpu_options.xnnpack_weight_cache_path = CACHE
    try:
        return compiled_model.CompiledModel.from_file(str(model), options=wanted)
    except (ValueError, RuntimeError) as error:
        raise EngineError(
            f"LiteRT {version()} refused {model.name}: {_first_line(error)}",
            hint="Make the bundle anew for this version.",
        ) from error


class LiteRtSession:
    """An opened file, of which each length is prepared when it is first met. Not safe for use from several threads."""

    def __init__(self, compiled: Any, settings: Mapping[str, Any]) -> None:
        self._compiled = compiled
        self._lengths: tuple[int, ...] = tuple(settings.get("lengths", ())) or (0,)
        self._open: Mapping[str, list[int]] = settings.get("open", {})
        self._signatures: dict[int, _Signature] = {}
        key = signature(self._lengths[0])
        self.inputs = self._ports(compiled.get_input_tensor_details(key))
        self.outputs = self._ports(compiled.get_output_tensor_details(key))
        self.capabilities = Capabilities()

    def _ports(self, details: Mapping[str, Any]) -> tuple[Port, ...]:
        """Ports in the order in which the model names them, which the file need not keep."""
        found = []
        for name in sorted(details, key=list(self._open).index):
            sizes: list[int | str] = [int(size) for size in details[name]["shape"]]
            for axis in self._open[name]:
                sizes[axis] = "length" if axis else "batch"
            found.append(Port(name, np.dtype(details[name]["dtype"]).name, tuple(sizes)))
        return tuple(found)

    def _signature(self, length: int) -> "_Signature":
        if length not in self._signatures:
            self._signatures[length] = _Signature(self._compiled, signature(length))
        return self._signatures[length]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds. Raises `EngineError` for a text that is longer than the longest length."""
        if self._compiled is None:
            raise EngineError("The LiteRT session is closed.", hint="Open the bundle again.")
        given = {port.name: self._array(feeds, port) for port in self.inputs}
        rows = self._rows(given)
        answers = [self._row(row) for row in rows]
        return {port.name: self._together(port, [answer[port.name] for answer in answers]) for port in self.outputs}

    def _array(self, feeds: Mapping[str, Array], port: Port) -> Array:
        array = feeds.get(port.name)
        if array is None or not _fits(array, port):
            raise EngineError(
                f"{port.name} must be an array of {' x '.join(map(str, port.shape))}; it is {_shape(array)}.",
                hint="Give what the inputs ask for.",
            )
        return np.ascontiguousarray(array, port.dtype)

    def _rows(self, given: Mapping[str, Array]) -> list[dict[str, Array]]:
        """The batch taken apart, for the file holds one text at a time."""
        sizes = {len(array) for name, array in given.items() if 0 in self._open.get(name, ())}
        if len(sizes) > 1:
            raise EngineError(f"The inputs have {sorted(sizes)} rows.", hint="Give all inputs as many rows.")
        rows = range(sizes.pop()) if sizes else (slice(None),)
        return [
            {
                name: array[row : row + 1] if isinstance(row, int) and 0 in self._open.get(name, ()) else array
                for name, array in given.items()
            }
            for row in rows
        ]

    def _row(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for one text, in the shortest length that holds it."""
        lengths = {array.shape[1] for name, array in given.items() if 1 in self._open.get(name, ())}
        if len(lengths) > 1:
            raise EngineError(f"The inputs are {sorted(lengths)} long.", hint="Give all inputs the same length.")
        length = needed = lengths.pop() if lengths else 0
        is_whole = not any(1 in self._open.get(port.name, ()) for port in self.outputs)
        if length and is_whole and "attention_mask" in given:  # behind its last token a text is padding
            needed = max(1, int(np.flatnonzero(given["attention_mask"][0]).max(initial=0)) + 1)
        bucket = next((size for size in self._lengths if size >= needed), None)
        if bucket is None:
            raise EngineError(
                f"A text of {needed} tokens is longer than the longest length of the file, {self._lengths[-1]}.",
                hint="Cut the text, or convert the model with a greater max_length.",
            )
        padded = {name: self._padded(name, array, bucket) for name, array in given.items()}
        try:
            found = self._signature(bucket).run(padded)
        except (ValueError, RuntimeError) as error:
            raise EngineError(
                f"LiteRT failed: {_first_line(error)}", hint="Check the bundle with `tightrope verify`."
            ) from error
        return {name: array[:, :length] if 1 in self._open.get(name, ()) else array for name, array in found.items()}

    def _padded(self, name: str, array: Array, length: int) -> Array:
        if 1 not in self._open.get(name, ()):
            return array
        found = np.zeros((array.shape[0], length, *array.shape[2:]), array.dtype)
        kept = min(length, array.shape[1])
        found[:, :kept] = array[:, :kept]
        return found

    def _together(self, port: Port, answers: list[Array]) -> Array:
        if answers and 0 not in self._open.get(port.name, ()):
            return answers[0]
        empty = np.zeros([0 if isinstance(size, str) else size for size in port.shape], port.dtype)
        return np.concatenate(answers) if answers else empty

    def close(self) -> None:
        """Give back what the engine holds."""
        self._signatures = {}
        self._compiled = None


class _Signature:
    """One signature with the buffers that it reads and writes."""

    def __init__(self, compiled: Any, key: str) -> None:
        self._compiled, self._index = compiled, compiled.get_signature_index(key)
        names = compiled.get_signature_list()[key]
        self._inputs = dict(zip(names["inputs"], compiled.create_input_buffers(self._index), strict=True))
        self._outputs = dict(zip(names["outputs"], compiled.create_output_buffers(self._index), strict=True))
        self._details = compiled.get_output_tensor_details(key)

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, for inputs of the signature's own shapes."""
        for name, buffer in self._inputs.items():
            buffer.write(given[name])
        self._compiled.run_by_index(self._index, list(self._inputs.values()), list(self._outputs.values()))
        return {name: self._read(name) for name in self._outputs}

    def _read(self, name: str) -> Array:
        shape, dtype = tuple(map(int, self._details[name]["shape"])), self._details[name]["dtype"]
        found: Array = self._outputs[name].read(math.prod(shape), np.dtype(dtype).type)
        return np.array(found).reshape(shape)


def _fits(array: Array, port: Port) -> bool:
    sizes = zip(port.shape, array.shape, strict=False)
    return array.ndim == len(port.shape) and all(isinstance(size, str) or size == real for size, real in sizes)


def _shape(array: Array | None) -> str:
    return "missing" if array is None else " x ".join(map(str, array.shape))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from the file's operators and the types that they take.

    LiteRT tells nothing of what its delegate did, but an operator with integer weights has integer kernels only.
    """
    from ai_edge_litert import schema_py_generated as schema

    length = next((array.shape[1] for name, array in feeds.items() if 1 in settings.get("open", {}).get(name, ())), 0)
    lengths = tuple(settings.get("lengths", ())) or (0,)
    wanted = signature(next((size for size in lengths if size >= length), lengths[-1]))
    model: Any = schema.Model.GetRootAs(files["model"].read_bytes(), 0)
    definitions = [model.SignatureDefs(index) for index in range(model.SignatureDefsLength())]
    (index,) = (item.SubgraphIndex() for item in definitions if item.SignatureKey().decode() == wanted)
    graph = model.Subgraphs(index)
    work: Counter[str] = Counter()
    layers: dict[str, str] = {}
    between = 0
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = _PRODUCTS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if kind is None:
            continue
        x, weight = graph.Tensors(operator.Inputs(0)), graph.Tensors(operator.Inputs(1))
        result = [int(size) for size in graph.Tensors(operator.Outputs(0)).ShapeAsNumpy()]
        sizes = [int(size) for size in weight.ShapeAsNumpy()]
        precision = _PRECISIONS.get((x.Type(), weight.Type()), "fp32")
        amount = math.prod(result) * _reduced(kind, [int(size) for size in x.ShapeAsNumpy()], sizes)
        work[precision] += amount
        layers[(weight.Name() or b"").decode() or f"{kind} {place}"] = precision
        between += amount if kind == "BATCH_MATMUL" else 0
    total = sum(work.values())
    share = {key: value / total for key, value in work.items()}
    source = "operators of the file and their types"
    return Executed(share=share, by_layer=layers, source=source, attention=between / total) if total else None


_PRODUCTS = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 9: "FULLY_CONNECTED", 126: "BATCH_MATMUL"}
"""The operators that multiply and add, by their numbers in the format."""
_FLOAT, _INT8, _INT4 = 0, 9, 17
_PRECISIONS = {(_FLOAT, _INT8): "wint8", (_INT8, _INT8): "int8", (_FLOAT, _INT4): "wint4", (_INT8, _INT4): "wint4"}
"""By the types of an input and of the weights: floats beside integer weights are rounded to 8 bits."""


def _reduced(kind: str, x: list[int], weight: list[int]) -> int:
    """How many products are summed for one number of the result."""
    if kind == "CONV_2D":
        return math.prod(weight[1:])
    return math.prod(weight[1:3]) if kind == "DEPTHWISE_CONV_2D" else x[-1]
