"""`tightrope index`: what its commands print, in text and in JSON, and how they fail."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tightrope.cli.main import cli
from tightrope.errors import TightropeError

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bundle(native_bundle, tmp_path_factory) -> Path:
    return native_bundle(tmp_path_factory.mktemp("model") / "tiny.bundle").path


@pytest.fixture
def run(tmp_path, bundle):
    """`run(word, …)`: output of an index command that must succeed."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cat.txt").write_text("the cat sat")
    (tmp_path / "docs" / "faq.csv").write_text("question,answer\nwhy the dog,because\n" + "cat sat,yes\n" * 30)
    (tmp_path / "docs" / "bad.jsonl").write_text("{")

    def running(*words: object) -> str:
        done = CliRunner().invoke(cli, ["index", *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return running


def test_an_index_from_building_to_rebuilding(run, tmp_path, bundle):
    place, model = tmp_path / "docs.index", ("--model", bundle)
    built = json.loads(run("build", tmp_path / "docs", *model, "--out", place, "--json"))
    assert built["documents"] == built["passages"] == 32 and built["skipped"][0][0] == "bad.jsonl"
    assert "32 documents" in run("show", place)
    assert json.loads(run("show", place, "--json"))["documents"] == 32
    hits = json.loads(run("search", place, "the cat sat", *model, "--json", "-k", 2))
    assert hits[0]["key"] == "cat.txt" and len(hits) == 2
    only = json.loads(
        run("search", place, "dog", *model, "--json", "--where", '{"file": "faq.csv"}', "--mode", "words")
    )
    assert [hit["answer"] for hit in only] == ["because"]
    assert "because" in run("search", place, "why the dog", *model)
    assert run("delete", place, "cat.txt", "none").strip() == "1 of 2 deleted"
    assert "1 documents" in run("add", place, tmp_path / "docs" / "cat.txt", *model)
    assert "threshold" in run("calibrate", place, "--json")
    assert run("check", place).strip() == "whole"
    assert "32 documents" in run("rebuild", place, *model)
    assert json.loads(run("check", place, "--json")) == {"repaired": 0, "wrong": []}


@pytest.mark.parametrize(
    "words",
    [
        ("show", "nowhere"),
        ("search", "nowhere", "x", "--model", "BUNDLE"),
        ("build", "nowhere", "--model", "BUNDLE", "--out", "OUT"),
        ("search", "INDEX", "x", "--model", "BUNDLE", "--where", "{"),
        ("search", "INDEX", " ", "--model", "BUNDLE"),
        ("build", "DOCS", "--model", "BUNDLE", "--out", "INDEX"),
        ("build", "DOCS", "--model", "BUNDLE", "--out", "OUT", "--tokens", "3"),
    ],
)
def test_failures_are_two_lines(run, tmp_path, bundle, words):
    run("build", tmp_path / "docs", "--model", bundle, "--out", tmp_path / "docs.index")
    named = {"BUNDLE": bundle, "INDEX": tmp_path / "docs.index", "DOCS": tmp_path / "docs", "OUT": tmp_path / "out"}
    with pytest.raises(TightropeError) as caught:
        CliRunner().invoke(cli, ["index", *(str(named.get(word, word)) for word in words)], catch_exceptions=False)
    assert caught.value.message and caught.value.hint and not (tmp_path / "out").exists()
