"""A Core ML program interpreted: what the saved file says, operation by operation, in numpy.

It proves the file: its operations, its weights, its shapes at any length. It proves nothing about Apple's kernels,
about the unit that each operation runs on, or about arithmetic in half precision beyond its roundings: where the
program says fp16, each operation is computed in float32 and its result rounded.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.device.runtimes import coreml
from tightrope.device.session import Array, Executed
from tightrope.errors import EngineError
from tightrope.workshop.verify._mil_numpy import TABLE

# isort: split
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import types

PRODUCTS = ("linear", "matmul", "conv")


class Program:
    """A program as loaded from its two files; constants are widened once."""

    def __init__(self, spec: Any, weights: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weight.bin").symlink_to(weights.resolve())
            loaded = load(spec, specification_version=spec.specificationVersion, file_weights_dir=folder)
        main = loaded.functions["main"]
        self.outputs = [variable.name for variable in main.outputs]
        self._constants: dict[str, Any] = {}
        self._steps: list[Any] = []
        for operation in main.operations:
            if operation.op_type == "const":
                self._constants[operation.outputs[0].name] = _float(operation.outputs[0].val)
            elif operation.op_type.startswith("constexpr_"):
                self._constants[operation.outputs[0].name] = _computed(operation, self._constants)
            else:
                self._steps.append(operation)

    def run(
        self, feeds: Mapping[str, Array], seen: list[tuple[Any, dict[str, Any], Any]] | None = None
    ) -> dict[str, Array]:
        """The outputs for arrays by the inputs' names. `seen` is given each operation with its inputs and results."""
        values = {name: np.asarray(value) for name, value in feeds.items()} | self._constants
        with np.errstate(all="ignore"):
            for operation in self._steps:
                given = _inputs(operation, values)
                results = _computed(operation, values)
                results = results if isinstance(results, list) else [results]
                values.update(zip((item.name for item in operation.outputs), results, strict=True))
                if seen is not None:
                    seen.append((operation, given, results))
        return {name: np.asarray(values[name], np.float32) for name in self.outputs}


def _float(value: Any) -> Any:
    """A constant of a program: halves are computed with as float32."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float16 else value


def _inputs(operation: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    def valued(item: Any) -> Any:
        if item is None:
            return None
        return [values[part.name] for part in item] if isinstance(item, list | tuple) else values[item.name]

    return {name: valued(operation.inputs.get(name)) for name in operation.input_spec.input_types}


def _computed(operation: Any, values: Mapping[str, Any]) -> Any:
    """An operation's results: float32 where the program has floats, rounded to halves where it has those."""
    if operation.op_type not in TABLE:
        raise EngineError(
            f"{operation.op_type}, as {operation.name} is, cannot be interpreted.",
            hint="Verify the bundle on one of Apple's systems.",
        )
    results = TABLE[operation.op_type](_inputs(operation, values))
    if isinstance(results, list):
        return [_rounded(result, item.dtype) for result, item in zip(results, operation.outputs, strict=True)]
    return _rounded(results, operation.outputs[0].dtype)


def _rounded(value: Any, kind: Any) -> Any:
    if kind == types.fp16:
        return np.asarray(value).astype(np.float16).astype(np.float32)
    return np.asarray(value, np.float32) if kind == types.fp32 else np.asarray(value)


# As a runtime ------------------------------------------------------------------------------------------


def version() -> str:
    """The version of coremltools, which reads the program."""
    return coreml.version()


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> coreml.CoreMlSession:
    """The program as a session, on one thread."""
    program, spec = _program(files)
    return coreml.CoreMlSession(spec, program.run)


def _program(files: Mapping[str, Path]) -> tuple[Program, Any]:
    spec = coreml.read(files)
    try:
        return Program(spec, files["weights"]), spec
    except EngineError:
        raise
    except Exception as error:  # a damaged program makes the loader fail in any way
        raise EngineError(
            f"{files['model'].name} cannot be interpreted: {str(error)[:200] or type(error).__name__}",
            hint="Make the bundle anew.",
        ) from error


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by the precision that the program has them in, which need not be the engine's."""
    program, _ = _program(files)
    seen: list[tuple[Any, dict[str, Any], Any]] = []
    program.run({name: array[:1] for name, array in feeds.items()}, seen)
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    attention = 0.0
    for operation, given, results in seen:
        if operation.op_type not in PRODUCTS:
            continue
        amount = float(results[0].size) * _depth(operation, given)
        layers[operation.name] = _precision(operation)
        work[layers[operation.name]] = work.get(layers[operation.name], 0.0) + amount
        attention += amount if operation.op_type == "matmul" else 0.0
    total = sum(work.values()) or 1.0
    share = {name: amount / total for name, amount in work.items()}
    return Executed(share=share, by_layer=layers, source="the program as written", attention=attention / total)


def _depth(operation: Any, given: Mapping[str, Any]) -> int:
    """How many products a result is the sum of."""
    weight = given.get("weight")
    return int(np.prod(weight.shape[1:])) if weight is not None else int(np.shape(given["x"])[-1])


def _precision(operation: Any) -> str:
    weight = operation.inputs.get("weight")
    plain = "fp16" if operation.outputs[0].dtype == types.fp16 else "fp32"
    while weight is not None and weight.op is not None and weight.op.op_type == "cast":
        weight = weight.op.x
    if weight is None or weight.op is None or not weight.op.op_type.startswith("constexpr_"):
        return plain
    is_rounded = operation.x.op is not None and operation.x.op.op_type == "dequantize"
    codes = weight.op.data
    bits = 4 if codes.dtype in (types.int4, types.uint4) else 8
    per_row = all(size == 1 for size in weight.op.scale.shape[1:]) and weight.op.offset is None
    return "int8" if is_rounded and per_row and bits == 8 else f"wint{bits}"
