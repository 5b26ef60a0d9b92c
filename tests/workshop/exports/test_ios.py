"""The Swift package: what is in it. No Swift compiler is asked; its code is looked at as far as that goes."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope.bundle import Bundle
from tightrope.errors import BundleError
from tightrope.workshop.exports import android, ios, tensorrt
from tightrope.workshop.exports.content import HARD_TEXTS

FILES = {"model": ("mlmodel", b"a program"), "weights": ("bin", b"its weights")}
SETTINGS = {"compute_units": "CPU_AND_NE", "compute_precision": "fp16"}


@pytest.fixture
def package(bundle_for: Callable[..., Bundle], tmp_path: Path) -> Path:
    """An exported package."""
    return ios.export(bundle_for("coreml", SETTINGS, FILES), tmp_path / "ios")


def test_a_package_holds_the_model_the_tokenizer_and_the_vectors(package: Path):
    resources = package / "Sources" / "Tightrope" / "Resources"
    assert (resources / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel").read_bytes() == b"a program"
    assert (resources / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").read_bytes() == b"its weights"
    assert (resources / "wordpiece.bin").read_bytes().startswith(b"TRPIECES")
    vectors = json.loads((package / "Tests/TightropeTests/Resources/vectors.json").read_text())
    assert len(vectors["answers"]) == 3
    assert len(vectors["tokens"]) == 3 + 2 * len(HARD_TEXTS)
    assert "Not run where" in (package / "README.md").read_text()


def test_the_settings_are_those_that_the_swift_code_reads(package: Path):
    settings = json.loads((package / "Sources/Tightrope/Resources/bundle.json").read_text())
    code = (package / "Sources/Tightrope/TextModel.swift").read_text()
    struct = code[code.index("struct Settings") : code.index("var units")]
    assert settings.keys() == set(re.findall(r"let (\w+):", struct))
    assert settings["computeUnits"] == "CPU_AND_NE"


def test_the_swift_code_is_whole(package: Path):
    """Brackets close in order outside strings and comments, and nothing of the template is left."""
    sources = sorted(package.rglob("*.swift"))
    assert len(sources) == 6
    closing = {")": "(", "]": "[", "}": "{"}
    for path in sources:
        text = path.read_text()
        assert not re.search(r"@[A-Z]{4,}@", text)
        code = re.sub(r"//.*", "", re.sub(r'"(?:\\\((?:[^()]|\([^()]*\))*\)|\\.|[^"\\])*"', '""', text))
        open_ones: list[str] = []
        for character in code:
            if character in "([{":
                open_ones.append(character)
            elif character in closing:
                assert open_ones and open_ones.pop() == closing[character], path
        assert not open_ones, path


@pytest.mark.skipif(shutil.which("swiftc") is None, reason="needs swiftc")
def test_a_swift_compiler_reads_it(package: Path):
    for path in package.rglob("*.swift"):
        subprocess.run(["swiftc", "-parse", str(path)], check=True, timeout=120)


def test_both_tokenizers_have_the_same_steps(package: Path, bundle_for, tmp_path: Path):
    """The Swift tokenizer was not run: it keeps to the Java one, which was, step by step."""
    project = android.export(bundle_for("litert", {"lengths": [64]}, {"model": ("tflite", b"m")}), tmp_path / "android")
    java = (project / "tightrope/src/main/java/dev/tightrope/WordPiece.java").read_text()
    swift = (package / "Sources/Tightrope/WordPiece.swift").read_text()
    steps = ("character", "decomposed", "normalised", "push", "pushMark", "endWord", "cutWord", "longest", "share")
    for step in steps:
        assert re.search(rf"\b{step}\(", java), step
        assert re.search(rf"func {step}\(", swift), step


def test_a_bundle_of_another_engine_is_refused(bundle_for, tmp_path: Path):
    with pytest.raises(BundleError, match="holds nothing for coreml; it has: litert"):
        ios.export(bundle_for("litert", {"lengths": [64]}, {"model": ("tflite", b"m")}), tmp_path / "ios")


def test_a_folder_for_trtexec_has_the_file_and_the_command(bundle_for, tmp_path: Path):
    profile = {"input_ids": {"least": [1, 1], "usual": [8, 64], "most": [32, 256]}}
    settings = {"weights_name": "0123.bin", "profile": profile}
    made = bundle_for("tensorrt", settings, {"model": ("onnx", b"graph"), "weights": ("bin", b"weights")})
    folder = tensorrt.export(made, tmp_path / "gpu")
    assert (folder / "model.onnx").read_bytes() == b"graph"
    assert (folder / "0123.bin").read_bytes() == b"weights"
    script = (folder / "build.sh").read_text()
    assert "--minShapes=input_ids:1x1" in script
    assert "--maxShapes=input_ids:32x256" in script
    subprocess.run(["sh", "-n", str(folder / "build.sh")], check=True, timeout=10)
