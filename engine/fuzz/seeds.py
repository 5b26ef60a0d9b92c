"""Writes files for the fuzzers to begin with: FOLDER/artefact/* and FOLDER/wordpiece/*.

    .venv/bin/python engine/fuzz/seeds.py FOLDER

Bytes that are mutated at random hardly ever pass a header. So each way in which a model can be stored is there once, as
small as it can be: small files are mutated where it matters.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tightrope.workshop.convert._wordpiece import pack
from tightrope.workshop.converted import convert
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.quantized import Scheme, Weight, values
from tightrope.workshop.numerics.rounding import round_to_nearest

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "s", "##a", "##t", "é")
WIDTH, INNER, LONGEST = 32, 48, 20
WORDS = "embeddings.word_embeddings.weight"
TEXTS = ("the Cat [SEP] sat\u00e9", "", "thethe \u0301\u00c5 \u6f22 sat" * 3)


def tokenizer() -> bytes:
    """A WordPiece of ten pieces."""
    made = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made.to_str().encode()


def network(senses: bytes, task: Task) -> Network:
    """A BERT of one layer and two heads that scores as well as embeds."""
    random = np.random.default_rng(5)
    layer = "encoder.layer.0"
    linears = {f"{layer}.attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    linears |= {f"{layer}.attention.output.dense": (WIDTH, WIDTH), f"{layer}.intermediate.dense": (INNER, WIDTH)}
    linears |= {f"{layer}.output.dense": (WIDTH, INNER), "pooler.dense": (WIDTH, WIDTH), "classifier": (1, WIDTH)}
    linears |= {"dense.0": (WIDTH, WIDTH)}
    shapes: dict[str, tuple[int, ...]] = {WORDS: (len(PIECES), WIDTH)}
    shapes |= {
        "embeddings.position_embeddings.weight": (LONGEST, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for norm in ("embeddings", f"{layer}.attention.output", f"{layer}.output"):
        shapes |= {f"{norm}.LayerNorm.weight": (WIDTH,), f"{norm}.LayerNorm.bias": (WIDTH,)}
    config = {"model_type": "bert", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": WIDTH}
    config |= {"intermediate_size": INNER, "vocab_size": len(PIECES), "max_position_embeddings": LONGEST}
    return Network(
        family="bert",
        config=config,
        weights={name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()},
        senses=TextSenses(tokenizer=senses, max_length=LONGEST),
        task=task,
        origin="0" * 64,
        digest="0" * 64,
    )


def on_grid(whole: Network, bits: int, block: int | None, scheme: Scheme) -> Network:
    """All layers and the vocabulary on a grid."""
    weights, schemes = dict[str, Weight](), dict[str, Scheme]()
    for name in [WORDS, *(linear.weight for linear in whole.linears())]:
        rows = values(whole.weights[name])
        inside = block if block is None or rows.shape[1] % block == 0 else 16
        weights[name] = round_to_nearest(rows, bits=bits, block=inside, symmetric=block is None)
    for linear in whole.linears():
        width = whole.weights[linear.weight].shape[1]
        ones = np.ones(width, np.float32)
        schemes[linear.weight] = (
            replace(scheme, smooth=ones * 1.5, shift=ones * 0.1) if scheme.shift is not None else scheme
        )
    return whole.rewrite(weights=weights, schemes=schemes)


def networks() -> Iterator[tuple[str, Network]]:
    """One network for each way to store one."""
    embeds = network(tokenizer(), Task(name="embedding", width=WIDTH, pooling="mean", dense=("tanh",)))
    pooled = replace(embeds, task=Task(name="embedding", width=WIDTH, pooling="max"))
    moved = Scheme(bits=8, shift=np.zeros(1, np.float32))
    yield "floats", embeds
    yield "integers", on_grid(embeds, 8, None, Scheme(bits=8, rotation=16))
    yield "moved", on_grid(pooled, 8, None, moved)
    yield "nibbles", on_grid(pooled, 4, 16, Scheme())
    halves = {linear.weight: values(embeds.weights[linear.weight]).astype(np.float16) for linear in embeds.linears()}
    six = round_to_nearest(values(embeds.weights[WORDS]), bits=6, block=None, symmetric=True)
    yield "halves", embeds.rewrite(weights={**halves, WORDS: six})
    query = "encoder.layer.0.attention.self.query.weight"
    yield "apart", embeds.rewrite(weights={query: halves[query]})
    yield "scorer", on_grid(replace(embeds, task=Task(name="scoring", width=1)), 8, None, Scheme(bits=8))


def write(folder: Path) -> None:
    """Both corpora."""
    for name in ("artefact", "wordpiece"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, made in networks():
        (folder / "artefact" / name).write_bytes(convert(made, "native").files["model"][1])
    for number, text in enumerate(TEXTS):
        (folder / "wordpiece" / str(number)).write_bytes(pack(tokenizer()) + b"\xff" + text.encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
