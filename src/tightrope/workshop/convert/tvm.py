"""Apache TVM (experimental): ONNX → Relax → a shared library, with its weights in a file beside it.

TVM compiles in a process of its own, under a time limit: it has crashed, and a crash is an error like any other. The
library computes in float32; weights on a grid are stored as codes and widened when it is opened.
"""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tightrope.bundle import Requirements
from tightrope.device.runtimes import tvm as runtime
from tightrope.errors import UnsupportedError
from tightrope.ports import listed
from tightrope.workshop.convert._forms import ragged_ports
from tightrope.workshop.convert._tvm_form import TvmForm
from tightrope.workshop.converted import Converted, file_name
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, Weight

LIMIT_S = 240.0
"""The longest that TVM may take; a small encoder takes half a minute on a busy core."""
COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")
TARGETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "x86_64": ({"kind": "llvm", "mcpu": "x86-64-v3"}, ("avx2",)),
    "aarch64": ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]}, ()),
}
"""What is compiled for, by this machine's architecture, and what the processor must know then."""


def convert(model: Model, *, schedule: bool = True, trials: int = 0, limit_s: float = LIMIT_S) -> Converted:
    """A library and its weights, for machines like this one.

    `schedule` reorders the loops of products; without it TVM's own pipeline leaves them as they are, which is slow.
    With `trials` TVM searches for better loops itself, for a model of fixed shapes, trying that many on this machine.
    Raises `UnsupportedError` if there is no C compiler, if TVM cannot compile the model, crashes or takes too long.
    """
    architecture = platform.machine()
    if architecture not in TARGETS:
        raise UnsupportedError(f"TVM is not set up for {architecture}.", hint=f"Known: {', '.join(TARGETS)}.")
    if not any(map(shutil.which, COMPILERS)):
        raise UnsupportedError("TVM needs a C compiler to link with, and there is none.", hint="apt-get install gcc")
    target, isa = TARGETS[architecture]
    form = TvmForm(lower(model))
    if trials and any(isinstance(size, str) for port in form.taken for size in port.shape):
        raise UnsupportedError("TVM searches for loops of fixed shapes only.", hint="Leave `trials` out.")
    proto, data = form.write()
    request = {"target": target | {"num-cores": 1} if trials else target, "schedule": schedule, "trials": trials}
    library, order = _build(proto, data, request, limit_s)
    runtime.trust(library)
    weights, entries = _written([form.stored[name] for name in order])
    inputs, outputs = ragged_ports(form.graph)
    return Converted(
        engine="tvm",
        engine_version=runtime.version(),
        precision=form.precision,
        files={"model": ("so", library), "weights": ("bin", weights)},
        inputs=inputs,
        outputs=outputs,
        settings={
            "inputs": listed(inputs),
            "outputs": listed(outputs),
            "takes": [item.name for item in form.taken],
            "limits": form.limits,
            "weights": entries,
            "weights_bytes": len(weights),
            "layers": form.listed,
            "attention_width": form.attention_width,
        },
        requires=Requirements(architectures=(architecture,), isa=isa),
        floats=form.in_float,
        approximations=form.approximations,
    )


def _build(proto: bytes, data: bytes, request: dict[str, Any], limit_s: float) -> tuple[bytes, list[str]]:
    """The library, and the names of its weights in order; made anew only for a structure that was not seen lately.

    The code does not depend on the large weights, which it takes as arguments.
    """
    bare = onnx.ModelProto.FromString(proto)
    for item in bare.graph.initializer:
        del item.external_data[:]
    key = hashlib.sha256(bare.SerializeToString(deterministic=True) + json.dumps(request).encode()).hexdigest()
    if key not in _made:
        while len(_made) >= REMEMBERED:
            _made.pop(next(iter(_made)))
        _made[key] = _compiled(proto, data, request, limit_s)
    return _made[key]


_made: dict[str, tuple[bytes, list[str]]] = {}
REMEMBERED = 16
"""How many libraries are kept: a search tries many recipes that differ in weights only."""


def _compiled(proto: bytes, data: bytes, request: dict[str, Any], limit_s: float) -> tuple[bytes, list[str]]:
    """Let a process of its own compile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(proto)
        (folder / file_name(data, "bin")).write_bytes(data)
        (folder / "request.json").write_text(json.dumps(request))
        code, said = _run([sys.executable, "-m", "tightrope.workshop.convert._tvm_build", name], name, limit_s)
        order = folder / "order.json"
        if code or not order.is_file():
            last = (said.strip().splitlines() or ["it does not say why"])[-1].strip()
            how = f"crashed (signal {-code})" if code < 0 else "cannot compile the model"
            raise UnsupportedError(f"TVM {runtime.version()} {how}: {last[:300]}", hint="Choose another engine.")
        return (folder / "library.so").read_bytes(), json.loads(order.read_bytes())


def _run(command: list[str], folder: str, limit_s: float) -> tuple[int, str]:
    """Run a program in a folder: its exit code, and what it said. It and what it started are ended at the limit."""
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise UnsupportedError(
            f"TVM took more than {limit_s:g} s to compile the model.", hint="Choose another engine."
        ) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, said


def _written(arrays: list[Weight]) -> tuple[bytes, list[dict[str, Any]]]:
    """All arrays one after another, and where and how each lies; see the runtime's `_array`."""
    data, entries = bytearray(), []

    def put(part: bytes) -> int:
        data.extend(b"\0" * (-len(data) % 64))
        data.extend(part)
        return len(data) - len(part)

    for weight in arrays:
        if not isinstance(weight, Quantized):
            entries.append({"dtype": str(weight.dtype), "shape": list(weight.shape), "data": put(weight.tobytes())})
            continue
        codes, packs = np.ascontiguousarray(weight.codes), weight.bits == 4
        middle = 8 if packs and codes.dtype == np.int8 else 0
        if packs:
            flat = (codes.astype(np.int16) + middle).astype(np.uint8).ravel()
            flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
            stored = (flat[0::2] | (flat[1::2] << 4)).tobytes()
        else:
            stored = codes.tobytes()
        entry = {"dtype": str(codes.dtype), "shape": list(codes.shape), "data": put(stored), "bits": weight.bits}
        entry |= {"axis": weight.axis, "block": weight.block, "grid": list(weight.scale.shape), "middle": middle}
        entry["scale"] = put(np.ascontiguousarray(weight.scale, np.float32).tobytes())
        if weight.zero_point is not None:
            entry["zero"] = put(np.ascontiguousarray(weight.zero_point).tobytes())
        entries.append(entry)
    return bytes(data), entries
