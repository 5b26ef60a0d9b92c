"""The reference, executed by an engine, against the same arithmetic written out in numpy."""

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tightrope.device.senses.text import Tokenizer
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import kept_name, prepared, values
from tightrope.workshop.observe import Observer
from tightrope.workshop.reference import reference
from tightrope.workshop.verify.plain import Plain

TEXTS = ("the cat sat", "a cat on the mat", "dogs bark at night", "she sells shells", "rain")
_erf = np.vectorize(math.erf, otypes=[np.float32])


def rounded(x, scheme):
    """x' on its grid and back; the range over each token, over everything, or as calibrated."""
    if scheme is None:
        return x
    x = prepared(x, scheme)
    if scheme.bits is None:
        return x
    axis = -1 if scheme.granularity == "token" else None
    low, high = scheme.static or (x.min(axis, keepdims=True), x.max(axis, keepdims=True))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    levels = 2**scheme.bits - 1
    if scheme.symmetric:
        scale = np.maximum(-low, high) / (levels // 2)
        return np.clip(np.rint(x / scale), -(levels // 2), levels // 2) * scale
    scale = (high - low) / levels
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, levels) - zero) * scale


class Emulated:
    """A BERT for one text, in numpy; the model's weights and schemes are all it shares with the real thing."""

    def __init__(self, model):
        self.model = model

    def weight(self, name):
        return values(self.model.weights[name])

    def linear(self, x, name):
        scheme = self.model.schemes.get(f"{name}.weight")
        bias = self.weight(f"{name}.bias")
        if scheme is not None and scheme.kept is not None:
            floats = prepared(x, scheme)[:, scheme.kept]
            bias = bias + floats @ self.weight(kept_name(f"{name}.weight"))
            rest = np.ones(x.shape[1], np.float32)
            rest[scheme.kept] = 0
            x = prepared(x, scheme) * rest
            scheme = replace(scheme, smooth=None, shift=None)
        return rounded(x, scheme) @ self.weight(f"{name}.weight").T + bias

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * self.weight(f"{name}.weight") + self.weight(f"{name}.bias")

    def attention(self, x, name, heads=4):
        parts = [self.linear(x, f"{name}.self.{part}") for part in ("query", "key", "value")]
        query, key, value = (part.reshape(len(x), heads, -1).transpose(1, 0, 2) for part in parts)
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        context = (weights / weights.sum(-1, keepdims=True)) @ value
        return self.linear(context.transpose(1, 0, 2).reshape(len(x), -1), f"{name}.output.dense")

    def embed(self, ids):
        x = self.weight("embeddings.word_embeddings.weight")[ids]
        x = x + self.weight("embeddings.position_embeddings.weight")[: len(ids)]
        x = self.norm(x + self.weight("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
        for layer in ("encoder.layer.0", "encoder.layer.1"):
            attended = self.attention(x, f"{layer}.attention")
            x = self.norm(attended + x, f"{layer}.attention.output.LayerNorm")
            inner = self.linear(x, f"{layer}.intermediate.dense")
            inner = inner * (1 + _erf(inner / math.sqrt(2))) / 2
            x = self.norm(self.linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
        pooled = x.mean(0)
        return pooled / np.linalg.norm(pooled)


RECIPES = [
    "original",
    "half",
    "half(format=bf16)",
    "int8(activations=none)",
    "int8(activations=none, weights=asymmetric)",
    "int8(inputs=symmetric)",
    "int8(outliers=4)",
    "smooth + int8(activations=static, outliers=4, inputs=asymmetric, compensation=gptq)",
    "int8(inputs=asymmetric)",
    "int8(granularity=tensor, inputs=symmetric)",
    "int8(granularity=tensor, inputs=asymmetric)",
    "int8(activations=static, inputs=symmetric)",
    "int8(activations=static, inputs=asymmetric, calibration=mse)",
    "int8(activations=static, inputs=asymmetric, calibration=entropy)",
    "int8(activations=static, calibration=percentile, percentile=99.0)",
    "smooth",
    "smooth(shift=true, inputs=all)",
    "smooth(shift=true, statistic=rms, alpha=0.7) + smooth(shift=true, inputs=all) + int8(compensation=gptq)",
    "smooth(shift=true) + int8(activations=static, inputs=asymmetric)",
    "smooth + half",
    "rotate",
    "smooth(shift=true) + center + rotate(block=8)",
    "center + rotate + int8(compensation=gptq)",
    "smooth + rotate(block=16) + int8(activations=static, inputs=asymmetric)",
    "center + rotate + int8(granularity=tensor, inputs=asymmetric)",
    "embedding",
    "embedding(bits=6, block=32)",
    "embedding(bits=4, block=16, symmetric=false) + half",
    'embedding(bits=4) + smooth + int8(keep="query, layer.1.output") + half',
]


@pytest.fixture(scope="module")
def loud(tiny_bert):
    """The tiny BERT with one feature so loud that it counts as an outlier, where a layer norm is read."""
    names = [f"encoder.layer.{layer}.intermediate.dense.weight" for layer in (0, 1)]
    weights = {name: values(tiny_bert.weights[name]).copy() for name in names}
    for weight in weights.values():
        weight[:, 3] *= 4
    return tiny_bert.rewrite(weights=weights)


@pytest.mark.engine
@pytest.mark.parametrize("text", RECIPES)
@pytest.mark.parametrize("as_graph", [False, True], ids=["network", "graph"])
def test_the_reference_is_what_the_annotations_say(tiny_bert, loud, text, as_graph):
    tiny_bert = loud if "outliers" in text else tiny_bert
    steps = Recipe.parse(text).steps
    observer = Observer(tiny_bert, TEXTS)
    expected = compress(tiny_bert, steps, observer)
    assert any(scheme.kept is not None for scheme in expected.schemes.values()) == ("outliers" in text)
    model = lower(tiny_bert) if as_graph else tiny_bert
    graph = lower(compress(model, steps, observer))
    onnx.checker.check_model(reference(graph))
    tokenizer = Tokenizer(tiny_bert.senses.tokenizer, 64)
    pairs = []
    for sentence in TEXTS:  # one at a time: the range of a whole tensor takes in what else is in the batch
        ((_, _, (answer,)),) = Plain(graph).run([sentence])
        pairs.append((answer[0], Emulated(expected).embed(tokenizer.encode([sentence]).ids.values)))
    if "int8" not in text:  # positions are halved with the token type already added
        np.testing.assert_allclose(*map(np.array, zip(*pairs, strict=True)), atol=2e-3 if "half" in text else 2e-5)
        return
    cosines = [answer @ emulated for answer, emulated in pairs]
    assert np.median(cosines) > 0.9999
    assert min(cosines) > 0.995  # a value midway between two codes may fall either way, and later layers amplify it


@pytest.mark.engine
def test_layers_that_share_an_input_share_its_rounding(tiny_bert):
    model = compress(tiny_bert, Recipe.parse("smooth + int8(inputs=symmetric)").steps, Observer(tiny_bert, TEXTS))
    rounds = [node for node in reference(model).graph.node if node.op_type == "Round"]
    assert len(rounds) == 2 * 4  # a layer has six weights, and four inputs


@pytest.mark.engine
def test_weights_in_integers_leave_inputs_in_floats(tiny_bert):
    """The engine's own optimiser would make one node of DequantizeLinear and MatMul, and round the input for it."""
    observer = Observer(tiny_bert, TEXTS)
    model = compress(tiny_bert, Recipe.parse("int4(method=nearest, block=16)").steps, observer)
    floats = {name: values(weight) for name, weight in model.weights.items()}
    same = tiny_bert.rewrite(weights=floats)
    found = [np.concatenate([out for _, _, (out,) in Plain(lower(item)).run(TEXTS)]) for item in (model, same)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
