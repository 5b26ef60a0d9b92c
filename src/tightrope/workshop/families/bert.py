"""BERT (Devlin et al. 2019, arXiv:1810.04805): encoders and cross-encoders of model type `bert`."""

from collections.abc import Mapping
from typing import Any

from tightrope.workshop import encoder
from tightrope.workshop.encoder import Layout, setting
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Linear, Table, Task
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Weight


def layout(config: Mapping[str, Any]) -> Layout:
    """What a BERT checkpoint calls its parts."""
    return Layout(
        layers=setting(config, "num_hidden_layers", int),
        heads=setting(config, "num_attention_heads", int),
        hidden=setting(config, "hidden_size", int),
        feed_forward=setting(config, "intermediate_size", int),
        epsilon=setting(config, "layer_norm_eps", float, 1e-12),
        activation=setting(config, "hidden_act", str, "gelu"),
        vocabulary=setting(config, "vocab_size", int),
        positions=setting(config, "max_position_embeddings", int),
        first_position=0,
        word_table="embeddings.word_embeddings.weight",
        position_table="embeddings.position_embeddings.weight",
        type_table="embeddings.token_type_embeddings.weight",
        embedding_norm="embeddings.LayerNorm",
        layer="encoder.layer.{}",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        output_norm="output.LayerNorm",
        head=(("pooler.dense", "tanh"), ("classifier", "identity")),
    )


def weights(config: Mapping[str, Any], tensors: Mapping[str, Weight], task: Task) -> dict[str, Weight]:
    """The weights of the encoder, and of the head if the task is scoring."""
    return encoder.pick(layout(config), tensors, task, prefix="bert.")


def linears(network: Network) -> tuple[Linear, ...]:
    """The linear layers in running order."""
    return encoder.linears(layout(network.config), network.task)


def tables(network: Network) -> tuple[Table, ...]:
    """The vocabulary and the positions."""
    return encoder.tables(layout(network.config))


def lower(network: Network) -> Graph:
    """The network as a readable ONNX graph."""
    return encoder.lower(network, layout(network.config))
