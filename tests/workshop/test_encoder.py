"""Lowering without torch: same bytes, pruned heads, positions, poolings, dense layers, heads of cross-encoders."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.load import load
from tightrope.workshop.model import Task
from tightrope.workshop.network import family, lower
from tightrope.workshop.reference import reference

DIGEST = """
import hashlib, sys
from tightrope.workshop.load import load
from tightrope.workshop.reference import reference
print(hashlib.sha256(reference(load(sys.argv[1])).SerializeToString()).hexdigest())
"""


def digest(model) -> str:
    return hashlib.sha256(reference(model).SerializeToString()).hexdigest()


def roberta_of(bert):
    """The tiny BERT's weights under the names and settings of a RoBERTa with one token type."""
    config = dict(bert.config) | {"model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1}
    random = np.random.default_rng(1)
    weights = dict(bert.weights)
    weights["embeddings.token_type_embeddings.weight"] = weights["embeddings.token_type_embeddings.weight"][:1]
    weights |= {"classifier.dense.weight": random.normal(0, 0.3, (32, 32)).astype(np.float32)}
    weights |= {"classifier.out_proj.weight": random.normal(0, 0.3, (2, 32)).astype(np.float32)}
    weights |= {"classifier.dense.bias": np.ones(32, np.float32), "classifier.out_proj.bias": np.ones(2, np.float32)}
    return replace(bert, family="roberta", config=config, weights=weights)


@pytest.mark.slow
def test_same_weights_same_bytes_in_another_process_too(bert_folder):
    here = digest(load(str(bert_folder)))
    assert digest(load(str(bert_folder))) == here
    command = [sys.executable, "-c", DIGEST, str(bert_folder)]
    for seed in ("1", "2"):
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed})
        assert result.stdout.strip() == here, result.stderr


def test_nodes_and_weights_bear_the_names_of_the_checkpoint(tiny_bert):
    graph = lower(tiny_bert)
    assert {node.name for node in graph.proto.graph.node} >= {linear.name for linear in tiny_bert.linears()}
    assert [(a.weight, a.source) for a in graph.linears()] == [(a.weight, a.source) for a in tiny_bert.linears()]
    assert [port.shape for port in graph.inputs] == [("batch", "length")] * 2
    assert [(port.name, port.shape) for port in graph.outputs] == [("embedding", ("batch", 32))]


@pytest.mark.engine
def test_a_model_with_an_odd_number_of_heads_answers_as_if_the_other_were_silent(tiny_bert, answers, texts, close):
    """A head whose part of the output projection is zero adds nothing; so it can be cut away."""
    kept = np.r_[0:8, 16:32]  # the second of four heads of eight features goes
    block = "encoder.layer.1.attention"
    silent, cut = dict(tiny_bert.weights), dict(tiny_bert.weights)
    silent[f"{block}.output.dense.weight"] = silent[f"{block}.output.dense.weight"].copy()
    silent[f"{block}.output.dense.weight"][:, 8:16] = 0
    cut[f"{block}.output.dense.weight"] = cut[f"{block}.output.dense.weight"][:, kept]
    for part in ("query", "key", "value"):
        for end in ("weight", "bias"):
            cut[f"{block}.self.{part}.{end}"] = cut[f"{block}.self.{part}.{end}"][kept]
    picked = family("bert").weights(tiny_bert.config, cut, tiny_bert.task)
    pruned = replace(tiny_bert, weights=picked)
    assert close(answers(pruned, texts), answers(replace(tiny_bert, weights=silent), texts)) < 1e-6


@pytest.mark.engine
def test_roberta_begins_its_positions_after_the_padding_token(tiny_bert, answers, texts, close):
    roberta = roberta_of(tiny_bert)
    weights, table = dict(tiny_bert.weights), "embeddings.position_embeddings.weight"
    weights[table] = weights[table][2:]
    shifted = replace(tiny_bert, weights=weights)
    assert close(answers(roberta, texts), answers(shifted, texts)) < 1e-6


@pytest.mark.engine
def test_one_token_type_needs_no_input_and_the_head_is_robertas(tiny_bert, answers, close):
    scorer = replace(roberta_of(tiny_bert), task=Task(name="scoring", width=2))
    assert [port.name for port in lower(scorer).inputs] == ["input_ids", "attention_mask"]
    pairs = [("the cat sat", "a dog"), ("rain", "")]
    assert answers(scorer, pairs).shape == (2, 2)
    assert [linear.name for linear in scorer.linears()][-2:] == ["classifier.dense", "classifier.out_proj"]


@pytest.mark.engine
def test_padding_does_not_change_an_answer(tiny_bert, answers, texts, close):
    together = answers(tiny_bert, texts)
    alone = np.concatenate([answers(tiny_bert, [text]) for text in texts])
    assert close(together, alone) < 1e-6


@pytest.mark.engine
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean_sqrt_len"])
def test_poolings_are_what_they_say(tiny_bert, answers, texts, close, pooling):
    plain = replace(tiny_bert, task=Task(name="embedding", width=32, pooling=pooling, normalize=False))
    pooled = answers(plain, texts[:1])
    graph = lower(plain)
    import onnxruntime
    from onnx import helper

    from tightrope.device.senses.text import Tokenizer

    proto = reference(graph)
    proto.graph.output.append(helper.make_tensor_value_info("encoder.layer.1.output.LayerNorm", 1, None))
    ids, mask = Tokenizer(plain.senses.tokenizer, 64).encode(texts[:1]).ids.padded()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    hidden = session.run(["encoder.layer.1.output.LayerNorm"], {"input_ids": ids, "attention_mask": mask})[0][0]
    wanted = {
        "mean": hidden.mean(0),
        "cls": hidden[0],
        "max": hidden.max(0),
        "mean_sqrt_len": hidden.sum(0) / np.sqrt(len(hidden)),
    }[pooling]
    assert close(pooled[0], wanted) < 1e-5


@pytest.mark.engine
def test_dense_layers_follow_the_pooling(tiny_bert, answers, texts, close):
    random = np.random.default_rng(3)
    weight, bias = random.normal(0, 0.3, (8, 32)).astype(np.float32), random.normal(0, 0.3, 8).astype(np.float32)
    plain = answers(replace(tiny_bert, task=Task(name="embedding", width=32, normalize=False)), texts)
    task = Task(name="embedding", width=8, normalize=False, dense=("tanh",))
    weights = {**tiny_bert.weights, "dense.0.weight": weight, "dense.0.bias": bias}
    dense = replace(tiny_bert, task=task, weights=family("bert").weights(tiny_bert.config, weights, task))
    assert close(answers(dense, texts), np.tanh(plain @ weight.T + bias)) < 1e-5


def test_weights_that_do_not_belong_together_are_named(tiny_bert):
    def pick(**changed):
        weights = {**tiny_bert.weights, **changed}
        return family("bert").weights(tiny_bert.config, weights, tiny_bert.task)

    def called(name, array, match):
        with pytest.raises(SourceError, match=match):
            pick(**{name: array})

    query, down = "encoder.layer.0.attention.self.query.weight", "encoder.layer.1.output.dense.weight"
    called(query, np.zeros((24, 32), np.float32), "its neighbours")
    called(query, np.zeros((20, 32), np.float32), "its neighbours")
    called(down, np.zeros((32, 60), np.float32), r"output.dense' takes 60")
    called(down, np.full((32, 64), np.nan, np.float32), "no finite floats")
    called(down, np.zeros((32, 64), np.int8), "no finite floats")
    called("embeddings.word_embeddings.weight", np.zeros((59, 32), np.float32), r"\(59, 32\).*\(60, 32\)")


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"hidden_act": "swish"}, UnsupportedError, "'swish'"),
        ({"is_decoder": True}, UnsupportedError, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, UnsupportedError, "relative_key"),
        ({"num_attention_heads": 0}, SourceError, "0 heads"),
        ({"num_attention_heads": 5}, SourceError, "5 heads"),
        ({"num_hidden_layers": -1}, SourceError, "-1"),
        ({"num_hidden_layers": 10**12}, SourceError, "encoder.layer.2"),
        ({"hidden_size": "32"}, SourceError, "'32'"),
        ({"hidden_size": True}, SourceError, "True"),
        ({"vocab_size": None}, SourceError, "vocab_size is None"),
        ({"layer_norm_eps": "x"}, SourceError, "layer_norm_eps"),
    ],
)
def test_a_configuration_that_is_nonsense_or_foreign_is_refused(tiny_bert, change, kind, match):
    with pytest.raises(kind, match=match):
        family("bert").weights({**tiny_bert.config, **change}, tiny_bert.weights, tiny_bert.task)


def test_the_names_of_the_first_berts_are_understood(tiny_bert, bert_folder):
    old = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": value
        for name, value in tiny_bert.weights.items()
    }
    save_file(old, bert_folder / "model.safetensors")
    assert digest(load(str(bert_folder))) == digest(replace(tiny_bert, senses=load(str(bert_folder)).senses))
