"""How a model folder prepares images: its `preprocessor_config.json`, as image processors write it, in full or refused.

Sizes, cut, colours and normalisation decide about every answer, so what is not understood is an error and no default.
"""

from collections.abc import Mapping
from typing import Any

from tightrope.device.senses.image import ImageSenses
from tightrope.errors import SourceError, UnsupportedError

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers."""
KNOWN = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_flip_channel_order", "do_convert_rgb"),
)
IDLE = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "data_format", "input_data_format"),
    *("return_tensors", "device", "disable_grouping", "size_divisor", "_valid_processor_keys", "auto_map"),
)
"""What says nothing about pixels."""
HINT = "Write what the model was trained with; docs/guide/images.md says how."


def senses(config: Mapping[str, Any], shape: tuple[int, ...], layout: str, where: object) -> ImageSenses:
    """The senses for an input of this shape without the batch; 0 stands for a side that is open.

    Raises `SourceError` for values that cannot be, `UnsupportedError` for settings that are not understood.
    """
    strange = [name for name, value in config.items() if name not in (*KNOWN, *IDLE) and value not in (None, False)]
    if strange:
        raise UnsupportedError(
            f"{where} says {strange[0]}, which is not understood.", hint=f"Known: {', '.join(KNOWN)}."
        )
    channels, height, width = (shape[2], *shape[:2]) if layout == "nhwc" else shape
    if channels not in (1, 3):
        raise UnsupportedError(
            f"{where} is for images of {channels} colours.", hint="Known: 3 (RGB or BGR) and 1 (grey)."
        )
    wanted, resize = _sizes(config, where)
    height, width = height or wanted[0], width or wanted[1]
    if wanted not in ((0, 0), (height, width)):
        raise SourceError(
            f"{where} gives images of {wanted[0]} x {wanted[1]} pixels; the model takes {height} x {width}.", hint=HINT
        )
    mean, std = _normalising(config, channels, where)
    flipped = config.get("do_flip_channel_order") is True
    found = ImageSenses(
        height=height,
        width=width,
        resize=resize,
        colours="grey" if channels == 1 else "bgr" if flipped else "rgb",
        layout=layout,
        mean=mean,
        std=std,
        resample=_resampling(config.get("resample", 2), where),
    )
    if wrong := found.fault():
        raise SourceError(f"{where} is not understood: {wrong}.", hint=HINT)
    return found


def _sizes(config: Mapping[str, Any], where: object) -> tuple[tuple[int, int], int]:
    """Height and width of what comes out (0 where nothing says it), and the shorter side before the cut, or 0."""
    whole, short = _size(config.get("size"), where) if config.get("do_resize", True) else ((0, 0), 0)
    cut, _ = _size(config.get("crop_size"), where) if config.get("do_center_crop", False) else ((0, 0), 0)
    if cut == (0, 0) and short:
        cut = (short, short)
    if cut == (0, 0):
        return whole, 0
    if whole not in ((0, 0), cut) and not short:
        raise UnsupportedError(
            f"{where} stretches images and then cuts them.", hint="Resize by shortest_edge, or do not cut."
        )
    return cut, short


def _size(value: Any, where: object) -> tuple[tuple[int, int], int]:
    """Height and width, or the shorter side."""
    sides = value if isinstance(value, dict) else {"shortest_edge": value}
    names = {name for name, side in sides.items() if side is not None}
    if not all(type(sides[name]) is int and sides[name] > 0 for name in names):
        raise SourceError(f"{where} says the size {value!r:.60}.", hint=HINT)
    if names == {"height", "width"}:
        return (sides["height"], sides["width"]), 0
    if names == {"shortest_edge"}:
        return (sides["shortest_edge"],) * 2, sides["shortest_edge"]
    raise UnsupportedError(f"{where} says the size {value!r:.60}.", hint="Known: height and width, or shortest_edge.")


def _normalising(
    config: Mapping[str, Any], channels: int, where: object
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(pixel·factor - mean) / std, as a mean and a deviation of pixels."""
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    normalises = config.get("do_normalize", True)
    given: dict[str, Any] = {
        name: config.get(name) if normalises else value for name, value in (("image_mean", 0.0), ("image_std", 1.0))
    }
    found: list[Any] = []
    for name, value in {"rescale_factor": factor, **given}.items():
        numbers = value if isinstance(value, list | tuple) else [value] * channels
        is_number = [isinstance(item, int | float) and not isinstance(item, bool) for item in numbers]
        if not all(is_number) or len(numbers) != channels or (name == "rescale_factor" and not numbers[0] > 0):
            raise SourceError(f"{where} says {name} is {value!r:.60}.", hint=HINT)
        found.append(numbers)
    return tuple(item / factor for item in found[1]), tuple(item / factor for item in found[2])


def _resampling(number: Any, where: object) -> str:
    if type(number) is not int or not 0 <= number < len(RESAMPLING):
        raise SourceError(f"{where} says resample is {number!r:.40}.", hint="Give Pillow's number, 0 to 5.")
    return RESAMPLING[number]
