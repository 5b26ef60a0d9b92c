"""What the page on images shows is run, on a small classifier that stands in for the reader's."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope.cli.main import COMMANDS
from tightrope.device.senses.image import FORMATS
from tightrope.workshop.pictures import pictures
from tightrope.workshop.search.single import compress
from tightrope.workshop.sources._preprocessing import KNOWN

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "images.md").read_text(encoding="utf-8")


@pytest.mark.engine
def test_its_python_runs_as_written(
    tiny_cnn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    need: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    need("PIL")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path / "cache"))
    for number, pixels in enumerate(pictures(20, 24, 3, 20)):
        place = tmp_path / "photos" / ("ant", "bee", "cat", "dog", "eel")[number % 5]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    Image.fromarray(pixels).save("cat.jpg")
    compress(str(tiny_cnn), "int8(activations=static) -> onnxruntime", "resnet.bundle", data="photos")
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    found: dict[str, object] = {}
    exec(code[1], found)
    assert getattr(found["scores"], "shape", None) == (1, 5)
    assert len(re.findall(r"\('\w+', 0\.\d+", capsys.readouterr().out)) == 3


def test_it_names_what_is_read_and_what_exists() -> None:
    missing = [name for name in KNOWN if f"`{name}`" not in PAGE and name != "do_convert_rgb"]
    assert missing == []
    assert all(name.lower() in PAGE.lower() for name in FORMATS)
    assert set(re.findall(r"`?tightrope ([a-z]+) ", PAGE)) <= set(COMMANDS)
