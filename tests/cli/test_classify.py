"""`tightrope classify`, and what `show` and `verify` say of a bundle of images."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tightrope.cli.main import cli
from tightrope.device.senses.image import packed
from tightrope.errors import DataError
from tightrope.workshop.pictures import pictures
from tightrope.workshop.search.single import compress

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def made(tiny_cnn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classify")
    rows = ["file,label"]
    for place, pixels in enumerate(pictures(16, 16, 3, 24)):
        (folder / f"{place}.npy").write_bytes(packed(pixels))
        rows.append(f"{place}.npy,{place % 5}")
    (folder / "labels.csv").write_text("\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIGHTROPE_CACHE", str(folder / "cache"))
        compress(str(tiny_cnn), "int8(activations=static) -> onnxruntime", folder / "tiny.bundle", data=folder)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_names_the_likeliest_classes(made: Path) -> None:
    lines = run("classify", made / "tiny.bundle", made / "0.npy", made / "1.npy", "--top", 2).splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"{made / '0.npy'}: ") and lines[0].count("%") == 2
    found = json.loads(run("classify", made / "tiny.bundle", made / "0.npy", "--top", 9, "--json"))
    assert {name for name, _ in found["classes"]} == {"ant", "bee", "cat", "dog", "eel"}
    assert np.isclose(sum(share for _, share in found["classes"]), 1)


def test_a_file_that_is_no_image_is_a_data_error(made: Path) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(DataError, match="cannot be decoded"):
        run("classify", made / "tiny.bundle", made / "labels.csv")


def test_show_and_verify_know_images(made: Path) -> None:
    assert "classification" in run("show", made / "tiny.bundle")
    assert "agree on 8" in run("verify", made / "tiny.bundle")


def test_embedding_with_images_says_what_to_use(made: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a text")
    with pytest.raises(Exception, match="classifies images"):
        run("embed", made / "tiny.bundle", tmp_path / "texts.txt")
