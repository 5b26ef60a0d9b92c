"""Images to arrays: every step as the senses say, and what is no image refused."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.senses.image import ImageSenses, content, packed
from tightrope.errors import BundleError, DataError, MissingExtraError

SENSES = ImageSenses(
    height=4, width=6, resize=8, colours="rgb", layout="nchw", mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0)
)
EXACT = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def png(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def test_pixels_of_the_right_size_are_normalised_and_laid_out() -> None:
    found = SENSES.prepare(EXACT)
    assert found.dtype == np.float32 and found.shape == SENSES.shape == (1, 3, 4, 6)
    assert np.allclose(found[0].transpose(1, 2, 0), (EXACT - [10, 20, 30]) / [2, 4, 5])


def test_colours_and_layout_are_as_said() -> None:
    plain = SENSES.prepare(EXACT)[0]
    turned = replace(SENSES, colours="bgr", mean=(30.0, 20.0, 10.0), std=(5.0, 4.0, 2.0)).prepare(EXACT)[0]
    assert np.array_equal(turned, plain[::-1])
    last = replace(SENSES, layout="nhwc").prepare(EXACT)
    assert last.shape == (1, 4, 6, 3) and np.array_equal(last[0].transpose(2, 0, 1), plain)
    grey = replace(SENSES, colours="grey", mean=(0.0,), std=(1.0,)).prepare(EXACT[..., 0])
    assert grey.shape == (1, 1, 4, 6) and np.array_equal(grey[0, 0], EXACT[..., 0])


def test_the_same_image_however_it_is_given(need: Callable[..., None], tmp_path: Path) -> None:
    need("PIL")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = tmp_path / "one.png"
    path.write_bytes(png(pixels))
    given = (pixels, path, str(path), path.read_bytes(), packed(pixels), content(path), content(pixels))
    first, *others = (SENSES.prepare(item) for item in given)
    assert all(np.array_equal(first, other) for other in others)


def test_the_shorter_side_is_resized_and_the_middle_cut_out(need: Callable[..., None]) -> None:
    need("PIL")
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 9:15] = 200  # the middle six columns
    found = replace(SENSES, mean=(0.0,) * 3, std=(1.0,) * 3).prepare(wide)
    assert (found == 200).all()
    stretched = replace(SENSES, resize=0, mean=(0.0,) * 3, std=(1.0,) * 3, resample="nearest").prepare(wide)
    assert set(np.unique(stretched)) == {0, 200}


def test_a_camera_that_was_turned_is_turned_back(need: Callable[..., None]) -> None:
    need("PIL")
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    upright = np.random.default_rng(1).integers(0, 256, (12, 8, 3), np.uint8)
    turned = png(np.rot90(upright), exif=exif)
    assert np.array_equal(SENSES.sized(turned), SENSES.sized(upright))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_pictures_of_other_modes_become_rgb(need: Callable[..., None], mode: str) -> None:
    need("PIL")
    from PIL import Image

    stream = io.BytesIO()
    picture = Image.fromarray(np.full((9, 9, 3), 255, np.uint8)).convert(mode)
    picture.save(stream, "JPEG" if mode == "CMYK" else "PNG")
    assert SENSES.sized(stream.getvalue()).min() >= 250


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "cannot be decoded"),
        (b"GIF89a" + bytes(40), "cannot be decoded"),
        (b"\x93NUMPY\x01", "cannot be read"),
        ("no/such.jpg", "cannot be read"),
        ("a\0b", "cannot be read"),
        (7, "is no image"),
        (np.zeros((4, 6, 3), np.float32), "is no image"),
        (np.zeros((4, 6, 4), np.uint8), "is no image"),
        (np.zeros((0, 6, 3), np.uint8), "is no image"),
    ],
)
def test_what_is_no_image_is_refused_in_two_lines(need: Callable[..., None], image: Any, said: str) -> None:
    need("PIL")
    with pytest.raises(DataError, match=said) as error:
        SENSES.prepare(image)
    assert error.value.hint


def test_a_picture_cut_short_and_one_that_would_fill_the_memory(need: Callable[..., None]) -> None:
    need("PIL")
    whole = png(np.random.default_rng(2).integers(0, 256, (40, 40, 3), np.uint8), "JPEG")
    with pytest.raises(DataError, match="cannot be decoded"):
        SENSES.prepare(whole[: len(whole) // 2])
    bomb = bytearray(png(np.zeros((9, 9, 3), np.uint8)))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # the header's own account of its size
    with pytest.raises(DataError):
        SENSES.prepare(bytes(bomb))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_data_error(data: bytes) -> None:
    pytest.importorskip("PIL")
    try:
        assert SENSES.prepare(data).shape == SENSES.shape
    except DataError as error:
        assert "\n" not in error.message


def test_an_array_of_the_right_size_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **_: Any) -> None:
        raise MissingExtraError(f"{name} is missing.", hint="pip install 'tightrope[image]'")

    monkeypatch.setattr("tightrope.device.senses.image.import_optional", missing)
    assert SENSES.prepare(packed(EXACT)).shape == SENSES.shape
    with pytest.raises(MissingExtraError):
        SENSES.prepare(np.zeros((9, 9, 3), np.uint8))


def test_senses_cross_as_json() -> None:
    assert ImageSenses.from_json(SENSES.to_json()) == SENSES


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 0),
        ("width", 5000),
        ("resize", 5),
        ("colours", "yuv"),
        ("layout", "chwn"),
        ("resample", "sinc"),
        ("mean", [1.0]),
        ("std", [1.0, 0.0, 1.0]),
        ("std", [1.0, float("nan"), 1.0]),
        ("gamma", 2.2),
    ],
)
def test_senses_that_are_not_understood_are_refused(field: str, value: Any) -> None:
    with pytest.raises(BundleError):
        ImageSenses.from_json({**SENSES.to_json(), field: value})
