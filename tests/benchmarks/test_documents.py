"""Documents are brought up to date from what is stored, or only checked."""

import json

import pytest
from benchmarks.documents import command, command_on_texts, read_stored, replaced, store, update, update_all

from tightrope.errors import DataError

BEGIN, END = "<!-- here:begin -->", "<!-- here:end -->"
NEW = f"{BEGIN}\nnew\n{END}"


@pytest.fixture
def page(tmp_path):
    found = tmp_path / "page.md"
    found.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return found


def test_only_the_block_is_exchanged(page):
    assert not update(page, NEW, check=False)
    assert page.read_text() == f"before\n{NEW}\nafter\n"
    assert update(page, NEW, check=True)


def test_every_page_is_brought_up_to_date(page):
    other = page.with_name("other.md")
    other.write_text(page.read_text())
    assert not update_all({page: NEW, other: NEW}, check=False)
    assert page.read_text() == other.read_text() == f"before\n{NEW}\nafter\n"
    other.write_text(f"{BEGIN}\nold\n{END}")
    assert not update_all({page: NEW, other: NEW}, check=True)


def test_a_check_writes_nothing(page):
    before = page.read_text()
    assert not update(page, NEW, check=True)
    assert page.read_text() == before


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_markers_must_be_one_pair(text):
    with pytest.raises(DataError, match="no single pair"):
        replaced(text, NEW)


def test_what_is_stored_is_read_back_and_what_is_not_has_a_way_out(tmp_path):
    store(tmp_path / "results" / "one.json", {"a": 1})
    assert read_stored(tmp_path / "results" / "one.json", "") == {"a": 1}
    with pytest.raises(DataError, match="no stored run") as caught:
        read_stored(tmp_path / "none.json", "Make one.")
    assert caught.value.hint == "Make one."


@pytest.mark.parametrize(
    ("options", "measured", "checked", "code"),
    [((), True, False, 0), (("--write",), False, False, 0), (("--check",), False, True, 1)],
)
def test_the_command_measures_writes_or_checks(monkeypatch, capsys, options, measured, checked, code):
    seen = []
    monkeypatch.setattr("sys.argv", ["documents", *options])

    def write(*, check):
        seen.append(check)
        return False

    assert command("The tables", write, lambda: seen.append("measured")) == code
    assert seen == (["measured"] if measured else []) + [checked]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (2 if code else 0)


def test_an_error_is_told_in_two_lines(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["documents"])
    assert command("The tables", lambda check: read_stored(tmp_path / "none.json", "Make one.")) == 1
    assert capsys.readouterr().err.splitlines()[1] == "Make one."


def test_texts_are_measured_and_stored(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["documents", str(tmp_path / "texts.txt"), "--count", "5"])
    results = tmp_path / "results.json"

    def measure(texts, count, threads):
        return {"texts": texts.name, "count": count, "threads": threads}

    assert command_on_texts("Tables", lambda check: True, measure, results, threads=2) == 0
    assert json.loads(results.read_text()) == {"texts": "texts.txt", "count": 5, "threads": 2}


def test_without_texts_or_an_option_there_is_nothing_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["documents"])
    with pytest.raises(SystemExit):
        command_on_texts("Tables", lambda check: True, lambda *_: {}, tmp_path / "results.json", threads=1)
