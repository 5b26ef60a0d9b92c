"""A folder in Hugging Face layout: what is honoured, and what is refused in two lines."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tightrope.device.senses.text import Tokenizer
from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.load import load
from tightrope.workshop.numerics.quantized import values


def merge(path: Path, **changes):
    data = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(data | changes), encoding="utf-8")


def ids(model, text):
    return Tokenizer(model.senses.tokenizer, model.senses.max_length).encode([text]).ids.values.tolist()


def test_a_folder_gives_the_weights_the_task_and_the_senses(bert_folder, tiny_bert):
    model = load(str(bert_folder))
    assert model.task == tiny_bert.task
    assert set(model.weights) == set(tiny_bert.weights)
    assert all(np.array_equal(values(model.weights[name]), value) for name, value in tiny_bert.weights.items())
    assert model.senses.max_length == 64
    assert ids(model, "the cat") == ids(tiny_bert, "the cat")
    assert model.digest == load(str(bert_folder)).digest


def test_shards_are_read_by_their_index(bert_folder, write_json):
    whole = load(str(bert_folder))
    tensors = load_file(bert_folder / "model.safetensors")
    (bert_folder / "model.safetensors").unlink()
    parts = {"a.safetensors": {}, "b.safetensors": {}}
    for number, (name, value) in enumerate(sorted(tensors.items())):
        parts["ab"[number % 2] + ".safetensors"][name] = value
    for name, part in parts.items():
        save_file(part, bert_folder / name)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    write_json(bert_folder / "model.safetensors.index.json", index)
    model = load(str(bert_folder))
    assert all(np.array_equal(values(model.weights[name]), values(value)) for name, value in whole.weights.items())


def test_half_precision_is_widened(bert_folder):
    tensors = load_file(bert_folder / "model.safetensors")
    save_file({name: value.astype(np.float16) for name, value in tensors.items()}, bert_folder / "model.safetensors")
    model = load(str(bert_folder))
    assert {values(value).dtype for value in model.weights.values()} == {np.dtype(np.float32)}


def test_prompts_limits_and_lower_case_are_honoured(bert_folder, write_json):
    prompts = {"query": "query: ", "document": ""}
    settings = {"prompts": prompts, "default_prompt_name": "query"}
    write_json(bert_folder / "config_sentence_transformers.json", settings)
    write_json(bert_folder / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": True})
    write_json(bert_folder / "tokenizer_config.json", {"model_max_length": 10**30})
    merge(bert_folder / "tokenizer.json", normalizer=None, truncation={"max_length": 8, "stride": 0}, padding=None)
    senses = load(str(bert_folder)).senses
    assert (senses.prompts, senses.default_prompt, senses.max_length) == (prompts, "query", 16)
    engine = Tokenizer(senses.tokenizer, senses.max_length)
    upper, lower, long = engine.encode(["THE CAT"]), engine.encode(["the cat"]), engine.encode(["the cat " * 20])
    assert upper.ids.values.tolist() == lower.ids.values.tolist()
    assert len(long.ids.values) == 16


@pytest.mark.parametrize(
    ("said", "limit"), [({}, 64), ({"model_max_length": 10**30}, 64), ({"model_max_length": 32}, 32)]
)
def test_texts_are_limited_by_the_tokenizer_and_the_positions(bert_folder, write_json, said, limit):
    write_json(bert_folder / "tokenizer_config.json", said)
    assert load(str(bert_folder)).senses.max_length == limit


def test_robertas_positions_begin_after_the_padding(bert_folder, write_json):
    merge(bert_folder / "config.json", model_type="roberta", pad_token_id=1)
    assert load(str(bert_folder)).senses.max_length == 62


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_poolings_by_their_settings(bert_folder, write_json, config, pooling):
    write_json(bert_folder / "1_Pooling" / "config.json", config)
    assert load(str(bert_folder)).task.pooling == pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_lasttoken": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": ["cls", "mean"]},
        {},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    ],
)
def test_poolings_that_are_not_understood_are_refused(bert_folder, write_json, two_lines, config):
    write_json(bert_folder / "1_Pooling" / "config.json", config)
    with pytest.raises(UnsupportedError) as raised:
        load(str(bert_folder))
    assert "pooling" in two_lines(raised)[0]


def test_a_dense_module_is_read(bert_folder, write_json, modules_of):
    write_json(bert_folder / "modules.json", modules_of("Transformer", "Pooling", "Dense"))
    settings = {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.modules.activation.Tanh"}
    write_json(bert_folder / "2_Dense" / "config.json", settings)
    weight = np.ones((8, 32), np.float32)
    save_file({"linear.weight": weight}, bert_folder / "2_Dense" / "model.safetensors")
    model = load(str(bert_folder))
    assert (model.task.width, model.task.dense, model.task.normalize) == (8, ("tanh",), False)
    assert np.array_equal(model.weights["dense.0.weight"], weight)
    assert np.array_equal(model.weights["dense.0.bias"], np.zeros(8, np.float32))
    save_file({"linear.weight": 2 * weight}, bert_folder / "2_Dense" / "model.safetensors")
    assert load(str(bert_folder)).digest != model.digest


def test_a_transformer_in_a_subfolder_is_found(bert_folder, write_json, modules_of):
    inner = bert_folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (bert_folder / name).rename(inner / name)
    listed = modules_of("Transformer", "Pooling")
    listed[0]["path"] = "0_Transformer"
    write_json(bert_folder / "modules.json", listed)
    assert load(str(bert_folder)).task.normalize is False


@pytest.mark.parametrize(
    "kinds",
    [
        ("Transformer", "Pooling", "LayerNorm"),
        ("Transformer", "Normalize"),
        ("Transformer", "Dense", "Pooling"),
        ("CLIP",),
    ],
)
def test_modules_that_are_not_understood_are_refused(bert_folder, write_json, modules_of, two_lines, kinds):
    write_json(bert_folder / "modules.json", modules_of(*kinds))
    with pytest.raises((UnsupportedError, SourceError)) as raised:
        load(str(bert_folder))
    two_lines(raised)


@pytest.mark.parametrize(
    ("config", "width", "activation"),
    [
        ({}, 2, "identity"),
        ({"id2label": {"0": "LABEL_0"}}, 1, "sigmoid"),
        (
            {"id2label": {"0": "a"}, "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
            1,
            "identity",
        ),
        (
            {"id2label": {"0": "a"}, "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            1,
            "sigmoid",
        ),
    ],
)
def test_a_cross_encoder_says_how_many_scores_it_gives(bert_folder, config, width, activation):
    (bert_folder / "modules.json").unlink()
    merge(bert_folder / "config.json", architectures=["BertForSequenceClassification"], **config)
    tensors = {f"bert.{name}": value for name, value in load_file(bert_folder / "model.safetensors").items()}
    tensors |= {
        "bert.pooler.dense.weight": np.eye(32, dtype=np.float32),
        "bert.pooler.dense.bias": np.zeros(32, np.float32),
    }
    tensors |= {"classifier.weight": np.ones((width, 32), np.float32), "classifier.bias": np.zeros(width, np.float32)}
    save_file(tensors, bert_folder / "model.safetensors")
    task = load(str(bert_folder)).task
    assert (task.name, task.width, task.activation) == ("scoring", width, activation)


def test_a_vocabulary_without_a_tokenizer_file_is_berts(bert_folder, tiny_bert, write_json):
    pieces = sorted(json.loads(tiny_bert.senses.tokenizer)["model"]["vocab"].items(), key=lambda item: item[1])
    (bert_folder / "tokenizer.json").unlink()
    (bert_folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")
    for lower, same in ((True, True), (False, False)):
        write_json(bert_folder / "tokenizer_config.json", {"do_lower_case": lower})
        model = load(str(bert_folder))
        assert ids(model, "the cat, dogs") == ids(tiny_bert, "the cat, dogs")
        assert (ids(model, "The Cät") == ids(tiny_bert, "the cat")) == same
    pair = Tokenizer(model.senses.tokenizer, 64).encode([("the", "cat")])
    assert pair.types.values.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", ["vocab.json", "sentencepiece.bpe.model"])
def test_other_vocabularies_are_no_tokenizer(bert_folder, two_lines, name):
    (bert_folder / "tokenizer.json").rename(bert_folder / name)
    with pytest.raises(SourceError, match=r"tokenizer\.json") as raised:
        load(str(bert_folder))
    two_lines(raised)


# Bad input ---------------------------------------------------------------------------------------------


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def foreign(folder):
    merge(folder / "config.json", model_type="mamba")


def larger_tokenizer(folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["zebra"] = 60
    (folder / "tokenizer.json").write_text(json.dumps(data))


def added_token(folder):
    token = {"id": 99, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False}
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"].append(token | {"normalized": False, "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(data))


def bare_tokenizer(folder):
    merge(folder / "tokenizer.json", post_processor=None)


def only_pickles(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def only_onnx(folder):
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")


def no_prompt(folder):
    merge(folder / "config_sentence_transformers.json", default_prompt_name="query")


@pytest.mark.parametrize(
    ("spoil", "kind", "said", "way_out"),
    [
        (remove("config.json"), SourceError, "config.json is missing", "Hugging Face"),
        (remove("model.safetensors"), SourceError, "has no weights", "model.safetensors"),
        (remove("tokenizer.json"), SourceError, "no tokenizer.json", "fast tokenizer"),
        (only_pickles, SourceError, "pickle (pytorch_model.bin)", "tightrope[torch]"),
        (only_onnx, SourceError, "has no weights", "model.onnx"),
        (foreign, UnsupportedError, "'mamba'", "bert"),
        (larger_tokenizer, SourceError, "61 tokens", "belongs"),
        (added_token, SourceError, "61 tokens", "belongs"),
        (bare_tokenizer, SourceError, "no first and last token", "belongs"),
        (no_prompt, SourceError, "'query'", "again"),
        (write("tokenizer.json", b'{"version": "1.0"}'), SourceError, "not a tokenizer", "belongs"),
        (write("tokenizer.json", b"\xff\xfe"), SourceError, "not valid JSON", "belongs"),
        (write("config.json", b"[]"), SourceError, "no JSON object", "Hugging Face"),
        (write("modules.json", b"{}"), SourceError, "no list", "again"),
        (write("sentence_bert_config.json", b'{"max_seq_length": -5}'), SourceError, "-5 tokens", "max_seq_length"),
        (write("sentence_bert_config.json", b'{"max_seq_length": "x"}'), SourceError, "'x' tokens", "max_seq_length"),
    ],
)
def test_bad_folders_are_refused_in_two_lines(bert_folder, two_lines, spoil, kind, said, way_out):
    spoil(bert_folder)
    with pytest.raises(kind) as raised:
        load(str(bert_folder))
    first, second = two_lines(raised)
    assert said in first and way_out in second
