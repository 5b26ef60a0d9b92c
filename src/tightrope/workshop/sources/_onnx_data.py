"""An ONNX file read with care: whole, within limits, external data from its own folder only, no foreign operators."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.numerics.quantized import Array
from tightrope.workshop.sources._files import FETCH_AGAIN, brief

MAX_FILE_BYTES = 2_000_000_000
"""What a protocol buffer can hold."""

MAX_EXTERNAL_BYTES = 16_000_000_000
DOMAINS = ("", "ai.onnx", "com.microsoft")
"""The operators that onnxruntime knows by itself; any other domain would need a library of the model's own."""


def read(path: Path) -> onnx.ModelProto:
    """Parse a file and fill in its external data. Raises `SourceError`, `UnsupportedError`."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SourceError(
            f"{path} is larger than {MAX_FILE_BYTES:,} bytes.", hint="Export it with its weights in external data."
        )
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, or what else a broken file brings up
        raise SourceError(f"{path} is not a whole ONNX file: {brief(error)}.", hint=FETCH_AGAIN) from error
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise SourceError(f"{path} is not a whole ONNX file: it has no graph.", hint=FETCH_AGAIN)
    _refuse_foreign(proto, path)
    _fill_external(proto, path)
    return proto


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from graphs_of(inner)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the graphs inside its nodes."""
    for inner in graphs_of(graph):
        yield from inner.node


def _refuse_foreign(proto: onnx.ModelProto, path: Path) -> None:
    own = {(function.domain, function.name) for function in proto.functions}
    for graph in (proto.graph, *(onnx.GraphProto(node=function.node) for function in proto.functions)):
        for node in nodes_of(graph):
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
                raise UnsupportedError(
                    f"{path} uses the operator {node.domain}.{node.op_type}, which needs a library of its own.",
                    hint="Export the model with operators of ONNX alone.",
                )
    if proto.graph.sparse_initializer:
        raise UnsupportedError(f"{path} has sparse weights.", hint="Export the model with dense weights.")


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    for graph in graphs_of(proto.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)


def _fill_external(proto: onnx.ModelProto, path: Path) -> None:
    total = 0
    for tensor in _tensors(proto):
        if not uses_external_data(tensor):
            continue
        try:
            info = ExternalDataInfo(tensor)
            file = _inside(path.parent, info.location)
            offset, size = info.offset or 0, file.stat().st_size
            length = size - offset if info.length is None else info.length
            total += length
            if offset < 0 or length < 0 or offset + length > size or total > MAX_EXTERNAL_BYTES:
                raise ValueError(f"{info.location} has {size:,} bytes")
            with file.open("rb") as stream:
                stream.seek(offset)
                tensor.raw_data = stream.read(length)
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(
                f"The external data of {tensor.name!r} of {path} cannot be had: {brief(error)}.",
                hint="Put the model's data file beside it, under the name it had when it was exported.",
            ) from error
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _inside(folder: Path, location: str) -> Path:
    """A file in the folder itself. The hub's cache holds links, so a link may stand there, if its name is plain."""
    if not location or Path(location).name != location or location in (".", ".."):
        raise ValueError(f"{location!r} is not a file of its folder")
    file = folder / location
    if file.is_symlink() and not _is_cached_link(folder, file):
        raise ValueError(f"{location!r} is a link that leaves its folder")
    if not file.is_file():
        raise ValueError(f"{location!r} is missing")
    return file


def _is_cached_link(folder: Path, file: Path) -> bool:
    """Whether a link leads into its own folder, or from a snapshot of the hub's cache into that model's blobs."""
    target, root = file.resolve(), folder.resolve()
    if target.is_relative_to(root):
        return True
    snapshots = next((parent for parent in root.parents if parent.name == "snapshots"), None)
    return snapshots is not None and target.parent == snapshots.parent / "blobs"


def array(tensor: TensorProto, path: Path) -> Array:
    """A tensor as an array. Raises `SourceError` if its data does not fit its shape."""
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # numpy and onnx each complain in their own way
        raise SourceError(
            f"The weight {tensor.name!r} of {path} is broken: {brief(error)}.", hint=FETCH_AGAIN
        ) from error
