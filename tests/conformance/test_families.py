"""Every family through every engine: random weights under the names of its checkpoints, against the reference."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tightrope import plugins
from tightrope.workshop.layouts import Layout
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import Network

pytestmark = pytest.mark.engine

BERT_LIKE = {
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "hidden_size": 78,  # heads of 26 features, as TinyBERT has: no multiple of any vector
    "intermediate_size": 100,
    "layer_norm_eps": 1e-5,
    "vocab_size": 60,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": BERT_LIKE,
    "camembert": BERT_LIKE | {"type_vocab_size": 1, "hidden_act": "gelu_new"},
    "distilbert": {
        "n_layers": 2,
        "n_heads": 3,
        "dim": 78,
        "hidden_dim": 100,
        "vocab_size": 60,
        "max_position_embeddings": 40,
    },
    "roberta": BERT_LIKE | {"type_vocab_size": 1},
    "xlm_roberta": BERT_LIKE | {"type_vocab_size": 1, "hidden_act": "relu"},
}
TASKS = {
    "mean": Task(name="embedding", width=78),
    "cls": Task(name="embedding", width=78, pooling="cls"),
    "max": Task(name="embedding", width=78, pooling="max", normalize=False),
    "root": Task(name="embedding", width=78, pooling="mean_sqrt_len"),
    "dense": Task(name="embedding", width=24, dense=("tanh", "identity")),
    "scores": Task(name="scoring", width=3),
    "one score": Task(name="scoring", width=1, activation="sigmoid"),
}


def network(name: str, task: Task, tokenizer: bytes) -> Network:
    """A random network of a family."""
    config = {"model_type": name.replace("_", "-"), **CONFIGS[name]}
    layout: Layout = plugins.load("families", name).layout(config)
    random = np.random.default_rng(len(name))
    weights: dict[str, Any] = {}

    def linear(part: str, out: int, width: int) -> None:
        weights[f"{part}.weight"] = random.normal(0, 0.15, (out, width)).astype(np.float32)
        weights[f"{part}.bias"] = random.normal(0, 0.1, out).astype(np.float32)

    def norm(part: str) -> None:
        weights[f"{part}.weight"] = random.uniform(0.5, 1.5, 78).astype(np.float32)
        weights[f"{part}.bias"] = random.normal(0, 0.1, 78).astype(np.float32)

    tables = {layout.word_table: 60, layout.position_table: 40, layout.type_table: CONFIGS[name].get("type_vocab_size")}
    for table, rows in tables.items():
        if table is not None:
            weights[table] = random.normal(0, 0.3, (rows, 78)).astype(np.float32)
    norm(layout.embedding_norm)
    for index in range(layout.layers):
        for part in (layout.query, layout.key, layout.value, layout.attention_output):
            linear(layout.part(index, part), 78, 78)
        linear(layout.part(index, layout.up), 100, 78)
        linear(layout.part(index, layout.down), 78, 100)
        norm(layout.part(index, layout.attention_norm))
        norm(layout.part(index, layout.output_norm))
    for position, (part, _) in enumerate(layout.head):
        linear(part, task.width if position + 1 == len(layout.head) else 78, 78)
    if task.dense:
        linear("dense.0", 40, 78)
        linear("dense.1", 24, 40)
    senses = TextSenses(tokenizer=tokenizer, max_length=36)
    return Network(
        family=name, config=config, weights=weights, senses=senses, task=task, origin="0" * 64, digest="0" * 64
    )


def batch(task: Task, *, types: bool) -> Mapping[str, Any]:
    """Three texts of 36, 5 and 1 tokens, padded."""
    ids = np.random.default_rng(4).integers(5, 60, (3, 36))
    mask = (np.arange(36) < np.array([[36], [5], [1]])).astype(np.int64)
    named = {"input_ids": ids * mask, "attention_mask": mask}
    return named | ({"token_type_ids": (np.arange(36) > 2) * mask} if types else {})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_answers_as_the_reference_does(
    family: str, task: str, engine: str, tiny_bert: Network, opened: Callable[..., Any], answer: Callable[..., Any]
):
    model = network(family, TASKS[task], tiny_bert.senses.tokenizer)
    found = opened(model, engine)
    types = any(port.name == "token_type_ids" for port in found.session.inputs)
    given = batch(TASKS[task], types=types)
    expected, got = answer(model, given), found.run(given)
    assert np.abs(got - expected).max() <= 2e-4 * max(1.0, np.abs(expected).max())
