"""Layouts: what BERT and its descendants call their parts in a checkpoint, and the settings of their config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tightrope.errors import SourceError, UnsupportedError

_MUST_BE: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "position_embedding_type": ("absolute", None),
}
"""Settings of config.json that change what the encoder computes, and the values that are understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names and settings of one checkpoint. `layer` holds `{}` for the layer's number; parts are relative to it.

    `head`: the linear layers of a scoring model between the first token and the scores, each with the activation
    that follows it.
    """

    layers: int
    heads: int
    hidden: int
    epsilon: float
    activation: str
    vocabulary: int
    positions: int
    first_position: int
    word_table: str
    position_table: str
    type_table: str | None
    embedding_norm: str
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    head: tuple[tuple[str, str], ...] = ()

    def part(self, index: int, name: str) -> str:
        """The full name of a part of one layer."""
        return f"{self.layer.format(index)}.{name}"


def setting(config: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A value of config.json; `SourceError` if it is missing or not of the kind."""
    value = config.get(name, default)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise SourceError(f"config.json says {name} is {value!r}.", hint=f"Give a config.json with a valid {name}.")
    return value


def check(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedError` for a configuration that is not a plain encoder with learned positions."""
    for name, understood in _MUST_BE.items():
        if config.get(name) not in understood:
            raise UnsupportedError(
                f"config.json says {name} is {config[name]!r}, which is not a plain encoder.",
                hint=f"Understood: {understood[0]!r}. Any other model can enter as an .onnx file with its tokenizer.",
            )


def bert_names(config: Mapping[str, Any], *, first_position: int, head: tuple[tuple[str, str], ...]) -> Layout:
    """The layout of a checkpoint whose parts are named as in BERT's. Raises `SourceError`, `UnsupportedError`."""
    check(config)
    return Layout(
        layers=setting(config, "num_hidden_layers", int),
        heads=setting(config, "num_attention_heads", int),
        hidden=setting(config, "hidden_size", int),
        epsilon=setting(config, "layer_norm_eps", float, 1e-12),
        activation=setting(config, "hidden_act", str, "gelu"),
        vocabulary=setting(config, "vocab_size", int),
        positions=setting(config, "max_position_embeddings", int),
        first_position=first_position,
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
        head=head,
    )


def roberta_names(config: Mapping[str, Any]) -> Layout:
    """The layout of RoBERTa and the models that took over its form: positions begin after the padding token's id."""
    padding = setting(config, "pad_token_id", int, 1)
    head = (("classifier.dense", "tanh"), ("classifier.out_proj", "identity"))
    return bert_names(config, first_position=padding + 1, head=head)
