"""CIFAR-10's test images as JPEG, cut in three parts that share no image: to train, to calibrate and choose, to report.

The sample has only the official test images, so a network is trained on some of them here. Its accuracy means something
against the part kept apart, and nothing beside published figures, which were trained on the other 50,000.
"""

import tarfile
from pathlib import Path

ARCHIVE = "cifar10_sample/cifar10_test_jpg.tar"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN, CHOOSE, REPORT = "train", "choose", "report"


def part_of(name: str) -> str:
    """Which part an image belongs to, by the last digit of its number: 7, 1 and 2 tenths.

    >>> [part_of(name) for name in ("cat/0012.jpg", "cat/0017.jpg", "cat/0998.jpg")]
    ['train', 'choose', 'report']
    """
    digit = int(Path(name).stem[-1])
    return TRAIN if digit < 7 else CHOOSE if digit == 7 else REPORT


def unpack(data: Path, folder: Path) -> Path:
    """The images below `<folder>/<part>/<class>/`; what lies there already is left."""
    if (folder / REPORT / CLASSES[-1]).is_dir():
        return folder
    with tarfile.open(data / ARCHIVE) as archive:
        for item in archive:
            if item.isfile() and item.name.endswith(".jpg"):
                name = Path(item.name).relative_to("test")
                stream = archive.extractfile(item)
                assert stream is not None
                place = folder / part_of(item.name) / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(stream.read())
    return folder
