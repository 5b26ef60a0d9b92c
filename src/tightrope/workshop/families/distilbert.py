"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): encoders and cross-encoders of model type `distilbert`."""

from collections.abc import Mapping
from typing import Any

from tightrope.workshop import checkpoint, encoder, layouts
from tightrope.workshop.layouts import Layout, setting


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


weights = checkpoint.picker(layout, prefix="distilbert.")
linears, tables, lower = encoder.verbs(layout)
