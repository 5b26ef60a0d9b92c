"""A TensorRT artefact run by ONNX Runtime as it is written: pairs round, codes are widened, products are floats.

It proves the file. It proves nothing about TensorRT: its parser, its kernels, what it fuses, its speed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tightrope.device.runtimes import onnxruntime, tensorrt
from tightrope.device.session import Array, Executed

PRODUCTS = ("MatMul", "Gemm", "Conv")


def version() -> str:
    """The version of TensorRT, if it is installed."""
    return tensorrt.version()


def open_artefact(
    files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int
) -> onnxruntime.OnnxRuntimeSession:
    """The model as a session of ONNX Runtime that rewrites nothing but what is plain."""
    return onnxruntime.OnnxRuntimeSession(files["model"], _options(threads))


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by the precision that the file asks for: what TensorRT makes of it is unknown."""
    proto = onnx.load(files["model"])
    makers = {name: node for node in proto.graph.node for name in node.output}
    weights = {item.name: item for item in proto.graph.initializer}
    products = [node for node in proto.graph.node if node.op_type in PRODUCTS]
    inner = [name for node in products for name in (node.input[0], node.output[0]) if name in makers]
    known = {item.name for item in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(inner) if name not in known)
    session: Any = ort.InferenceSession(proto.SerializeToString(), _options(1), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    values = dict(zip(names, session.run(names, dict(feeds)), strict=True)) | dict(feeds)
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    attention = 0.0
    for node in products:
        depth = values[node.input[0]].shape[-1]
        if node.op_type == "Conv":
            depth = int(np.prod(_shape(node.input[1], makers, weights)[1:]))
        amount = float(values[node.output[0]].size) * depth
        layers[node.name] = _precision(node, makers, weights)
        work[layers[node.name]] = work.get(layers[node.name], 0.0) + amount
        attention += 0.0 if _is_weight(node.input[1], makers, weights) else amount
    total = sum(work.values()) or 1.0
    share = {name: amount / total for name, amount in work.items()}
    return Executed(share=share, by_layer=layers, source="the file as written", attention=attention / total)


def _is_weight(name: str, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> bool:
    """Whether a value is a weight, widened or not."""
    if name in weights:
        return True
    maker = makers.get(name)
    return (
        maker is not None
        and maker.op_type in ("Cast", "DequantizeLinear")
        and _is_weight(maker.input[0], makers, weights)
    )


def _precision(node: Any, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    maker = makers.get(node.input[1])
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in weights:
        stored = weights.get(node.input[1])
        return "fp16" if stored is not None and stored.data_type == onnx.TensorProto.FLOAT16 else "fp32"
    bits = 4 if weights[maker.input[0]].data_type == onnx.TensorProto.INT4 else 8
    before = makers.get(node.input[0])
    is_rounded = before is not None and before.op_type == "DequantizeLinear"
    return "int8" if is_rounded and bits == 8 else f"wint{bits}"


def _shape(name: str, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> list[int]:
    stored = name if name in weights else makers[name].input[0]
    return list(weights[stored].dims)
