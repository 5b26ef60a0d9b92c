"""Labelled images: a folder with a labels.csv, or with a folder for each class.

    photos/labels.csv        file,label        (or class_index, class, name; columns beside them are left alone)
    photos/cat.jpg …         or photos/images/cat.jpg …

    photos/<class>/*.jpg     without a labels.csv

A label is a class's number or its name, as the model calls it. Images are not decoded here, but every file is read once
and known by its content, so that the same picture twice is one picture.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tightrope.errors import DataError
from tightrope.samples import LabelledImages
from tightrope.workshop.data.files import rows, wrong

LABELS = "labels.csv"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FILES = ("file", "filename", "image", "path")
CLASSES = ("label", "class_index", "class", "index", "name")
HINT = f"Give a folder of images with a {LABELS} (file,label), or a folder for each class; see docs/guide/images.md."


def read_images(folder: Path | str, names: Sequence[str]) -> LabelledImages:
    """The images of a folder, whose classes are numbered as in `names`. Raises `DataError` with the file and line."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"There is no folder of images at {folder}.", hint=HINT)
    found = _listed(folder, names) if (folder / LABELS).is_file() else _by_folder(folder, names)
    if not found:
        raise DataError(f"{folder} holds no images.", hint=HINT)
    seen: dict[str, tuple[str, int]] = {}
    for path, label in found:
        digest = _digest(path)
        path_before, label_before = seen.setdefault(digest, (str(path), label))
        if label_before != label:
            raise DataError(
                f"{path} is the same picture as {path_before}, with another label.", hint="Correct one of the labels."
            )
    return LabelledImages(
        paths=tuple(path for path, _ in seen.values()),
        digests=tuple(seen),
        labels=tuple(label for _, label in seen.values()),
    )


def _listed(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    table = rows(folder / LABELS)
    head = [field.strip().lower() for field in table[0].fields]
    columns = [next((head.index(name) for name in known if name in head), None) for known in (FILES, CLASSES)]
    file, kind = columns
    if file is None or kind is None:
        missing = FILES if file is None else CLASSES
        raise wrong(
            folder / LABELS, table[0].line, f"there is no column {missing[0]}.", "Write file,label in the first line."
        )
    numbers = {name: place for place, name in enumerate(names)}
    found = []
    for row in table[1:]:
        if len(row.fields) <= max(file, kind):
            raise wrong(folder / LABELS, row.line, "a column is missing.", "Complete or remove the line.")
        written = row.fields[kind].strip()
        label = numbers.get(written, int(written) if written.isdecimal() and len(written) < 9 else -1)
        if not 0 <= label < len(names):
            known = f"{len(names)} classes, 0 to {len(names) - 1}"
            raise wrong(folder / LABELS, row.line, f"there is no class {written!r:.60}.", f"The model knows {known}.")
        found.append((_inside(folder, row.fields[file].strip(), row.line), label))
    return found


def _inside(folder: Path, name: str, line: int) -> Path:
    """A file of the folder, or of its folder `images`."""
    for place in (folder / name, folder / "images" / name):
        if name and place.is_file() and place.resolve().is_relative_to(folder.resolve()):
            return place
    raise wrong(folder / LABELS, line, f"there is no image {name!r:.80} in the folder.", "Correct or remove the line.")


def _by_folder(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    classes = [place for place in sorted(folder.iterdir()) if place.is_dir()]
    if not classes:
        raise DataError(f"{folder} has no {LABELS} and no folders.", hint=HINT)
    numbers = {name: place for place, name in enumerate(names)}
    found = []
    for place in classes:
        if place.name not in numbers:
            some = ", ".join(names[:5])
            raise DataError(f"{place} is no class of the model.", hint=f"Name folders as its classes: {some} …")
        pictures = (file for file in sorted(place.iterdir()) if file.suffix.lower() in SUFFIXES)
        found += [(file, numbers[place.name]) for file in pictures]
    return found


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", hint="Check its permissions.") from error
