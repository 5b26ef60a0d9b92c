"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): encoders and cross-encoders of model type `distilbert`."""

from collections.abc import Mapping
from typing import Any

from tightrope.workshop import checkpoint, encoder, layouts
from tightrope.workshop.graph import Graph
from tightrope.workshop.layouts import Layout, setting
from tightrope.workshop.model import Linear, Table, Task
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Weight


def layout(config: Mapping[str, Any]) -> Layout:
    """What a DistilBERT checkpoint calls its parts: no token types, no pooler."""
    layouts.check(config)
    return Layout(
        layers=setting(config, "n_layers", int),
        heads=setting(config, "n_heads", int),
        hidden=setting(config, "dim", int),
        epsilon=1e-12,
        activation=setting(config, "activation", str, "gelu"),
        vocabulary=setting(config, "vocab_size", int),
        positions=setting(config, "max_position_embeddings", int, 512),
        first_position=0,
        word_table="embeddings.word_embeddings.weight",
        position_table="embeddings.position_embeddings.weight",
        type_table=None,
        embedding_norm="embeddings.LayerNorm",
        layer="transformer.layer.{}",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
        head=(("pre_classifier", "relu"), ("classifier", "identity")),
    )


def weights(config: Mapping[str, Any], tensors: Mapping[str, Weight], task: Task) -> dict[str, Weight]:
    """The weights of the encoder, and of the head if the task is scoring."""
    return checkpoint.pick(layout(config), tensors, task, prefix="distilbert.")


def linears(network: Network) -> tuple[Linear, ...]:
    """The linear layers in running order."""
    return encoder.linears(layout(network.config), network.task)


def tables(network: Network) -> tuple[Table, ...]:
    """The vocabulary and the positions."""
    return encoder.tables(layout(network.config))


def lower(network: Network) -> Graph:
    """The network as a readable ONNX graph."""
    return encoder.lower(network, layout(network.config))
