"""Core ML: an ML program for iOS 18 and later, written operation by operation.

Weights keep our own codes behind `constexpr_blockwise_shift_scale`; an input with a static range is rounded between
`quantize` and `dequantize`; ranges read at run time Core ML does not have. Texts go in one by one, at any length up to
the model's longest: what the neural engine wants. A model with weights in half precision computes in it throughout.
"""

import gc
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, cast

import numpy as np

from tightrope.device.runtimes.coreml import version

# isort: split
import coremltools as ct
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

from tightrope.errors import UnsupportedError
from tightrope.ports import Port
from tightrope.workshop.convert import _convolutions
from tightrope.workshop.convert._forms import Layer, static_grid
from tightrope.workshop.convert._mil import Translator, narrow, readable
from tightrope.workshop.convert._mil_ops import TABLE
from tightrope.workshop.convert._pairs import PairsForm
from tightrope.workshop.converted import Converted
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Quantized, Weight

TARGET = ct.target.iOS18
_DTYPES = {"int64": (types.int32, np.int32), "int32": (types.int32, np.int32), "float32": (types.fp32, np.float32)}


def convert(model: Model) -> Converted:
    """The program (`model`) and its weights: the two files that a `.mlpackage` holds beside its table of contents."""
    graph = lower(model)
    form = _CoreMlForm(_convolutions.expanded(graph))
    form.runs.update(_convolutions.precisions(graph))
    form.in_float |= _convolutions.in_float(graph)
    form.fill()
    halves = any(_is_fp16(weight) for weight in graph.weights.values())
    program, weights = _saved(_program(form), form.graph, halves=halves)
    precision = "fp16" if halves and form.precision == "fp32" else form.precision
    return Converted(
        engine="coreml",
        engine_version=version(),
        precision=precision,
        files={"model": ("mlmodel", program), "weights": ("bin", weights)},
        inputs=tuple(_port(port) for port in form.graph.inputs),
        outputs=tuple(_port(port) for port in form.graph.outputs),
        settings={"compute_units": "ALL", "compute_precision": "fp16" if halves else "fp32"},
        floats=form.in_float,
        approximations=form.approximations,
    )


class _CoreMlForm(PairsForm):
    """Codes of 4 and of 8 bits, whatever their zero points and blocks; inputs on signed bytes."""

    engine = "Core ML"
    unrounded = "its input stays in float: Core ML reads no ranges at run time"

    def grid(self, layer: Layer) -> tuple[Array, Array] | None:
        scheme = self.scheme(layer)
        if scheme.bits is None or scheme.static is None:
            return None
        scale, zero = static_grid(scheme)
        return scale, (zero.astype(np.int16) - 128).astype(np.int8)

    def why_float(self, weight: Quantized) -> str | None:
        if weight.block is not None and weight.shape[weight.axis] % weight.block:
            return f"its blocks of {weight.block} do not divide its {weight.shape[weight.axis]} features"
        return None


def _is_fp16(weight: Weight) -> bool:
    return not isinstance(weight, Quantized) and weight.dtype == np.float16


def _port(port: Port) -> Port:
    return Port(readable(port.name), str(np.dtype(_DTYPES[port.dtype][1])), port.shape)


def _program(form: PairsForm) -> Any:
    """The program in memory. Raises `UnsupportedError` with the node's name for what Core ML lacks."""
    graph = form.graph
    for port in (*graph.inputs, *graph.outputs):
        if port.dtype not in _DTYPES:
            raise UnsupportedError(
                f"Core ML takes no {port.dtype}, as {port.name} is.", hint="Choose another engine for this model."
            )
    inputs = {readable(port.name): spec for port, spec in zip(graph.inputs, _specs(graph.inputs), strict=True)}
    with Function(inputs, opset_version=TARGET) as function:
        given = {port.name: function.inputs[readable(port.name)] for port in graph.inputs}
        translator = Translator(_arrays(form), form.kinds, given)
        translator.run(list(form.nodes()), TABLE)
        found = [(translator.values[port.name], readable(port.name)) for port in graph.outputs]
        function.set_outputs([Builder.identity(x=_whole(value), name=name) for value, name in found])
    program = Program()
    program.add_function("main", function)
    return program


def _specs(ports: Sequence[Port]) -> Iterator[Any]:
    """What each input is: one text or image at a time; a size that is open is known when the model runs."""
    symbols: dict[object, Any] = {}
    for port in ports:
        sizes = [size if isinstance(size, int) else symbols.setdefault(size, get_new_symbol()) for size in port.shape]
        yield Builder.TensorSpec(shape=(_first(port), *sizes[1:]), dtype=_DTYPES[port.dtype][0])


def _first(port: Port) -> int:
    """The size of the first axis: one text, one image."""
    return port.shape[0] if isinstance(port.shape[0], int) else 1


def _arrays(form: PairsForm) -> dict[str, Array]:
    """What was written beside the nodes: arrays only, as codes, scales and zero points are by now."""
    weights = form.build.weights
    assert not any(isinstance(weight, Quantized) for weight in weights.values())
    return cast(dict[str, Array], weights)


def _whole(value: Any) -> Any:
    return narrow(value) if isinstance(value, np.ndarray) else value


def _converted(program: Any, **options: Any) -> Any:
    try:
        return ct.convert(program, minimum_deployment_target=TARGET, skip_model_load=True, **options)
    except ValueError as error:
        raise UnsupportedError(
            f"Core ML cannot express the model: {str(error).splitlines()[0]:.300}",
            hint="Choose another engine for this model.",
        ) from error


def _saved(program: Any, graph: Graph, *, halves: bool) -> tuple[bytes, bytes]:
    """The two files of the package, without what tells when they were made."""
    longest = graph.senses.max_length if isinstance(graph.senses, TextSenses) else 1
    inputs = [
        ct.TensorType(
            name=readable(port.name),
            shape=(
                _first(port),
                *(size if isinstance(size, int) else ct.RangeDim(1, longest) for size in port.shape[1:]),
            ),
            dtype=_DTYPES[port.dtype][1],
        )
        for port in graph.inputs
    ]
    outputs = [ct.TensorType(name=readable(port.name), dtype=np.float32) for port in graph.outputs]
    precision = ct.precision.FLOAT16 if halves else ct.precision.FLOAT32
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", ResourceWarning)  # coremltools leaves folders to the garbage collector
        with np.errstate(over="ignore"):  # it compares the ranges of types by casting one to the other
            made = _converted(program, inputs=inputs, outputs=outputs, compute_precision=precision)
        made.save(str(Path(folder) / "model.mlpackage"))
        place = Path(folder) / "model.mlpackage" / "Data" / "com.apple.CoreML"
        blob = place / "weights" / "weight.bin"
        weights = blob.read_bytes() if blob.exists() else b""  # all constants are small: they lie in the program
        spec = made.get_spec()
        del made
        gc.collect()
    spec.description.metadata.userDefined.clear()
    return spec.SerializeToString(deterministic=True), weights
