"""Images → arrays: decoded, brought to the model's size, ordered and normalised, as the bundle says and no other way.

The steps, in this order: decode (Pillow, extra `[image]`; a camera's orientation is honoured, of an animation the first
frame is taken); resize; cut out the middle; order the colours; take the mean from each and divide by the deviation;
lay out. An array of exactly the model's size needs no Pillow: it is neither resized nor cut.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import BundleError, DataError
from tightrope.plugins import import_optional

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Image = str | Path | bytes | Pixels
"""A file (an image, or an array that numpy saved), its bytes, or pixels uint8 [height, width, 3] as RGB.

Of a grey image, pixels may be [height, width]."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What is decoded; every further decoder would be a further way in."""
MOST_BYTES = 64_000_000
MOST_PIXELS = 64_000_000
MOST_SIDE = 4096
"""Of what a model takes; a manifest that asks for more is not believed."""

COLOURS = ("rgb", "bgr", "grey")
LAYOUTS = ("nchw", "nhwc")
RESAMPLING = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")
"""What Pillow turns into RGB by a rule; deeper pixels it would only clip."""
_NPY = b"\x93NUMPY"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSenses:
    """How an image becomes what a model takes.

    `height`, `width`: of the model's input. `resize`: the length of the shorter side before the middle is cut out
    (the longer one in proportion, rounded down); 0 stretches the whole image to the input's size. `mean`, `std`: one
    for each colour, of pixels from 0 to 255.
    """

    height: int
    width: int
    resize: int
    colours: str
    layout: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str = "bilinear"

    @property
    def channels(self) -> int:
        """Colours of a pixel."""
        return 1 if self.colours == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the array for one image, as the model takes it."""
        if self.layout == "nhwc":
            return (1, self.height, self.width, self.channels)
        return (1, self.channels, self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        """The senses as a bundle's manifest holds them."""
        return {"kind": "image", **asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ImageSenses":
        """Read what `to_json` wrote. Raises `BundleError` for anything that is not known here."""
        known = {item.name for item in fields(ImageSenses)}
        if unknown := sorted(set(data) - known - {"kind"}) or sorted(known - set(data)):
            raise BundleError(
                f"The senses say {unknown[0]!r:.60}, or do not.", hint="Update tightrope, or make it anew."
            )
        values = {name: data[name] for name in known}
        found = ImageSenses(**{**values, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
        if wrong := found.fault():
            raise BundleError(f"The senses are not understood: {wrong}.", hint="Update tightrope, or make it anew.")
        return found

    def fault(self) -> str | None:
        """What no image could be prepared by, or `None`."""
        sides = (self.height, self.width)
        if not all(type(side) is int and 1 <= side <= MOST_SIDE for side in sides):
            return f"an input of {self.height} x {self.width} pixels"
        if type(self.resize) is not int or not (self.resize == 0 or max(sides) <= self.resize <= MOST_SIDE):
            return f"a shorter side of {self.resize} pixels for an input of {self.height} x {self.width}"
        for name, known in (("colours", COLOURS), ("layout", LAYOUTS), ("resample", RESAMPLING)):
            if getattr(self, name) not in known:
                return f"{name} is {getattr(self, name)!r:.40}; known: {', '.join(known)}"
        for name in ("mean", "std"):
            values = np.asarray(getattr(self, name), np.float64)
            if values.shape != (self.channels,) or not np.isfinite(values).all():
                return f"{name} is {getattr(self, name)!r:.60}, not {self.channels} numbers"
        return None if min(self.std) > 0 else f"std is {self.std!r:.60}, which divides by nothing"

    def prepare(self, image: object) -> Floats:
        """One image as float32 of `shape`. Raises `DataError` for what is no image, `MissingExtraError` for Pillow."""
        pixels = self.sized(image).astype(np.float32)
        if self.colours == "bgr":
            pixels = pixels[..., ::-1]
        pixels -= np.asarray(self.mean, np.float32)
        pixels /= np.asarray(self.std, np.float32)
        if self.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[None])

    def sized(self, image: object) -> Pixels:
        """One image as pixels uint8 [height, width, channels], RGB or grey."""
        name = image if isinstance(image, str | Path) else "The image"
        if not isinstance(image, np.ndarray):
            data = _bytes(image)
            image = _unpacked(data) if data.startswith(_NPY) else data
        if isinstance(image, np.ndarray):
            _check_array(image)
            if image.shape[:2] == (self.height, self.width) and (image.ndim == 3) == (self.channels == 3):
                return image.reshape(self.height, self.width, self.channels)
        found = self._resized(_decoded(image, name))
        return np.asarray(found, np.uint8).reshape(self.height, self.width, self.channels)

    def _resized(self, picture: Any) -> Any:
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        method = getattr(_pillow("Image").Resampling, self.resample.upper())
        if not self.resize:
            return picture.resize((self.width, self.height), method)
        width, height = picture.size
        short = min(width, height)
        size = (max(self.resize * width // short, self.width), max(self.resize * height // short, self.height))
        if max(size) > MOST_PIXELS // self.resize:
            raise DataError(f"An image of {width} x {height} pixels is too long.", hint="Cut it to a usual shape.")
        left, top = round((size[0] - self.width) / 2), round((size[1] - self.height) / 2)
        return picture.resize(size, method).crop((left, top, left + self.width, top + self.height))


def packed(pixels: Pixels) -> bytes:
    """Pixels as bytes that `prepare` takes for an image: what crosses to a bench, and what a bundle records."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(pixels, np.uint8), allow_pickle=False)
    return stream.getvalue()


def content(image: object) -> bytes:
    """An image as bytes, whatever it was given as, not decoded. Raises `DataError`."""
    if isinstance(image, np.ndarray):
        _check_array(image)
        return packed(image)
    return _bytes(image)


def _unpacked(data: bytes) -> Pixels:
    try:
        found: Pixels = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, TypeError, OSError, EOFError, MemoryError) as error:
        raise DataError(f"An array cannot be read: {error}.", hint="Give pixels as numpy.save writes them.") from error
    return found


def _check_array(array: NDArray[Any]) -> None:
    """Raise `DataError` for an array that holds no image."""
    is_colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (is_colour or array.ndim == 2) or not array.size or array.size > 3 * MOST_PIXELS:
        raise DataError(
            f"An array {array.dtype} {list(array.shape)} is no image.",
            hint="Give uint8 [height, width, 3] as RGB, or [height, width] as grey.",
        )


def _bytes(image: object) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not isinstance(image, str | Path):
        raise DataError(
            f"{type(image).__name__} {image!r:.60} is no image.", hint="Give a path, bytes, or an array of pixels."
        )
    try:
        path = Path(image)
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} has more than {MOST_BYTES:,} bytes.", hint="Give a smaller image.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{image} cannot be read: {reason}.", hint="Check the path and its permissions.") from error


def _decoded(image: Any, name: object) -> Any:
    """A picture of Pillow, whole and upright, in a mode that converts to RGB."""
    pillow = _pillow("Image")
    if isinstance(image, np.ndarray):
        return pillow.fromarray(image)
    hint = f"Give one of {', '.join(FORMATS)}, whole."
    try:
        picture = pillow.open(io.BytesIO(image), formats=FORMATS)
        if picture.width * picture.height > MOST_PIXELS:
            raise DataError(f"{name} has more than {MOST_PIXELS:,} pixels.", hint="Give a smaller image.")
        picture.load()
        upright = _pillow("ImageOps").exif_transpose(picture)
    except DataError:
        raise
    except Exception as error:  # a broken file meets Pillow's readers in many ways
        reason = (str(error).partition(" <_io")[0].splitlines() or [type(error).__name__])[0][:120]
        raise DataError(f"{name} cannot be decoded: {reason}.", hint=hint) from error
    if upright.mode not in _MODES:
        raise DataError(f"{name} has pixels of the kind {upright.mode}.", hint="Give one of 8 bits a colour.")
    return upright


def _pillow(module: str) -> Any:
    return import_optional(f"PIL.{module}", wanted_by="decoding or resizing an image")
