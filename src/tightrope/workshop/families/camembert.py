"""CamemBERT (Martin et al. 2020, arXiv:1911.03894): encoders and cross-encoders of model type `camembert`."""

from collections.abc import Mapping
from typing import Any

from tightrope.workshop import checkpoint, encoder, layouts
from tightrope.workshop.graph import Graph
from tightrope.workshop.layouts import Layout
from tightrope.workshop.model import Linear, Table, Task
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Weight


def layout(config: Mapping[str, Any]) -> Layout:
    """What a CamemBERT checkpoint calls its parts; its classes in transformers bear the prefix of RoBERTa."""
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
