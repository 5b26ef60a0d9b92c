"""What the tests of exports share: a bundle of the tiny BERT for an engine, whose file nobody opens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle, Writer
from tightrope.recipe import Recipe
from tightrope.workshop.assemble import Origin, _content, _npy
from tightrope.workshop.converted import Converted
from tightrope.workshop.network import Network, lower

TEXTS = ("the cat sat", "Ça va? 的 ﬁ", "a cat sat on the mat")


@pytest.fixture
def bundle_for(tiny_bert: Network, tmp_path: Path, need_engine: Callable[[str], None]) -> Callable[..., Bundle]:
    """`bundle_for(engine, settings, files, **senses)`: sealed, with answers of unit length that nobody computed."""

    def make(engine: str, settings: dict[str, Any], files: dict[str, Any], **senses: Any) -> Bundle:
        if engine == "coreml":  # its runtime is asked whether it could answer here
            need_engine(engine)
        network = replace(tiny_bert, senses=replace(tiny_bert.senses, **senses)) if senses else tiny_bert
        graph = lower(network)
        converted = Converted(
            engine=engine,
            engine_version="1",
            precision="fp32",
            files=files,
            inputs=graph.inputs,
            outputs=graph.outputs,
            settings=settings,
        )
        rows = np.eye(len(TEXTS), network.task.width, dtype=np.float32)
        about = Origin(source="tiny", recipe=Recipe.parse(f"original -> {engine}"), calibration={})
        with Writer(tmp_path / f"{engine}.bundle") as writer:
            content = _content(network, converted, about, writer)
            vectors = {"inputs": list(TEXTS), "tolerance": 0.999, "expected": writer.add(_npy(rows), "npy")}
            return writer.seal(replace(content, vectors=vectors, files=writer.files))

    return make


WORDS = ("the", "playing", "Ünïcödé", "naïve", "İstanbul", "ẞ", "ΑΣ", "ﬁ", "が", "각", "的", "क़", "[SEP]", "##ing", "İ")
SCRIPTS = ((0x20, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x1100, 0x1200))
SCRIPTS += ((0x1E00, 0x2070), (0x2070, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xF900, 0x10000), (0x0, 0x20))
SCRIPTS += ((0x1D100, 0x1D250), (0x1F300, 0x1F700), (0x20000, 0x20100), (0xE0000, 0xE0200), (0x7F, 0xA1))


@pytest.fixture(scope="session")
def hard_texts() -> Callable[[int], list[str]]:
    """`hard_texts(count)`: random texts of many scripts, marks, emoji, control characters, and long words."""

    def part(random: Random) -> str:
        match random.randrange(6):
            case 0 | 1:
                return random.choice(WORDS) + random.choice((" ", " ", "", "'", "\t", "."))
            case 2:
                return "".join(chr(random.randrange(*random.choice(SCRIPTS))) for _ in range(random.randint(1, 5)))
            case 3:
                return random.choice("aeoAEOΩяя가") + "".join(chr(random.randrange(0x300, 0x370)) for _ in range(2))
            case 4:
                code = random.randrange(0x110000)
                return chr(0xFFFD if 0xD800 <= code < 0xE000 else code)
            case _:
                return random.choice("aé的b") * random.choice((3, 99, 100, 101, 250)) if random.random() < 0.2 else " "

    def make(count: int) -> list[str]:
        random = Random(13)
        return ["".join(part(random) for _ in range(random.randint(0, 12))) for _ in range(count)]

    return make
