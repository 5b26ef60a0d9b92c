"""The native converter: what it writes of an annotated network, and what it refuses by name."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from tightrope.device import engine
from tightrope.errors import MissingExtraError, UnsupportedError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.convert.native import convert, packed_tokenizer
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.hadamard import rotated
from tightrope.workshop.numerics.quantized import values
from tightrope.workshop.observe import Observer

pytestmark = pytest.mark.engine
WORDS = "embeddings.word_embeddings.weight"
UP = "encoder.layer.0.intermediate.dense"
TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night")


@pytest.fixture(autouse=True)
def _has_the_engine() -> None:
    try:
        engine.library()
    except MissingExtraError as error:
        pytest.skip(error.message)


@pytest.fixture
def written(tiny_bert, sections):
    """`written(recipe)`: the network that a recipe makes, what it is converted to, and the file's sections."""

    def write(recipe, model=tiny_bert):
        made = compress(model, Recipe.parse(recipe).steps, Observer(tiny_bert, TEXTS))
        converted = convert(made)
        return made, converted, sections(converted.files["model"][1])

    return write


def numbers(section, dtype):
    return np.frombuffer(section[1], dtype)


# What is written ---------------------------------------------------------------------------------------


def test_the_records_say_what_the_network_is(written, tiny_bert):
    _, converted, found = written("center + rotate + int8")
    config = struct.unpack("<11If16x", found["config"][1])
    assert config == (32, 2, 8, 60, 64, 0, 0, 0, 1, 0, 32, np.float32(1e-12))
    assert struct.unpack("<II", found["1.layer"][1]) == (4, 64)
    assert struct.unpack("<7I4x", found["0.qkv.linear"][1]) == (32, 96, 1, 1, 32, 0, 0)
    assert struct.unpack("<7I4x", found["0.up.linear"][1]) == (32, 64, 1, 1, 32, 0, 1)
    assert struct.unpack("<7I4x", found["0.down.linear"][1]) == (64, 32, 1, 1, 64, 0, 0)
    assert found["wordpiece"][1][:8] == b"TRPIECES" and converted.tokenizer == "model"
    assert (converted.precision, converted.settings, dict(converted.floats)) == ("int8", {}, {})
    assert [port.name for port in converted.inputs] == ["input_ids", "offsets"]


def test_integers_are_in_panels_with_their_scales_and_sums(written):
    model, _, found = written("center + rotate + int8")
    weight = model.weights[f"{UP}.weight"]
    panels = numbers(found["0.up.weight"], np.int8).reshape(4, 16, 16, 4)
    codes = panels.transpose(0, 2, 1, 3).reshape(64, 64)
    np.testing.assert_array_equal(codes[:, :32], weight.codes)
    assert not codes[:, 32:].any()  # inputs are filled up to a block
    np.testing.assert_array_equal(numbers(found["0.up.scale"], "<f4"), weight.scale)
    np.testing.assert_array_equal(numbers(found["0.up.sums"], "<i4"), weight.codes.astype(int).sum(1))
    np.testing.assert_array_equal(numbers(found["0.up.bias"], "<f4"), values(model.weights[f"{UP}.bias"]))
    np.testing.assert_array_equal(numbers(found["0.up.offset"], "<f4"), -model.schemes[f"{UP}.weight"].shift)
    assert "0.up.factor" not in found


def test_the_prepared_input_is_the_same_as_factor_and_offset_make_it(written):
    model, _, found = written("smooth(inputs=all, shift=true) + rotate + int8")
    scheme = model.schemes[f"{UP}.weight"]
    x = np.random.default_rng(1).normal(0, 1, (5, 32)).astype(np.float32)
    factor, offset = (numbers(found[f"0.up.{name}"], "<f4") for name in ("factor", "offset"))
    expected = rotated((x - scheme.shift) / scheme.smooth, scheme.rotation)
    np.testing.assert_allclose(rotated(x * factor + offset, 32), expected, atol=1e-5)


def test_positions_take_in_the_only_token_type(written, tiny_bert):
    _, _, found = written("original")
    types = tiny_bert.weights["embeddings.token_type_embeddings.weight"]
    expected = tiny_bert.weights["embeddings.position_embeddings.weight"] + types[0]
    np.testing.assert_array_equal(numbers(found["positions"], "<f4").reshape(64, 32), expected)
    assert "types" not in found and found["words"][0] == 1


@pytest.mark.parametrize(
    ("recipe", "apart"),
    [("int8", False), ("int4(block=16)", False), ("original", False), ('int8(keep="key")', True)],
)
def test_query_key_and_value_are_one_layer_where_they_are_alike(written, recipe, apart):
    _, _, found = written(recipe)
    assert ("0.qkv.linear" in found) != apart
    assert ("0.key.linear" in found) == apart


@pytest.mark.parametrize(
    ("recipe", "precision", "kind"),
    [
        ("original", "fp32", 1),
        ("half", "fp32", 2),
        ("half(format=bf16)", "fp32", 1),  # widened
        ("int8", "int8", 3),
        ("int8(activations=none)", "wint8", 3),
        ("int4(block=16)", "wint4", 4),
    ],
)
def test_weights_are_stored_as_they_are(written, recipe, precision, kind):
    _, converted, found = written(recipe)
    assert (converted.precision, found["0.up.weight"][0]) == (precision, kind)


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("symmetric", ["true", "false"])
def test_a_table_of_integers_has_halves_for_scales(written, bits, block, symmetric):
    model, _, found = written(f"embedding(bits={bits}, block={block}, symmetric={symmetric})")
    table, group = model.weights[WORDS], block or 32
    assert found["words"][0] == {8: 3, 6: 5, 4: 4}[bits] and len(found["words"][1]) == 60 * 32 * bits // 8
    assert struct.unpack("<II", found["words.table"][1]) == (group, 1)
    assert found["words.scale"][0] == 2
    np.testing.assert_array_equal(numbers(found["words.scale"], np.float16).astype("f4"), table.scale.ravel())
    assert ("words.zero" in found) == (symmetric == "false")
    if bits == 8:
        codes = numbers(found["words"], np.int8).reshape(60, 32 // group, group).astype(np.float32)
        zeros = numbers(found["words.zero"], np.int8) if "words.zero" in found else np.zeros(table.scale.size)
        real = (codes - zeros.reshape(60, -1, 1)) * table.scale.reshape(60, -1, 1)
        np.testing.assert_allclose(real.reshape(60, 32), table.dequantize(), atol=1e-6)


def test_scales_that_halves_do_not_hold_stay_floats(written, tiny_bert):
    small = tiny_bert.rewrite(weights={WORDS: tiny_bert.weights[WORDS] * np.float32(1e-4)})
    model, _, found = written("embedding", small)
    assert struct.unpack("<II", found["words.table"][1]) == (32, 0)
    assert found["words.scale"][0] == 1
    np.testing.assert_array_equal(numbers(found["words.scale"], "<f4"), model.weights[WORDS].scale)


def test_the_same_network_gives_the_same_bytes(tiny_bert):
    assert convert(tiny_bert).files == convert(tiny_bert).files


def test_a_tokenizer_alone_is_a_file_too(tiny_bert, sections):
    assert list(sections(packed_tokenizer(tiny_bert.senses.tokenizer))) == ["wordpiece"]
    assert packed_tokenizer(b"{}") is None


# What is refused ---------------------------------------------------------------------------------------


def refuse(model, message, two_lines):
    with pytest.raises(UnsupportedError, match=message) as raised:
        convert(model)
    two_lines(raised)


def test_graphs_are_refused(tiny_bert, two_lines):
    refuse(lower(tiny_bert), "not ONNX files", two_lines)


def test_an_unknown_activation_is_refused_by_its_name(tiny_bert, two_lines):
    strange = replace(tiny_bert, config=dict(tiny_bert.config) | {"hidden_act": "silu"})
    refuse(strange, "'silu'", two_lines)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", [WORDS, f"{UP}.weight"])
def test_what_is_not_finite_is_refused_by_its_name(tiny_bert, two_lines, name, value):
    spoiled = np.array(tiny_bert.weights[name])
    spoiled[1, 2] = value
    refuse(tiny_bert.rewrite(weights={name: spoiled}), f"{name} holds values", two_lines)


@pytest.mark.parametrize(
    "recipe",
    ["int8(activations=static)", "int8(granularity=tensor)", "int8(inputs=asymmetric)", "int8(outliers=2)"],
)
def test_inputs_rounded_otherwise_are_refused_with_the_layer(tiny_bert, two_lines, recipe):
    loud = np.array(tiny_bert.weights[f"{UP}.weight"])
    loud[:, 3] *= 8
    model = tiny_bert.rewrite(weights={f"{UP}.weight": loud})
    made = compress(model, Recipe.parse(recipe).steps, Observer(model, TEXTS))
    refuse(made, r"encoder\.layer\.0", two_lines)
