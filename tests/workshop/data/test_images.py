"""Folders of images: read by their labels or folders, cut in three that share nothing, and refused with the line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import DataError
from tightrope.samples import LabelledImages
from tightrope.workshop.data import read_images, split_images

NAMES = ("ant", "bee", "cat")


def folder(path: Path, rows: str, count: int = 3) -> Path:
    for number in range(count):
        (path / f"{number}.jpg").write_bytes(bytes([number]))
    (path / "labels.csv").write_text(rows)
    return path


def test_labels_are_numbers_or_names_in_any_order_of_columns(tmp_path: Path) -> None:
    found = read_images(folder(tmp_path, "name,file,wnid\n2,0.jpg,x\nbee,1.jpg,y\n"), NAMES)
    assert found.labels == (2, 1) and found.images == (b"\0", b"\1")
    assert read_images(tmp_path, NAMES) == found


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for name in ("bee", "ant"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.PNG").write_text(name)
        (tmp_path / name / "notes.txt").write_text(name)
    assert read_images(tmp_path, NAMES).labels == (0, 1)
    (tmp_path / "wasp").mkdir()
    with pytest.raises(DataError, match="is no class"):
        read_images(tmp_path, NAMES)


def test_the_same_picture_twice_counts_once_and_may_not_have_two_labels(tmp_path: Path) -> None:
    folder(tmp_path, "file,label\n0.jpg,ant\n1.jpg,ant\n")
    (tmp_path / "1.jpg").write_bytes(b"\0")
    assert len(read_images(tmp_path, NAMES).labels) == 1
    (tmp_path / "labels.csv").write_text("file,label\n0.jpg,ant\n1.jpg,bee\n")
    with pytest.raises(DataError, match="another label"):
        read_images(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("file,label\n9.jpg,ant\n", "line 2: there is no image '9.jpg'"),
        ("file,label\n../0.jpg,ant\n", "line 2: there is no image"),
        ("file,label\n0.jpg,wasp\n", "line 2: there is no class 'wasp'"),
        ("file,label\n0.jpg,3\n", "line 2: there is no class '3'"),
        ("file,label\n0.jpg\n", "line 2: a column is missing"),
        ("file,size\n0.jpg,3\n", "line 1: there is no column label"),
        ("label,size\nant,3\n", "line 1: there is no column file"),
        ("file,label\n", "holds no images"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=said):
        read_images(folder(tmp_path / "in", rows), NAMES)


def test_a_folder_without_anything(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folders"):
        read_images(tmp_path, NAMES)
    with pytest.raises(DataError, match="no folder of images"):
        read_images(tmp_path / "none", NAMES)


def test_a_picture_that_is_gone_is_a_data_error(tmp_path: Path) -> None:
    found = read_images(folder(tmp_path, "file,label\n0.jpg,ant\n"), NAMES)
    (tmp_path / "0.jpg").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        _ = found.images


@given(st.lists(st.integers(0, 4), min_size=12, max_size=300), st.integers(0, 9))
def test_three_parts_share_nothing_and_lose_nothing(labels: list[int], seed: int) -> None:
    names = tuple(f"{place}.jpg" for place in range(len(labels)))
    samples = LabelledImages(paths=names, digests=names, labels=tuple(labels))
    parts = split_images(samples, seed)
    assert sorted(name for part in parts for name in part.paths) == sorted(names)
    assert parts == split_images(samples, seed)
    assert all(part.labels == tuple(labels[int(name[:-4])] for name in part.paths) for part in parts)
    calibrating, choosing, quoted = (len(part.labels) for part in parts)
    assert min(calibrating, choosing) >= 2 and abs(quoted - len(labels) / 2) <= 1
    for label in set(labels):  # each half has its share of every class
        assert abs(parts[2].labels.count(label) - labels.count(label) / 2) <= 1


def test_too_few_images_are_not_cut() -> None:
    names = tuple("abc")
    with pytest.raises(DataError, match="too few"):
        split_images(LabelledImages(paths=names, digests=names, labels=(0, 1, 2)))
