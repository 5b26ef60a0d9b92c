"""An embedder without an engine: a sealed bundle with a real tokenizer, and a session that answers from the ids."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tightrope import bundle
from tightrope.device.model import Embedder
from tightrope.ports import Port
from tightrope.testing import FakeSession

WORDS = ["[UNK]", "red", "green", "blue", "find:", "store:"]


def rows_of(feeds) -> dict[str, np.ndarray]:
    """How often each word occurs in a text, less a half, so that some numbers are below zero."""
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    counts = np.stack([((ids == word) & (mask == 1)).sum(axis=1) for word in range(8)], axis=1)
    return {"embedding": counts.astype(np.float32) - 0.5}


@pytest.fixture
def embedder(tmp_path: Path) -> Callable[..., Embedder]:
    """Makes an open embedder of 8 numbers with the given prompts."""

    def make(prompts: dict[str, str] | None = None, default: str | None = None) -> Embedder:
        engine = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
        engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        ports = (Port("input_ids", "int64", ("n", "length")), Port("attention_mask", "int64", ("n", "length")))
        outputs = (Port("embedding", "float32", ("n", 8)),)
        with bundle.Writer(tmp_path / "words.bundle") as writer:
            tokenizer = writer.add(json.dumps(json.loads(engine.to_str())).encode(), "json")
            artefact = bundle.Artefact(engine="fake", precision="fp32", files={"model": writer.add(b"none", "bin")})
            content = bundle.Content(
                task={"name": "embedding", "width": 8, "pooling": "mean", "normalize": False},
                senses={
                    "kind": "text",
                    "tokenizer": tokenizer,
                    "max_length": 16,
                    "prompts": prompts or {},
                    "default_prompt": default,
                },
                models=(bundle.Model(name="encoder", inputs=ports, outputs=outputs, artefacts=(artefact,)),),
                recipe="none",
                lineage={},
                vectors={},
                files=writer.files,
            )
            sealed = writer.seal(content)
        return Embedder(sealed, FakeSession(rows_of, ports, outputs), artefact)

    return make
