"""A program of its own: an ONNX file becomes a library, and is tried once. TVM may crash at either.

    python -m tightrope.workshop.convert._tvm_build FOLDER

`FOLDER/model.onnx` is read; `FOLDER/library.so` and `FOLDER/order.json`, the names of the weights in the order in which
the library takes them, are written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from tightrope.device.runtimes.tvm import POSITIONS

WIDTHS = (64, 32, 16, 8)
"""Outputs that are summed up together in registers, the widest that divides a layer's first."""


def main(folder: Path) -> None:
    """Read, compile, link, try."""
    proto = onnx.load(str(folder / "model.onnx"))
    request = json.loads((folder / "request.json").read_bytes())
    module = from_onnx(proto, keep_params_in_input=True, sanitize_input_names=False)
    module, weights = relax.frontend.detach_params(module)
    count = len(proto.graph.input)
    names = [parameter.name for parameter in module["main"].params][count:]
    target = tvm.target.Target(request["target"])
    if request["trials"]:
        module = relax.get_pipeline("static_shape_tuning", target=target, total_trials=request["trials"])(module)
    else:
        module = relax.get_pipeline("zero")(module)
    if request["schedule"] and not request["trials"]:
        module = scheduled(module)
    library = tvm.compile(module, target=target)
    library.export_library(str(folder / "library.so"), options=["-shared", "-fPIC", "-s"])
    given = [_example(item) for item in proto.graph.input]
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(folder / "library.so")), tvm.cpu())
    machine["main"](*given, *weights["main"])
    (folder / "order.json").write_text(json.dumps(names))


def _example(item: Any) -> Any:
    """Something that fits an input: zeros, open sizes two; a mask of ones."""
    kind = item.type.tensor_type
    shape = [dim.dim_value or 2 for dim in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    fill = np.ones if item.name == "attention_mask" else np.zeros
    return tvm.runtime.tensor(np.arange(shape[0], dtype=dtype) if item.name == POSITIONS else fill(shape, dtype))


def scheduled(module: Any) -> Any:
    """Products in an order that suits a cache: for each row its outputs side by side, summed up in registers.

    TVM's own pipeline for CPUs leaves the loops as they are written, which is about ten times as slow.
    """
    for name, function in list(module.functions.items()):
        if isinstance(function, tvm.tirx.PrimFunc) and (better := _ordered(function)) is not None:
            module.update_func(name, better)
    return module


def _ordered(function: Any) -> Any:
    schedule = tvm.s_tir.Schedule(function)
    try:
        block = schedule.get_sblock("matmul")
        *_, row, column, inner = schedule.get_loops(block)
        extent = schedule.get(column).extent
        width = next((size for size in WIDTHS if isinstance(extent, tvm.tirx.IntImm) and int(extent) % size == 0), None)
        if width is None:
            schedule.reorder(row, inner, column)
        else:
            outer, together = schedule.split(column, [None, width])
            schedule.reorder(row, outer, inner, together)
            sums = schedule.cache_write(block, 0, "local")
            schedule.reverse_compute_at(sums, outer)
            schedule.vectorize(schedule.get_loops(sums)[-1])
            schedule.vectorize(together)
        schedule.decompose_reduction(block, inner)
    except Exception:  # no product, or one of another shape: it stays as it is
        return None
    return schedule.mod["main"].with_attrs(function.attrs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
