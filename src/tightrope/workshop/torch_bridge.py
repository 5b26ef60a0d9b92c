"""The bridge to torch: a Network or Graph as an `nn.Module`, and changed weights back into the model.

For engines that convert best from torch, and for training. The module walks the model's own nodes, one small function
for each operator (`torch_operators`); its parameters bear the names of the model's weights. It imports no code that
came with a model, and knows no architecture.
"""

import hashlib
import keyword
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from tightrope.errors import UnsupportedError
from tightrope.workshop.graph import Graph, is_float
from tightrope.workshop.model import Model
from tightrope.workshop.network import Network, lower
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized, Scheme, Weight, values
from tightrope.workshop.reference import reference
from tightrope.workshop.torch_nodes import Node, Operator, Value, tensor
from tightrope.workshop.torch_operators import HOSTED, OPERATORS

HOST_SIZE = 64
"""Whole numbers in a vector no longer than this may be sizes or axes, and stay numpy arrays while they are."""

_HOST: Mapping[str, Any] = {
    "Add": lambda _, x, y: x + y,
    "Cast": lambda _, x: x,
    "Concat": lambda node, *parts: np.concatenate(parts, node.attributes["axis"]),
    "Div": lambda _, x, y: x // y,
    "Gather": lambda node, x, index: np.take(x, index, node.attributes.get("axis", 0)),
    "Identity": lambda _, x: x,
    "Mul": lambda _, x, y: x * y,
    "Reshape": lambda _, x, shape: x.reshape(shape.astype(int)),
    "Squeeze": lambda _, x, axes=None: np.squeeze(x, None if axes is None else tuple(axes)),
    "Equal": lambda _, x, y: x == y,
    "Sub": lambda _, x, y: x - y,
    "Where": lambda _, where, x, y: np.where(where, x, y),
    "Unsqueeze": lambda _, x, axes: np.expand_dims(x, tuple(axes)),
}
"""Operators on sizes, which are numpy arrays, of symbols where a size is left open. All others take tensors."""


class Bridge(nn.Module):  # type: ignore[misc]  # torch is looked at by nobody who has it not
    """A graph's nodes in running order. `forward` takes the inputs in the graph's order.

    It gives the output, or a tuple of several. `names` maps the path of each parameter and buffer to the weight's own
    name, from which it differs only where torch cannot use that: a name that ends where another goes on.
    """

    def __init__(
        self,
        nodes: list[Node],
        weights: Mapping[str, Array],
        ports: tuple[tuple[str, ...], tuple[str, ...]],
        *,
        trainable: frozenset[str] = frozenset(),
        operators: Mapping[str, Operator] = OPERATORS,
    ) -> None:
        super().__init__()
        for node in nodes:
            if node.op not in operators:
                raise UnsupportedError(
                    f"{node.name} is a {node.op}, which the bridge to torch does not know.",
                    hint="Choose an engine that reads ONNX, or export the model without this operator.",
                )
        self.nodes, self.inputs, self.outputs = nodes, *ports
        self.operators = operators
        self.names: dict[str, str] = {}
        self._numbers: dict[str, Value] = {}
        self._host: dict[str, Array] = {}
        self._paths: dict[str, str] = {}
        placed: dict[int, str] = {}
        for name, value in weights.items():
            if value.ndim == 0 and name not in trainable:
                self._numbers[name] = value.item()
                continue
            if value.dtype == np.int64 and value.ndim == 1 and value.size <= HOST_SIZE:
                self._host[name] = value
            if id(value) not in placed:
                placed[id(value)] = self._placed(name, value, name in trainable)
            self._paths[name] = placed[id(value)]

    def _placed(self, name: str, value: Array, is_trainable: bool) -> str:
        """Put a weight where its name says, in modules within modules; the path at which it lies."""
        *folders, leaf = name.split(".")
        place: nn.Module = self
        path = []
        for part in folders:
            part += "_" if keyword.iskeyword(part) else ""  # torch writes code in which it is an attribute
            while not isinstance(place._modules.get(part), nn.Module) and (not part or hasattr(place, part)):
                part += "_"
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = cast(nn.Module, place._modules[part])
            path.append(part)
        while not leaf or hasattr(place, leaf) or keyword.iskeyword(leaf):
            leaf += "_"
        held = torch.from_numpy(np.array(value))
        if is_trainable:
            place.register_parameter(leaf, nn.Parameter(held))
        else:
            place.register_buffer(leaf, held)
        found = ".".join([*path, leaf])
        self.names[found] = name
        return found

    def weight(self, name: str) -> torch.Tensor:
        """The parameter or buffer of a weight, by the weight's own name."""
        place: Any = self
        for part in self._paths[name].split("."):
            place = getattr(place, part)
        return cast(torch.Tensor, place)

    def parameters_by_name(self) -> dict[str, Floats]:
        """The values of every parameter, by each name of the weights that it is."""
        held = dict(self.named_parameters())
        return {name: held[path].detach().cpu().numpy() for name, path in self._paths.items() if path in held}

    def forward(self, *given: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The graph's outputs for its inputs."""
        known: dict[str, Value] = dict(zip(self.inputs, given, strict=True))
        for node in self.nodes:
            found = self._run(node, known)
            known.update(zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False))
        outputs = tuple(tensor(known[name]) for name in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, node: Node, known: Mapping[str, Value]) -> Value:
        """One node: on the host if all it takes are sizes, else by its operator."""
        sizes = [self._size(name, known) for name in node.inputs]
        if node.op in _HOST and all(size is not None for size in sizes):
            return np.asarray(_HOST[node.op](node, *sizes), object)  # numpy gives the one element of an array bare
        hosted = HOSTED.get(node.op, ())
        taken = [
            None if not name else self._sized(node, name, size) if index in hosted else self._value(name, known)
            for index, (name, size) in enumerate(zip(node.inputs, sizes, strict=True))
        ]
        return self.operators[node.op](node, *taken)

    def _size(self, name: str, known: Mapping[str, Value]) -> Array | None:
        """A value as sizes on the host, if it is that."""
        if name in known:
            return known[name] if isinstance(known[name], np.ndarray) else None
        if name in self._host:
            return self._host[name]
        number = self._numbers.get(name)
        return np.array(number) if isinstance(number, int) and not isinstance(number, bool) else None

    def _sized(self, node: Node, name: str, size: Array | None) -> Array:
        if size is None:
            raise UnsupportedError(
                f"{node.name} ({node.op}) takes a size, {name}, that is computed from values.",
                hint="Export the model so that shapes follow from shapes.",
            )
        return np.atleast_1d(size)

    def _value(self, name: str, known: Mapping[str, Value]) -> Value:
        if name in known:
            value = known[name]
            return tensor(value) if isinstance(value, np.ndarray) else value
        return self._numbers[name] if name in self._numbers else self.weight(name)


def present(model: Model, *, rounded: bool = False) -> Bridge:
    """The model as a module that answers as its reference does. Weights on a grid are parameters with their values.

    `rounded`: the inputs of linear layers are put on the grids of their schemes, with gradients as if they were not
    (Bengio et al. 2013, arXiv:1308.3432). Raises `UnsupportedError` for a node that has no function in torch.
    """
    graph = lower(model)
    proto = reference(graph if rounded else replace(graph, schemes=_unrounded(graph.schemes)))
    on_grids = {f"{name}.dequantize" for name, weight in graph.weights.items() if isinstance(weight, Quantized)}
    nodes = [read(node) for node in proto.graph.node if node.name not in on_grids]
    used = {name for node in nodes for name in node.inputs}
    arrays = _arrays({name: weight for name, weight in graph.weights.items() if name in used})
    constants = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer if item.name in used}
    own = model.weights if isinstance(model, Network) else arrays
    trainable = frozenset(
        name for name, array in arrays.items() if name in own and array.ndim and array.dtype.kind == "f"
    )
    operators = {**OPERATORS, "Round": _straight_through} if rounded else OPERATORS
    return Bridge(nodes, {**constants, **arrays}, ports(graph), trainable=trainable, operators=operators)


def ports(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a graph's inputs and outputs."""
    return tuple(port.name for port in graph.inputs), tuple(port.name for port in graph.outputs)


def read(node: onnx.NodeProto) -> Node:
    """A node of ONNX as the bridge walks it."""
    attributes = {item.name: _attribute(item) for item in node.attribute}
    if node.op_type == "Constant":
        raise UnsupportedError(
            f"{node.name} is a Constant among the nodes.", hint="Load the model with tightrope.load."
        )
    return Node(node.op_type, node.name or node.output[0], tuple(node.input), tuple(node.output), attributes)


def _attribute(item: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if item.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _arrays(weights: Mapping[str, Weight]) -> dict[str, Array]:
    """The values of weights in float32, whole numbers as they are; one that two names share stays one."""
    made: dict[int, Array] = {}
    for weight in weights.values():
        if id(weight) not in made:
            plain = isinstance(weight, Quantized) or is_float(weight)
            made[id(weight)] = values(weight) if plain else np.asarray(weight)
    return {name: made[id(weight)] for name, weight in weights.items()}


def _unrounded(schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
    """The schemes without their rounding. Layers that shared one share one."""
    made = {id(scheme): replace(scheme, bits=None) for scheme in schemes.values()}
    return {name: made[id(scheme)] for name, scheme in schemes.items()}


def _straight_through(_: Node, x: torch.Tensor) -> torch.Tensor:
    return x + (torch.round(x) - x).detach()


def written_back(module: Bridge, model: Model) -> Model:
    """The model with the values that the module's parameters have now, and a digest of its own.

    A weight that did not change keeps its array; if none did, the model is returned as it is. A changed weight is
    stored in the type it had; one on a grid becomes float32, to be put on a grid anew. Raises `UnsupportedError` for
    a module of another model.
    """
    graph = lower(model)
    before = _arrays(graph.weights)
    changed: dict[str, Weight] = {}
    for name, now in module.parameters_by_name().items():
        if name not in before or before[name].shape != now.shape:
            raise UnsupportedError(
                f"The module's {name} is not a weight of the model.", hint="Give the model it shows."
            )
        if not np.array_equal(before[name], now):
            changed[name] = _stored(name, now, before[name], graph, model)
    if not changed:
        return model
    digest = hashlib.sha256(model.digest.encode())
    for name, value in sorted(changed.items()):
        digest.update(name.encode() + values(value).tobytes())
    assert isinstance(model, Network | Graph)
    return replace(model.rewrite(weights=changed), digest=digest.hexdigest())


def _stored(name: str, now: Floats, before: Floats, graph: Graph, model: Model) -> Array:
    """A changed weight in the layout and the type in which the model stores it."""
    old = model.weights[name]
    layout = {linear.weight: linear.out_axis for linear in model.linears()}
    lowered = {linear.weight: linear.out_axis for linear in graph.linears()}
    if name in lowered and layout[name] != lowered[name]:
        now = np.ascontiguousarray(now.T)
    elif now.shape != old.shape or not np.array_equal(before, values(old)):
        whole = values(
            old
        ).copy()  # lowering cuts the positions that no text reaches, and may add the first type to them
        whole[: len(now)] += now - before
        now = whole
    return now if isinstance(old, Quantized) else now.astype(old.dtype)
