"""Files of a model that lie, break off, reach out or blow up: each ends in an error of ours, never in anything else."""

import json
import struct

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tightrope.errors import TightropeError
from tightrope.workshop.load import load
from tightrope.workshop.model import Model

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(entries, *, length=None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        header({}),
        header({}, length=2**63),
        header({}, length=2**40),
        header({"a": ENTRY}),
        header({"a": ENTRY}) + b"\0" * 15,
        header({"a": ENTRY | {"shape": [2**62, 2**62]}}) + b"\0" * 16,
        header({"a": ENTRY | {"shape": [-1, 2]}}) + b"\0" * 16,
        header({"a": ENTRY | {"data_offsets": [8, 24]}}) + b"\0" * 24,
        header({"a": ENTRY | {"data_offsets": [16, 0]}}) + b"\0" * 16,
        header({"a": ENTRY, "b": ENTRY}) + b"\0" * 16,
        header({"a": ENTRY | {"dtype": "OBJECT"}}) + b"\0" * 16,
        header({"a": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}) + b"\0" * 16,
        b"\x80\x04\x95" + b"\0" * 64,
        b"PK\x03\x04" + b"\0" * 64,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    ],
)
def test_safetensors_that_lie_are_refused(victim, refused, data):
    (victim / "model.safetensors").write_bytes(data)
    refused(lambda: load(str(victim)))


@QUIET
@given(cut=st.floats(0, 0.9999))
def test_safetensors_broken_off_anywhere_are_refused(victim, refused, cut):
    whole = (
        (victim / "whole") if (victim / "whole").exists() else (victim / "model.safetensors").rename(victim / "whole")
    )
    data = whole.read_bytes()
    (victim / "model.safetensors").write_bytes(data[: int(len(data) * cut)])
    refused(lambda: load(str(victim)))


@QUIET
@given(position=st.integers(0, 3000), value=st.integers(0, 255))
def test_a_changed_byte_in_a_header_never_ends_in_a_foreign_error(victim, tiny_bert, position, value):
    whole = (
        (victim / "whole") if (victim / "whole").exists() else (victim / "model.safetensors").rename(victim / "whole")
    )
    data = bytearray(whole.read_bytes())
    data[position] = value
    (victim / "model.safetensors").write_bytes(data)
    try:
        model = load(str(victim))
    except TightropeError:
        return
    assert {name: value.shape for name, value in model.weights.items()} == {
        name: value.shape for name, value in tiny_bert.weights.items()
    }


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", "a.bin", "", 7, None])
def test_an_index_names_files_of_its_own_folder_only(victim, refused, name):
    (victim / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "names no weight files" in refused(lambda: load(str(victim)))


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/b", 7, None])
def test_modules_stay_in_the_folder(victim, refused, path):
    (victim / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": path}]))
    assert "malformed" in refused(lambda: load(str(victim)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = (
    "architectures", "model_type", "hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "id2label",
    "max_position_embeddings", "layer_norm_eps", "hidden_act", "pad_token_id", "num_labels", "sentence_transformers",
    "sbert_ce_default_activation_function", "is_decoder", "position_embedding_type", "intermediate_size",
)  # fmt: skip


@QUIET
@given(name=st.sampled_from(SETTINGS), value=JSON)
def test_hostile_values_in_config_never_end_in_a_foreign_error(victim, tiny_bert, name, value):
    (victim / "config.json").write_text(json.dumps(dict(tiny_bert.config) | {name: value}))
    try:
        load(str(victim))
    except TightropeError as error:
        assert len(str(error).splitlines()) == 2


FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json",
         "config.json", "tokenizer.json", "model.safetensors.index.json")  # fmt: skip
KEYS = ("prompts", "default_prompt_name", "max_seq_length", "do_lower_case", "model_max_length", "weight_map", "type")


@QUIET
@given(file=st.sampled_from(FILES), value=JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_hostile_json_in_any_file_never_ends_in_a_foreign_error(victim, file, value):
    before = (victim / file).read_bytes() if (victim / file).exists() else None
    (victim / file).write_text(json.dumps(value))
    try:
        load(str(victim))
    except TightropeError as error:
        assert len(str(error).splitlines()) == 2
    finally:
        (victim / file).unlink() if before is None else (victim / file).write_bytes(before)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff" * 10, b'{"a": NaN}', b"1" * 5000, b'{"a": "\\ud800"}', b"\0"]
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_json_made_to_break_a_parser_is_refused(victim, refused, file, data):
    (victim / file).write_bytes(data)
    refused(lambda: load(str(victim)))


# ONNX --------------------------------------------------------------------------------------------------


@pytest.mark.engine
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.9999))
def test_onnx_broken_off_anywhere_is_refused(victim_onnx, refused, cut):
    whole = victim_onnx.with_name("whole")
    if not whole.exists():
        victim_onnx.rename(whole)
    data = whole.read_bytes()
    victim_onnx.write_bytes(data[: int(len(data) * cut)])
    refused(lambda: load(str(victim_onnx)))


@pytest.mark.engine
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_noise_is_no_onnx_file(victim_onnx, refused, data):
    victim_onnx.write_bytes(data)
    refused(lambda: load(str(victim_onnx)))


def outside(proto, location, **entries):
    """Say that the first weight's data is elsewhere."""
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.engine
@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "sub/data", "", ".", "..", "a\0b", "link"]
)
def test_external_data_stays_in_the_folder(victim_onnx, refused, location):
    secret = victim_onnx.parent.parent / "secret"
    secret.write_bytes(b"s" * 100_000)
    (victim_onnx.parent / "link").symlink_to(secret)
    proto = onnx.load(victim_onnx)
    outside(proto, location)
    onnx.save(proto, victim_onnx)
    assert "cannot be had" in refused(lambda: load(str(victim_onnx)))


@pytest.mark.engine
@pytest.mark.parametrize(
    "entries",
    [{"offset": "-8"}, {"length": "-1"}, {"length": "10000000000000"}, {"offset": "x"}, {"offset": "99999999"}],
)
def test_external_data_keeps_to_its_file(victim_onnx, refused, entries):
    (victim_onnx.parent / "data").write_bytes(b"\0" * 100_000)
    proto = onnx.load(victim_onnx)
    outside(proto, "data", **entries)
    onnx.save(proto, victim_onnx)
    refused(lambda: load(str(victim_onnx)))


@pytest.mark.engine
def test_a_weight_that_claims_to_be_huge_is_refused(victim_onnx, refused):
    proto = onnx.load(victim_onnx)
    proto.graph.initializer[0].dims[:] = [2**40, 2**20]
    onnx.save(proto, victim_onnx)
    refused(lambda: load(str(victim_onnx)))


@pytest.mark.engine
def test_a_foreign_operator_hidden_in_a_branch_or_a_function_is_found(victim_onnx, refused):
    proto = onnx.load(victim_onnx)
    inner = helper.make_graph([helper.make_node("Shell", [], ["y"], domain="evil")], "branch", [], [])
    branch = helper.make_node("If", ["condition"], ["z"], then_branch=inner, else_branch=inner)
    proto.graph.node.append(branch)
    onnx.save(proto, victim_onnx)
    assert "evil.Shell" in refused(lambda: load(str(victim_onnx)))
    del proto.graph.node[-1]
    function = helper.make_function(
        "mine", "Harmless", ["x"], ["y"], [helper.make_node("Shell", ["x"], ["y"], domain="evil")], []
    )
    proto.functions.append(function)
    onnx.save(proto, victim_onnx)
    assert "evil.Shell" in refused(lambda: load(str(victim_onnx)))


@pytest.mark.engine
def test_a_local_function_is_inlined(victim_onnx):
    proto = onnx.load(victim_onnx)
    expected = np.asarray(load(str(victim_onnx)).task.width)
    opsets = [helper.make_opsetid("", 21)]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    proto.functions.append(helper.make_function("mine", "Same", ["x"], ["y"], nodes, opsets))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.graph.node[-1].op_type, proto.graph.node[-1].domain = "Same", "mine"
    onnx.save(proto, victim_onnx)
    model: Model = load(str(victim_onnx))
    assert model.task.width == expected
