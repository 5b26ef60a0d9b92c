"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): encoders and cross-encoders of model type `roberta`."""

from collections.abc import Mapping
from typing import Any

from tightrope.workshop import checkpoint, encoder, layouts
from tightrope.workshop.graph import Graph
from tightrope.workshop.layouts import Layout
from tightrope.workshop.model import Linear, Table, Task
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Weight


def layout(config: Mapping[str, Any]) -> Layout:
    """What a RoBERTa checkpoint calls its parts; positions begin after the padding token's id."""
    return layouts.roberta_names(config)


def weights(config: Mapping[str, Any], tensors: Mapping[str, Weight], task: Task) -> dict[str, Weight]:
    """The weights of the encoder, and of the head if the task is scoring."""
    return checkpoint.pick(layout(config), tensors, task, prefix="roberta.")


def linears(network: Network) -> tuple[Linear, ...]:
    """The linear layers in running order."""
    return encoder.linears(layout(network.config), network.task)


def tables(network: Network) -> tuple[Table, ...]:
    """The vocabulary and the positions."""
    return encoder.tables(layout(network.config))


def lower(network: Network) -> Graph:
    """The network as a readable ONNX graph."""
    return encoder.lower(network, layout(network.config))
