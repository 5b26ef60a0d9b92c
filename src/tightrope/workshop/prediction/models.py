"""The models of a probe: small, of random weights, none of them like a model that anyone asks about.

Encoders differ in width and depth, so that a line through their times tells products from steps; convolutional networks
differ in channels and size, and have convolutions of whole channels and in groups.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tightrope.device.senses.image import ImageSenses
from tightrope.ports import Port
from tightrope.workshop.graph import Builder, Graph
from tightrope.workshop.model import Model, Task, TextSenses
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Array

WORDS = ("the", "cat", "sat", "on", "a", "mat")
MAX_LENGTH = 256
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A BERT of so many layers and features, four times as many inside."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolutional:
    """A stack of blocks (3x3 by channels, 1x1, 3x3 in groups, 1x1) on a square image."""

    blocks: int
    channels: int
    side: int


ENCODERS = (
    Encoder(layers=1, width=128, heads=4),
    Encoder(layers=4, width=128, heads=4),
    Encoder(layers=2, width=256, heads=4),
    Encoder(layers=1, width=768, heads=12),
)
CONVOLUTIONALS = (
    Convolutional(blocks=1, channels=16, side=32),
    Convolutional(blocks=4, channels=16, side=32),
    Convolutional(blocks=2, channels=32, side=64),
    Convolutional(blocks=2, channels=96, side=28),
    Convolutional(blocks=3, channels=24, side=96),
)


def encoder(like: Encoder) -> Network:
    """An encoder that embeds texts, its weights small and random."""
    random = np.random.default_rng(like.width + like.layers)
    config = {
        "model_type": "bert",
        "num_hidden_layers": like.layers,
        "num_attention_heads": like.heads,
        "hidden_size": like.width,
        "intermediate_size": 4 * like.width,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "vocab_size": len(_SPECIAL) + len(WORDS),
        "max_position_embeddings": MAX_LENGTH,
    }
    weights: dict[str, Array] = {}
    for name, shape in _encoder_shapes(config):
        if len(shape) == 2:
            weights[f"{name}.weight"] = random.normal(0, 0.05, shape).astype(np.float32)
        elif "LayerNorm" in name:
            weights[f"{name}.weight"] = np.ones(shape, np.float32)
            weights[f"{name}.bias"] = np.zeros(shape, np.float32)
        else:
            weights[f"{name}.bias"] = random.normal(0, 0.05, shape).astype(np.float32)
    digest = hashlib.sha256(repr(like).encode()).hexdigest()
    return Network(
        family="bert",
        config=config,
        weights=weights,
        senses=TextSenses(tokenizer=_tokenizer(), max_length=MAX_LENGTH),
        task=Task(name="embedding", width=like.width),
        origin=digest,
        digest=digest,
    )


def _encoder_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    tables = {"word": config["vocab_size"], "position": config["max_position_embeddings"], "token_type": 2}
    for table, rows in tables.items():
        yield f"embeddings.{table}_embeddings", (rows, width)
    yield "embeddings.LayerNorm", (width,)
    for layer in range(config["num_hidden_layers"]):
        of = f"encoder.layer.{layer}"
        layers = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        layers |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
        layers |= {"output.dense": (width, inner)}
        for name, shape in layers.items():
            yield f"{of}.{name}", shape
            yield f"{of}.{name}", shape[:1]
        yield f"{of}.attention.output.LayerNorm", (width,)
        yield f"{of}.output.LayerNorm", (width,)


def _tokenizer() -> bytes:
    """A WordPiece tokenizer.json that knows the words of the probe."""
    pieces = {piece: index for index, piece in enumerate((*_SPECIAL, *WORDS))}
    engine = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer()
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return json.dumps(json.loads(engine.to_str())).encode()


def convolutional(like: Convolutional) -> Graph:
    """A classifier of ten classes, its weights random and scaled so that activations keep their size."""
    random = np.random.default_rng(like.channels + like.blocks)
    build, wide = Builder(), 4 * like.channels
    senses = ImageSenses(
        height=like.side,
        width=like.side,
        resize=0,
        colours="rgb",
        layout="nchw",
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
    )

    def convolve(x: str, name: str, out: int, inner: int, kernel: int, groups: int = 1) -> str:
        fan = inner // groups * kernel * kernel
        weight = random.normal(0, np.sqrt(2 / fan), (out, inner // groups, kernel, kernel)).astype(np.float32)
        inputs = [x, build.weight(f"{name}.weight", weight), build.weight(f"{name}.bias", np.zeros(out, np.float32))]
        pads = [kernel // 2] * 4
        y = build.node("Conv", inputs, name, group=groups, pads=pads, kernel_shape=[kernel, kernel])
        return build.node("Relu", [y], f"{name}.relu")

    x = convolve("image", "stem", like.channels, 3, 3)
    for block in range(like.blocks):
        y = convolve(x, f"{block}.whole", like.channels, like.channels, 3)
        y = convolve(y, f"{block}.widen", wide, like.channels, 1)
        y = convolve(y, f"{block}.groups", wide, wide, 3, groups=wide)
        y = convolve(y, f"{block}.narrow", like.channels, wide, 1)
        x = build.node("Add", [x, y], f"{block}.sum")
    x = build.node("GlobalAveragePool", [x], "pool")
    x = build.node("Flatten", [x], "flat", axis=1)
    head = build.weight("head.weight", random.normal(0, 0.1, (like.channels, 10)).astype(np.float32))
    build.node("MatMul", [x, head], "logits")
    digest = hashlib.sha256(repr(like).encode()).hexdigest()
    return Graph(
        proto=build.proto("probe", (Port("image", "float32", senses.shape),), (Port("logits", "float32", (1, 10)),)),
        weights=build.weights,
        senses=senses,
        task=Task(name="classification", width=10, labels=tuple(map(str, range(10)))),
        origin=digest,
        digest=digest,
    )


def texts() -> tuple[str, ...]:
    """A few texts of the probe's words, to calibrate by."""
    random = np.random.default_rng(0)
    return tuple(" ".join(random.choice(WORDS, count)) for count in (3, 8, 17, 40, 90))


def images(model: Model, count: int = 4) -> tuple[bytes, ...]:
    """Random images of the model's size, as .npy files."""
    import io

    senses = model.senses
    assert isinstance(senses, ImageSenses)
    random, found = np.random.default_rng(0), []
    for _ in range(count):
        stream = io.BytesIO()
        np.save(stream, random.integers(0, 256, (senses.height, senses.width, 3), np.uint8), allow_pickle=False)
        found.append(stream.getvalue())
    return tuple(found)
