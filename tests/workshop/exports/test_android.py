"""The Android project: what is in it, and its tokenizer, compiled and run by a plain JDK."""

import base64
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tightrope.bundle import Bundle
from tightrope.device.senses.text import Tokenizer
from tightrope.errors import BundleError, OutputError, UnsupportedError
from tightrope.workshop.exports import android
from tightrope.workshop.exports.content import HARD_TEXTS

JAVA = Path(__file__).parent / "java"
CODE = Path("tightrope") / "src" / "main" / "java" / "dev" / "tightrope"
SETTINGS = {"lengths": [16, 32, 64], "delegate": "xnnpack"}
FILES = {"model": ("tflite", b"a model that nobody opens here")}
PROMPTS = {"prompts": {"query": "query: é "}, "default_prompt": None}


@pytest.fixture
def project(bundle_for: Callable[..., Bundle], tmp_path: Path) -> Path:
    """An exported project."""
    return android.export(bundle_for("litert", SETTINGS, FILES, **PROMPTS), tmp_path / "android")


def compiled(javac: str, sources: Sequence[Path], into: Path) -> Path:
    """Classes of Java 8, as Android's build makes them, without a warning."""
    into.mkdir()
    command = [javac, "--release", "8", "-Xlint:all,-options", "-Werror", "-d", str(into), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return into


def test_a_project_holds_the_model_the_tokenizer_and_the_vectors(project: Path):
    assets = project / "tightrope" / "src" / "main" / "assets" / "tightrope"
    assert (assets / "model.tflite").read_bytes() == FILES["model"][1]
    assert (assets / "wordpiece.bin").read_bytes().startswith(b"TRPIECES")
    assert (assets / "unicode.bin").read_bytes().startswith(b"TRUNICOD")
    answers = (project / "tightrope" / "src" / "androidTest" / "assets" / "answers.txt").read_text().splitlines()
    assert len(answers) == 3
    tokens = (project / "tightrope" / "src" / "test" / "resources" / "tokens.txt").read_text().splitlines()
    assert len(tokens) == 3 + 2 * len(HARD_TEXTS)
    for path in project.rglob("*"):
        if path.suffix in (".java", ".gradle", ".md", ".xml", ".properties"):
            assert "@OUTPUT@" not in path.read_text() and "@DIGEST@" not in path.read_text()
    assert "not run there" in (project / "README.md").read_text().lower()


def test_all_of_it_compiles(project: Path, javac: str, tmp_path: Path):
    """Against the parts of LiteRT and Android that it calls, as their documentation has them."""
    sources = [*(project / CODE).glob("*.java"), *(JAVA / "stubs").rglob("*.java")]
    assert len([*compiled(javac, sources, tmp_path / "classes").rglob("*.class")]) > 12


def run(javac: str, project: Path, folder: Path, items: Sequence[Any], limit: int) -> tuple[list[str], str]:
    """What the Java tokenizer answers to texts and pairs, a line each, and what it says on the side."""
    plain = [path for path in (project / CODE).glob("*.java") if path.stem not in ("LiteRtRunner", "Models")]
    library = compiled(javac, plain, folder / "library")
    into = folder / "tokens"
    into.mkdir()
    subprocess.run([javac, "-cp", str(library), "-d", str(into), str(JAVA / "Tokens.java")], check=True, timeout=120)
    lines = [
        "\t".join(base64.b64encode(part.encode("utf-16-be", "surrogatepass")).decode() for part in parts)
        for parts in ([item] if isinstance(item, str) else list(item) for item in items)
    ]
    assets = project / "tightrope" / "src" / "main" / "assets" / "tightrope"
    java = Path(javac).with_name("java")
    command = [str(java), "-cp", f"{library}:{into}", "Tokens", str(assets), str(limit)]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def expected(source: Bundle, items: Sequence[Any], limit: int) -> list[str]:
    """The same lines by the bundle's own tokenizer."""
    tokenizer = Tokenizer(source.file(source.content.senses["tokenizer"]), limit)
    lines = []
    for item in items:
        encoded = tokenizer.encode([item])
        ids = " ".join(map(str, encoded.ids.values.tolist()))
        lines.append(ids if isinstance(item, str) else f"{ids}\t{' '.join(map(str, encoded.types.values.tolist()))}")
    return lines


def test_the_java_tokenizer_gives_the_ids_of_the_bundles_own(
    bundle_for, javac: str, hard_texts: Callable[[int], list[str]], tmp_path: Path
):
    source = bundle_for("litert", SETTINGS, FILES, **PROMPTS)
    project = android.export(source, tmp_path / "android")
    texts = [*HARD_TEXTS, "half \ud83d of a pair", "\udc00", *hard_texts(1500)]
    items = [*texts, *zip(texts, texts[::-1], strict=True)]
    got, aside = run(javac, project, tmp_path, items, 24)
    assert got == expected(source, items, 24)
    *said, cosine = aside.split()
    assert said == [source.digest, "64", "32", "query:", "é"]
    assert float(cosine) == pytest.approx(1.0)


@pytest.mark.network
@pytest.mark.slow
def test_ten_thousand_texts_with_the_real_vocabulary(
    bundle_for, minilm, javac: str, hard_texts: Callable[[int], list[str]], tmp_path: Path
):
    senses = PROMPTS | {"tokenizer": minilm.senses.tokenizer, "max_length": 64}
    source = bundle_for("litert", SETTINGS, FILES, **senses)
    project = android.export(source, tmp_path / "android")
    texts = [*HARD_TEXTS, *hard_texts(10_000)]
    got, _ = run(javac, project, tmp_path, texts, 64)
    assert got == expected(source, texts, 64)


def test_a_bundle_of_another_engine_is_refused_with_the_way_out(bundle_for, tmp_path: Path):
    source = bundle_for("coreml", {}, {"model": ("mlmodel", b"m"), "weights": ("bin", b"w")})
    with pytest.raises(BundleError, match="holds nothing for litert; it has: coreml") as caught:
        android.export(source, tmp_path / "android")
    assert "-> litert" in caught.value.hint
    assert not (tmp_path / "android").exists()


def test_nothing_is_written_over(bundle_for, tmp_path: Path):
    (tmp_path / "android").mkdir()
    with pytest.raises(OutputError, match="exists"):
        android.export(bundle_for("litert", SETTINGS, FILES), tmp_path / "android")


def test_a_tokenizer_that_phones_do_not_have_is_refused(bundle_for, tmp_path: Path):
    from tokenizers import Tokenizer as Engine
    from tokenizers import models

    words = Engine(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).to_str().encode()
    with pytest.raises(UnsupportedError, match="kind 'WordLevel'"):
        android.export(bundle_for("litert", SETTINGS, FILES, tokenizer=words), tmp_path / "android")
