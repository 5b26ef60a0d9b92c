"""What the tests of the converters share: strings that are hard on any tokenizer, a network of convolutions."""

import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tightrope import plugins
from tightrope.workshop.converted import Converted
from tightrope.workshop.graph import Graph
from tightrope.workshop.load import load
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Quantized, Scheme, values
from tightrope.workshop.numerics.rounding import round_to_nearest

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
MARKS = [character for character in CHARACTERS if unicodedata.category(character).startswith("M")]
LATIN = [chr(code) for code in range(0x20, 0x250)]
BLOCKS = [
    [chr(code) for code in range(*bounds)]
    for bounds in (
        *((0x0, 0x20), (0x7F, 0x100), (0x370, 0x530), (0x530, 0x700), (0x700, 0x900), (0x900, 0xE00), (0xE00, 0x1100)),
        *((0x1100, 0x1200), (0x1200, 0x1AB0), (0x1A00, 0x1E00), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x3000)),
        *((0x3000, 0x4E00), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7B0), (0xE000, 0xFB00), (0xFB00, 0x10000)),
        *((0x10000, 0x11000), (0x11000, 0x12000), (0x1D100, 0x1D250), (0x1E000, 0x1E030), (0x1E800, 0x1E960)),
        *((0x1F000, 0x20000), (0x20000, 0x20200), (0x2F800, 0x2FA20), (0xE0000, 0xE0200), (0x10FF00, 0x110000)),
    )
]
PIECES = (
    *(
        "[SEP]",
        "[CLS]",
        "[MASK]",
        "[PAD]",
        "[UNK]",
        "[sep]",
        "[SEP",
        "SEP]",
        "[[SEP]]",
        "##ing",
        "<m>",
        " <m> ",
        "<m>m",
    ),
    *("İ", "ß", "ΑΣ ", "σς", "ﬁ", "ậ", "Ệ", "ά", "Ώ", "Ё", "й", "が", "パ", "각", "क़", "ো", "\u212b\u1e9b\u0323"),
    *("\u0344", "\u0f73\u0f75\u0f81", "e\u0301\u0323", "\u0323\u0301", "\u302e\u302f\u1bf2", "\U0001d15e\U0001d160"),
    *("\U0001d165\u302e\u034f\u0301\U0001d16d", "\u1100\u1161\u11a8", "👨\u200d👩\u200d👧", "🇩🇪", "👍🏽", "\U000e0001"),
    *(
        "\0",
        "\x7f",
        "\x85",
        "\t\n\r",
        "\v\f",
        "\u00a0",
        "\u00ad",
        "\u180e",
        "\u200b",
        "\u2028",
        "\u3000",
        "\ufeff",
        "\ufffd",
    ),
)
"""Special and added tokens whole and in part, letters with a history, marks that move, what is dropped or splits."""

LONG = ("a", "é", "的", "각", "\u0301", "b\u302e", "\U0001d165", "[", "ab")


@pytest.fixture(scope="session")
def strings():
    """`strings(count, words, seed)`: random texts of all scripts, marks, control characters, long words."""

    def some(random: random.Random, characters: list[str], most: int) -> str:
        return "".join(random.choices(characters, k=random.randint(1, most)))

    def part(random: random.Random, words: list[str]) -> str:
        kind = random.randrange(12)
        if kind < 3:
            return random.choice(words) + random.choice(("", "", " ", "s", "'"))
        if kind == 3:
            return random.choice(words).title() + random.choice((" ", "", "\t", "."))
        if kind == 4:
            return some(random, MARKS, 6)
        if kind == 5:
            return some(random, random.choice(BLOCKS), 8)
        if kind == 6:
            return "".join(some(random, LATIN, 1) + some(random, MARKS, 2) for _ in range(random.randint(1, 4)))
        if kind == 7:
            return some(random, CHARACTERS, 2)
        if kind == 8 and random.random() < 0.1:
            return random.choice(LONG) * random.randint(30, 130)
        if kind == 9:
            return random.choice((" ", "  ", "-", "#", "##", "…", "。"))
        return random.choice(PIECES)

    def make(count: int, words: list[str], seed: int) -> Iterator[str]:
        source = random.Random(seed)
        for _ in range(count):
            yield "".join(part(source, words) for _ in range(source.choice((1, 2, 3, 5, 8, 13))))

    return make


@pytest.fixture(scope="session")
def cnn() -> Graph:
    """A small convolutional network of every operator that plain ones have: [1, 3, 16, 16] to 5 probabilities."""
    random = np.random.default_rng(11)
    weights: dict[str, Any] = {}
    nodes = []

    def node(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(x: str, name: str, out: int, width: int, kernel: int, group: int = 1, **attributes: Any) -> str:
        scale = (2 / (width // group * kernel**2)) ** 0.5
        shape = (out, width // group, kernel, kernel)
        weights[f"{name}.weight"] = random.normal(0, scale, shape).astype(np.float32)
        weights[f"{name}.bias"] = random.normal(0, 0.1, out).astype(np.float32)
        return node("Conv", [x, f"{name}.weight", f"{name}.bias"], name, group=group, **attributes)

    def constant(name: str, value: Any) -> str:
        weights[name] = np.asarray(value)
        return name

    x = conv("image", "stem", 8, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    for part in ("scale", "shift", "mean", "variance"):
        low, high = (0.5, 1.5) if part in ("scale", "variance") else (-0.2, 0.2)
        constant(f"norm.{part}", random.uniform(low, high, 8).astype(np.float32))
    x = node("BatchNormalization", [x, *(f"norm.{part}" for part in ("scale", "shift", "mean", "variance"))], "norm")
    first = node("Relu", [x], "stem.relu")
    x = conv(first, "depthwise", 8, 8, 3, 8, pads=[1, 1, 1, 1])
    x = node("HardSwish", [x], "depthwise.swish")
    gate = node("GlobalAveragePool", [x], "gate.pool")
    gate = node("HardSigmoid", [conv(gate, "gate", 8, 8, 1)], "gate.sigmoid", alpha=1 / 6, beta=0.5)
    x = node("Mul", [x, gate], "gated")
    x = conv(x, "pointwise", 8, 8, 1)
    x = node("Add", [x, first], "sum")
    limits = [constant("nought", np.float32(0)), constant("six", np.float32(6))]
    x = node("Clip", [x, *limits], "sum.clipped")
    x = node("MaxPool", [x], "most", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = conv(x, "grouped", 12, 8, 3, 2, pads=[0, 0, 1, 1], dilations=[1, 1])
    x = node("AveragePool", [x], "mean", kernel_shape=[2, 2], strides=[1, 1])
    x = node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "flat")
    x = node("Reshape", [x, constant("row", np.array([1, 12]))], "row.of.features")
    weights["head.weight"] = random.normal(0, 0.5, (5, 12)).astype(np.float32)
    weights["head.bias"] = random.normal(0, 0.1, 5).astype(np.float32)
    x = node("Gemm", [x, "head.weight", "head.bias"], "head", transB=1)
    node("Softmax", [x], "probabilities", axis=-1)
    ports = [helper.make_tensor_value_info(name, 1, shape) for name, shape in _CNN_PORTS]
    proto = helper.make_model(
        helper.make_graph(nodes, "cnn", ports[:1], ports[1:]),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    task = Task(name="embedding", width=5, normalize=False)
    senses = TextSenses(tokenizer=b"", max_length=8)
    return Graph(proto=proto, weights=weights, senses=senses, task=task, origin="0" * 64, digest="0" * 64)


_CNN_PORTS = (("image", [1, 3, 16, 16]), ("probabilities", [1, 5]))


@pytest.fixture(scope="session")
def coded_cnn(cnn: Graph) -> Graph:
    """The same with the weights of its convolutions on a grid of 8 bits for each output."""
    coded: dict[str, Any] = {}
    for name, weight in cnn.weights.items():
        if name.endswith(".weight"):
            flat = round_to_nearest(values(weight).reshape(len(weight), -1), bits=8, block=None, symmetric=True)
            coded[name] = replace(flat, codes=flat.codes.reshape(weight.shape))
    return cnn.rewrite(weights=coded)


@pytest.fixture
def answers_of(tmp_path: Path) -> Callable[..., Any]:
    """answers_of(converted, feeds): what a converted model's runtime gives first."""

    def run(found: Converted, feeds: Any) -> Any:
        runtime = plugins.load("runtimes", found.engine)
        session = runtime.open_artefact(found.write(tmp_path), found.settings, threads=1)
        try:
            return session.run(feeds)[session.outputs[0].name]
        finally:
            session.close()

    return run


WORDS = "embeddings.word_embeddings.weight"
QUERY, UP, DOWN = (
    f"encoder.layer.0.{part}.weight" for part in ("attention.self.query", "intermediate.dense", "output.dense")
)


@pytest.fixture(scope="session")
def mixed_bert(tiny_bert: Network) -> Network:
    """The tiny BERT of 24 tokens: weights of 8 bits by row, of 4 in blocks, halves, and a table of 4 bits in blocks."""

    def on_grid(name: str, **grid: Any) -> Quantized:
        return round_to_nearest(tiny_bert.weights[name], **grid)

    weights = {
        QUERY: on_grid(QUERY, bits=8, block=None, symmetric=True),
        UP: on_grid(UP, bits=4, block=32, symmetric=True),
        DOWN: tiny_bert.weights[DOWN].astype(np.float16),
        WORDS: on_grid(WORDS, bits=4, block=16, symmetric=False),
    }
    senses = replace(tiny_bert.senses, max_length=24)
    return tiny_bert.rewrite(weights=weights, schemes={QUERY: Scheme(bits=8)}, senses=senses)


@pytest.fixture
def texts() -> Callable[[int, int], dict[str, Any]]:
    """`texts(rows, length)`: random ids, the last row two tokens shorter than the others."""

    def make(rows: int, length: int) -> dict[str, Any]:
        ids = np.random.default_rng(length).integers(5, 60, (rows, length))
        mask = np.ones_like(ids)
        mask[-1, max(1, length - 2) :] = 0
        return {"input_ids": ids * mask, "attention_mask": mask}

    return make


@pytest.fixture(scope="module")
def coded_pictures(tiny_cnn: Path) -> Graph:
    """The small classifier of images, the weights of its convolutions in 8 bits by row."""
    graph = load(str(tiny_cnn))
    assert isinstance(graph, Graph)
    weights = {}
    for conv in graph.convolutions():
        weight = values(graph.weights[conv.weight])
        rows = round_to_nearest(weight.reshape(len(weight), -1), bits=8, block=None, symmetric=True)
        weights[conv.weight] = replace(rows, codes=rows.codes.reshape(weight.shape))
    return graph.rewrite(weights=weights)
