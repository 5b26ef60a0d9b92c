"""Pictures that belong to nobody: what a bundle of images proves itself with, since a user's own never go into it.

Noise whose strength falls with frequency as in photographs (Field 1987, the 1/f law), in colours that go together, with
an edge or two.
"""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def pictures(height: int, width: int, channels: int, count: int, seed: int = 0) -> list[Pixels]:
    """So many pictures uint8 [height, width, 3], or [height, width] for one channel; the same seed draws the same."""
    random = np.random.default_rng(seed)
    return [_picture(height, width, channels, random) for _ in range(count)]


def _picture(height: int, width: int, channels: int, random: np.random.Generator) -> Pixels:
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    planes = [np.fft.ifft2(np.fft.fft2(random.normal(size=(height, width))) / frequency).real for _ in range(3)]
    mixed = np.stack([plane / (plane.std() + 1e-9) for plane in planes], -1) @ random.normal(size=(3, 3))
    down, across = np.mgrid[:height, :width]
    slope, middle = random.normal(size=2), random.uniform(0.3, 0.7)
    edge = slope[0] * (down / height - middle) + slope[1] * (across / width - middle) > 0
    mixed += edge[..., None] * random.normal(scale=1.5, size=3)
    values = np.clip(random.uniform(70, 190) + 45 * mixed, 0, 255).astype(np.uint8)
    return values if channels == 3 else values[..., 0]
