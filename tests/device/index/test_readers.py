"""Files of each kind, well made and not."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.device.index import readers
from tightrope.errors import DataError, TightropeError


@pytest.fixture
def read(tmp_path: Path):
    """`read(name, content)`: what the reader finds in such a file."""

    def reading(name: str, content: str | bytes) -> list[readers.Source]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(readers.read(path))

    return reading


def test_plain_text_in_several_encodings(read):
    for data in (
        "Grüße".encode(),
        "Grüße".encode("utf-16"),
        "Grüße".encode("cp1252"),
        b"\xef\xbb\xbf" + "Grüße".encode(),
    ):
        assert read("a.txt", data)[0].text == "Grüße"


def test_markdown_without_its_marks(read):
    found = read(
        "a.md", "---\ntitle: x\n---\n# The *Title* #\nSee [the page](http://x.y/z) <!-- no -->\n```py\ncode\n```\n"
    )[0]
    assert found.title == "The *Title*"
    assert "the page" in found.text and "code" in found.text
    assert not any(mark in found.text for mark in ("http", "no", "```", "title: x"))


def test_html_without_scripts(read):
    page = "<title>A &amp; B</title><style>p{}</style><p>One <b>bo</b>ld<p>Two<script>alert(1)</script><br>three"
    found = read("a.html", page)[0]
    assert found.title == "A & B" and found.text.split() == ["One", "bold", "Two", "three"]


def test_tables_by_their_names(read):
    found = read("a.csv", 'id,text,year\n7,"a, b",1999\n8,c,\n')
    assert [(item.key, item.text, dict(item.metadata)) for item in found] == [
        ("7", "a, b", {"year": "1999"}),
        ("8", "c", {}),
    ]
    assert read("b.tsv", "question\tanswer\nWhy?\tBecause.\n")[0].answer == "Because."
    lines = '{"_id": 5, "title": "T", "text": "x", "metadata": {"n": 1}}\n\n{"text": "y", "n": 2.5}\n'
    first, second = read("c.jsonl", lines)
    assert (first.key, first.title, first.metadata) == ("5", "T", {"n": 1}) and second.key == "c.jsonl:3"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y\n1,2\n"),
        ("a.jsonl", "{"),
        ("a.jsonl", "[1]\n"),
        ("a.jsonl", '{"n": 1}\n'),
        ("a.jsonl", "[" * 100_000),
        ("a.xyz", "?"),
    ],
)
def test_what_cannot_be_read_is_said_in_words(read, name, content):
    with pytest.raises(DataError) as caught:
        read(name, content)
    assert name in caught.value.message and caught.value.hint


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(100), b"PK\x03\x04" + bytes(range(256)) * 4, b"\x7fELF\x02\x01\x01",
     "ohne Marke".encode("utf-16-le"), bytes(range(1, 256)) * 9],
    ids=["picture", "archive", "program", "unmarked", "noise"],
)  # fmt: skip
def test_what_is_no_text_is_no_text_by_another_name(read, suffix, content):
    with pytest.raises(DataError, match="holds no text") as caught:
        read(f"a{suffix}", content)
    assert f"a{suffix}" in caught.value.message and "UTF-8" in caught.value.hint


def test_text_with_a_few_odd_characters_is_text(read):
    assert "caf" in read("a.txt", "Das caf\u00e9 \x1b[31mrot\x1b[0m\f, \x02 und mehr. ".encode("cp1252") * 20)[0].text


def test_pdf(read, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.add_metadata({"/Title": "A title"})
    writer.write(tmp_path / "made.pdf")
    assert read("a.pdf", (tmp_path / "made.pdf").read_bytes())[0].title == "A title"
    writer.encrypt("secret")
    writer.write(tmp_path / "locked.pdf")
    with pytest.raises(DataError, match="password"):
        read("b.pdf", (tmp_path / "locked.pdf").read_bytes())
    for spoilt in (b"", b"%PDF-1.4 nonsense", (tmp_path / "made.pdf").read_bytes()[:200]):
        with pytest.raises(DataError):
            read("c.pdf", spoilt)


@given(data=st.binary(max_size=400), suffix=st.sampled_from([".txt", ".md", ".html", ".csv", ".jsonl"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path, data, suffix):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    try:
        assert all(isinstance(item.text, str) for item in readers.read(path))
    except TightropeError as error:
        assert error.hint
