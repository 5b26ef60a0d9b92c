"""An open index: searched, changed while it is searched, filtered, opened by several."""

import threading

import numpy as np
import pytest

from tightrope.device.index import lexicon
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create, open_index
from tightrope.errors import DataError, OutputError, SearchError

DIGEST = "ab" * 32


def exact(vectors, query, k):
    return [f"d{place}" for place in np.argsort(-(vectors @ query), kind="stable")[:k]]


def test_a_search_finds_what_exact_vectors_say(index, vectors):
    rows = vectors(300)
    for query in vectors(20, seed=5):
        hits = index.search(query, 10)
        assert [hit.key for hit in hits] == exact(rows, query, 10)
        assert hits[0].score == pytest.approx((rows @ query).max(), abs=2e-5)
        assert hits[0].text.startswith("number") and hits[0].title == f"Title {hits[0].metadata['n']}"


def test_what_was_added_is_found_at_once_and_after_opening(index, vectors, made):
    late = vectors(1, seed=77)
    index.add(made(1, first=900), late)
    assert index.search(late[0], 1)[0].key == "d900"
    index.close()
    with open_index(index.path) as again:
        assert again.search(late[0], 1)[0].key == "d900" and again.about.documents == 301 and again.repaired == 0


def test_a_key_that_is_there_is_not_added_but_replaced(index, vectors, made):
    new = vectors(1, seed=78)
    with pytest.raises(DataError, match="already"):
        index.add(made(1), new)
    assert index.search(vectors(300)[0], 1)[0].key == "d0"
    index.replace(made(1), new)
    assert index.search(new[0], 1)[0].key == "d0" and index.about.documents == 300
    assert index.search(vectors(300)[0], 1)[0].score < 0.9


def test_what_was_deleted_is_gone_and_its_slot_is_used_again(index, vectors, made):
    rows = vectors(300)
    assert index.delete(["d7", "d7", "none", "d9"]) == 2
    assert index.search(rows[7], 1)[0].key != "d7" and index.matching("number 7 of password", 300)[0].key != "d7"
    size = index.size_bytes
    index.add(made(2, first=500), vectors(2, seed=3))
    assert index.size_bytes == size and index.check() == []
    assert index.search(vectors(2, seed=3)[1], 1)[0].key == "d501"


def test_all_documents_of_a_call_are_added_or_none(index, vectors, made):
    with pytest.raises(DataError):
        index.add([*made(2, first=400), *made(1)], vectors(3))
    with pytest.raises(DataError, match="occurs twice"):
        index.replace([*made(1, first=400), *made(1, first=400)], vectors(2))
    assert index.about.documents == 300 and index.present(["d400", "d0"]) == {"d0"}


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ({"parity": "odd"}, lambda n: n % 2 == 1),
        ({"n": [3, 5, 1000]}, lambda n: n in (3, 5)),
        ({"n": {"gte": 10, "lt": 20}}, lambda n: 10 <= n < 20),
        ({"tags": "t1"}, lambda n: n % 3 == 1),
        ({"tags": {"not": ["t1", "t2"]}}, lambda n: n % 3 == 0),
        ({"parity": "even", "n": {"gt": 290}}, lambda n: n % 2 == 0 and n > 290),
        ({"n": {"gte": "a"}}, lambda n: False),
        ({"nothing": 1}, lambda n: False),
        ({"nothing": {"not": 1}}, lambda n: True),
    ],
)
def test_filters_choose_before_the_search(index, vectors, where, matches):
    wanted = {f"d{n}" for n in range(300) if matches(n)}
    query = vectors(1, seed=4)[0]
    ranked = [key for key in exact(vectors(300), query, 300) if key in wanted]
    assert [hit.key for hit in index.search(query, 20, where)] == ranked[:20]
    assert {hit.key for hit in index.matching("number", 300, where)} == wanted
    assert {hit.key for hit in index.hybrid(query, "number", 300, where)} == wanted


@pytest.mark.parametrize(
    "where",
    [
        {},
        [],
        "parity",
        {"n": {}},
        {"n": {"like": 1}},
        {"n": None},
        {"n": []},
        {"n": {"gt": True}},
        {"n": {"gt": [1]}},
        {"n": float("nan")},
        {"n": {"gt": 1, "lt": "a"}},
        {"n": {"not": {}}},
        {"n": 2**70},
        {"n": list(range(2000))},
    ],
)
def test_what_is_no_filter_is_refused(index, vectors, where):
    with pytest.raises(DataError):
        index.search(vectors(1)[0], 3, where)


def test_a_filter_is_no_sql(index, vectors):
    for text in ("' OR 1=1 --", '"; DROP TABLE documents; --', "%", "\0true"):
        assert index.search(vectors(1)[0], 3, {text: text}) == []
    assert index.about.documents == 300


@pytest.mark.parametrize("k", [0, -1, 1001, 2.5, True, None, "3"])
def test_an_impossible_number_of_hits_is_refused(index, vectors, k):
    with pytest.raises(DataError, match="hits"):
        index.search(vectors(1)[0], k)


def test_words_are_found_by_stem_and_nothing_is_an_operator(index):
    assert {hit.metadata["n"] % 10 for hit in index.matching("breads", 300)} == {3}
    for text in ('"', "AND OR NOT", "river*", "NEAR(river mill)", "text: river", "^river", "-river", "()", "\0", " "):
        assert isinstance(index.matching(text, 5), list)
    assert index.hybrid(np.ones(96, np.float32), "?!", 3)


def test_chinese_is_found_without_spaces(index, vectors):
    index.add([Document(key="zh", passages=("我忘记了路由器的密码",))], vectors(1, seed=8))
    assert index.matching("密码", 3)[0].key == "zh" and index.matching("记录", 3) == []
    index.delete(["zh"])
    assert index.matching("密码", 3) == []


def test_documents_of_many_passages_are_one(index, vectors):
    rows = vectors(3, seed=6)
    index.add([Document(key="long", passages=("one", "two", "three"), answer="an answer")], rows)
    hit = index.search(rows[2], 1)[0]
    assert (hit.key, hit.position, hit.text, hit.answer) == ("long", 2, "three", "an answer")
    np.testing.assert_allclose(index.vectors(["long", "none"])["long"], rows, atol=2e-5)
    assert index.delete(["long"]) == 1 and index.about.passages == 300


@pytest.mark.parametrize(
    "document",
    [
        Document(key="", passages=("x",)),
        Document(key="a\0b", passages=("x",)),
        Document(key="k" * 600, passages=("x",)),
        Document(key="a", passages=()),
        Document(key="a", passages=("x",), metadata={"a": None}),
        Document(key="a", passages=("x",), metadata={"a": float("inf")}),
        Document(key="a", passages=("x",), metadata={"a": 2**64}),
        Document(key="a", passages=("x",), metadata={"a": {"b": 1}}),
        Document(key="a", passages=("x",), metadata={"a": "x" * 20_000}),
        Document(key="a", passages=("x",), metadata={str(n): n for n in range(100)}),
        Document(key="a", passages=(1,)),
    ],
)
def test_what_is_no_document_is_refused(index, vectors, document):
    with pytest.raises(DataError):
        index.add([document], vectors(1)[: len(document.passages)])
    assert index.about.documents == 300


def test_lone_surrogates_are_replaced(index, vectors):
    index.add([Document(key="a\ud800", passages=("b\udfff",), metadata={"c\ud800": "\ud800"})], vectors(1, seed=2))
    assert index.search(vectors(1, seed=2)[0], 1)[0].text == "b\ufffd"


def test_two_writers_are_excluded_and_readers_are_not(place, vectors, made):
    with open_index(place) as writer, open_index(place, writing=False) as reader:
        with pytest.raises(SearchError, match="written by another"):
            open_index(place)
        late = vectors(2, seed=31)
        writer.add(made(2, first=600), late)
        assert reader.search(late[0], 1)[0].key == "d600", "a reader sees what another process added"
        writer.delete(["d600"])
        assert reader.search(late[0], 1)[0].key != "d600"
        with pytest.raises(SearchError, match="reading only"):
            reader.add(made(1, first=700), late[:1])
    with open_index(place) as again:
        assert again.about.documents == 301


def test_an_index_of_another_model_is_refused(place):
    with pytest.raises(SearchError, match="vectors of the model abab") as caught:
        open_index(place, digest="cd" * 32)
    assert "rebuild" in caught.value.hint
    open_index(place, digest=DIGEST).close()


def test_memory_is_reserved_before_it_is_taken(place, vectors, made):
    asked = []

    def reserve(size):
        asked.append(size)
        if size > asked[0] * 1.01:
            raise MemoryError

    with open_index(place, reserve=reserve) as index:
        with pytest.raises(MemoryError):
            index.add(made(1000, first=1000), vectors(1000, seed=1))
        assert index.about.documents == 300 and index.search(vectors(300)[0], 1)[0].key == "d0"
        assert asked[0] == index.size_bytes >= 300 * 128


def test_searches_go_on_while_documents_change(index, vectors, made):
    rows, failed, done = vectors(300), [], threading.Event()

    def search():
        while not done.is_set():
            for number in (3, 50, 299):
                hit = index.search(rows[number], 1)[0]
                if hit.key != f"d{number}" or not hit.text.startswith(f"number {number} "):
                    failed.append(hit)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(15):
        index.add(made(40, first=1000), vectors(40, seed=turn))
        index.delete([f"d{number}" for number in range(1000, 1040)])
    done.set()
    for thread in threads:
        thread.join()
    assert not failed and index.about.documents == 300 and index.check() == []


def test_a_closed_index_says_so(index, vectors, made):
    index.close()
    index.close()
    for act in (lambda: index.search(vectors(1)[0]), lambda: index.add(made(1), vectors(1)), lambda: index.about):
        with pytest.raises(SearchError, match="closed"):
            act()


def test_nothing_is_written_over(tmp_path, place):
    for path in (place, tmp_path):
        with pytest.raises(OutputError):
            create(path, digest=DIGEST, width=8)
    create(place, digest=DIGEST, width=8, force=True).close()
    with open_index(place) as index:
        assert index.about.documents == 0 and index.width == 8
    assert len([item for item in place.iterdir() if item.is_dir()]) == 1


def test_settings_are_kept(place):
    with open_index(place) as index:
        index.note(threshold=0.5, source="docs")
    with open_index(place, writing=False) as index:
        assert index.about.settings == {"threshold": 0.5, "source": "docs"}


def test_common_words_add_to_the_scores_of_what_rare_ones_found(tmp_path, monkeypatch):
    """Among passages with the rarest words the order and the scores are those of all words."""
    texts = ["a common thing"] * 200 + ["a common needle"] * 3 + ["a needle of steel"] * 2 + ["steel"] * 40
    with create(tmp_path / "words.index", digest="ab" * 32, width=8) as index:
        vectors = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
        index.add([Document(key=f"d{n}", passages=(text,)) for n, text in enumerate(texts)], vectors)
        whole = {hit.key: hit.score for hit in index.matching("common needle steel", 300)}
        monkeypatch.setattr(lexicon, "CANDIDATES", 10)
        assert index._lexicon.telling(["common", "needle", "steel"], 5000, 2) == ["needle"]
        few = index.matching("common needle steel", 2)
        assert [hit.score for hit in few] == [pytest.approx(whole[hit.key]) for hit in few]
        assert {hit.key for hit in few} == {"d203", "d204"}
        assert len(index.matching("common needle steel", 100)) == 100, "who asks for many gets them"
        filtered = index.matching("common needle steel", 2, where={"none": 1})
        assert filtered == []
