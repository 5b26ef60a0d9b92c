"""From what the user wrote to a model: aliases in order, offline, and every way in which there is none."""

import pytest

from tightrope.errors import SourceError
from tightrope.workshop import load as door
from tightrope.workshop.languages import guess
from tightrope.workshop.load import aliases, languages_of, load


@pytest.fixture
def alias(monkeypatch):
    """`alias(*sources)`: an alias `short` for these sources."""

    def make(*sources):
        monkeypatch.setattr(door, "aliases", lambda: {"short": {"languages": ["zh"], "sources": list(sources)}})

    return make


def test_the_sources_of_an_alias_are_tried_in_order(alias, bert_folder, tmp_path):
    alias(str(tmp_path / "missing"), str(bert_folder), "nonsense:")
    assert load("short").digest == load(str(bert_folder)).digest


def test_an_alias_without_any_source_says_all_that_was_tried(alias, tmp_path, two_lines):
    (tmp_path / "empty").mkdir()
    alias(str(tmp_path / "missing"), str(tmp_path / "empty"), "pypi:a-model==1.0")
    with pytest.raises(SourceError) as raised:
        load("short")
    first, second = two_lines(raised)
    assert all(part in first for part in ("missing", "empty", "pypi:a-model==1.0: The package", "pinned"))
    assert "network" in second


def test_a_folder_goes_before_an_alias_of_its_name(alias, bert_folder, monkeypatch):
    alias("nowhere")
    monkeypatch.chdir(bert_folder.parent)
    bert_folder.rename("short")
    assert load("short").task.width == 32


@pytest.mark.parametrize("place", ["", "no-such-model", "a\0b", "x" * 5000, "~nobody-here/model", "ftp:model"])
def test_no_such_model_is_said_in_two_lines(place, two_lines):
    with pytest.raises(SourceError, match="There is no model") as raised:
        load(place)
    assert "all-MiniLM-L6-v2" in two_lines(raised)[1]


def test_a_name_that_looks_like_the_hubs_is_pointed_there(two_lines):
    with pytest.raises(SourceError) as raised:
        load("sentence-transformers/all-MiniLM-L6-v2")
    assert "hf:sentence-transformers/all-MiniLM-L6-v2" in two_lines(raised)[1]


def test_a_file_that_is_no_model_is_refused(tmp_path, two_lines):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="is not a model") as raised:
        load(str(tmp_path / "notes.txt"))
    two_lines(raised)


def test_every_alias_is_pinned_and_says_its_languages():
    for entry in aliases().values():
        assert set(entry["languages"]) <= {"en", "zh"} and entry["languages"]
        assert all("#sha256=" in source for source in entry["sources"] if source.startswith("pypi:"))
        assert all(source.partition(":")[0] in ("pypi", "hf", "hf-cache") for source in entry["sources"])


def test_languages_are_the_aliases_or_guessed(alias, bert_folder):
    alias(str(bert_folder))
    assert languages_of("short") == ("zh",)
    assert languages_of(str(bert_folder)) == ("en",)
    assert languages_of("anything", load(str(bert_folder))) == ("en",)


def vocabulary(english: int, chinese: int, *, byte_level: bool = False) -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    characters = [chr(0x4E00 + number) for number in range(chinese)]
    if byte_level:
        alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False)
        characters = [alphabet.pre_tokenize_str(character)[0][0] for character in characters]
    pieces = ["[UNK]", *(f"word{number}" for number in range(english)), *characters]
    engine = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    engine.decoder = decoders.ByteLevel() if byte_level else decoders.WordPiece()
    return engine.to_str().encode()


@pytest.mark.parametrize("byte_level", [False, True])
@pytest.mark.parametrize(
    ("english", "chinese", "wanted"),
    [(5000, 0, ("en",)), (9000, 500, ("en",)), (9000, 4000, ("en", "zh")), (2000, 7000, ("zh",))],
)
def test_languages_follow_the_vocabulary(english, chinese, wanted, byte_level):
    assert guess(vocabulary(english, chinese, byte_level=byte_level)) == wanted
