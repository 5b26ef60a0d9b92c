"""Files with texts and labels: what is recognised, and what is refused with its line."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tightrope.errors import DataError
from tightrope.samples import LabelledPairs, Retrieval, ScoredPairs, Texts
from tightrope.workshop.data import files as data_files
from tightrope.workshop.data import read


@pytest.fixture
def written(tmp_path: Path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


GRADED = ScoredPairs(pairs=(("a b", "c"), ("d", "e f")), scores=(4.5, 1.0))
LABELLED = LabelledPairs(pairs=(("a b", "c"), ("d", "e f")), labels=(1, 0))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.tsv", "text_a\ttext_b\tscore\na b\tc\t4.5\nd\te f\t1\n", GRADED),
        ("p.tsv", "Score\tSentence1\tSentence2\r\n4.5\ta b\tc\r\n1\td\te f\r\n", GRADED),
        ("p.csv", "id,sentence1,sentence2,similarity_score\n1,a b,c,4.5\n2,d,e f,1\n", GRADED),
        ("p.csv", "﻿query,passage,label\na b,c,1\nd,e f,0\n", LABELLED),
        ("p.csv", "query;passage;label\na b;c;1\nd;e f;0\n", LABELLED),
        ("p.tsv", "a b\tc\t4.5\nd\te f\t1\n", GRADED),
        ("p.tsv", "4.5\ta b\tc\n1\td\te f\n", GRADED),
        ("p.txt", "a b\tc\t1\nd\te f\t0\n", LABELLED),
        ("p.csv", "g\tf\ty\t1\t4.5\ta b\tc\ng\tf\ty\t2\t1\td\te f\textra\n", GRADED),
        ("p.jsonl", '{"question1": "a b", "question2": "c", "is_duplicate": true}\n'
                    '{"is_duplicate": false, "question2": "e f", "question1": "d"}\n', LABELLED),
        ("t.txt", "one\n\n two \none\n", Texts(("one", "two"))),
        ("t.csv", "text\n\"one, and\"\"more\"\"\"\n\"two\nlines\"\n", Texts(('one, and"more"', "two\nlines"))),
        ("t.tsv", "label\ttext\n7\tone\n3\ttwo\n", Texts(("one", "two"))),
        ("t.tsv", "one\ttwo\nthree\tfour\n", Texts(("one", "two", "three", "four"))),
        ("t.jsonl", '"one"\n"two"\n', Texts(("one", "two"))),
        ("t.jsonl", '{"text": "one", "meta": null}\n{"text": "two", "meta": [1]}\n', Texts(("one", "two"))),
    ],
)  # fmt: skip
def test_layouts_are_recognised(written, name: str, content: str, expected: object) -> None:
    assert read(written(name, content)) == expected


def test_quotes_between_tabs_are_plain_characters_unless_doubled(written) -> None:
    path = written("p.tsv", '"I am", he said\tyes "no\t1\n"He said ""no""."\tno\t0\n')
    assert read(path).pairs == (('"I am", he said', 'yes "no'), ('He said "no".', "no"))


def test_the_kind_can_be_said(written) -> None:
    path = written("p.tsv", "a\tb\t0\nc\td\t1\n")
    assert isinstance(read(path), LabelledPairs)
    assert isinstance(read(path, "sts"), ScoredPairs)
    assert read(path, "texts") == Texts(("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", "", "it is empty"),
        ("p.csv", "\n \n", "it is empty"),
        ("p.tsv", "text_a\ttext_b\tscore\n", "nothing below"),
        ("p.tsv", "sentence1\tscore\na\t1\nb\t2\n", "there is no second text among 'sentence1', 'score'"),
        ("p.tsv", "foo\tbar\tbaz\na\tb\tc\n", "line 1: 3 columns without a header"),
        ("p.csv", "foo,label\nx,1\ny,0\n", "there is no text among the columns 'foo', 'label'"),
        ("p.tsv", "a\tb\t1\nc\td\n", "line 2: 2 columns, where 3 are needed"),
        ("p.tsv", "a\tb\t1\n\nc\t \t0\n", "line 3: one of the two texts is empty"),
        ("p.tsv", "a\tb\t1\nc\td\thigh\ne\tf\t0\n", "line 2: the score 'high' is not a number"),
        ("p.tsv", "a\tb\t1\nc\td\tnan\n", "line 2: the score 'nan' is not a number"),
        ("p.tsv", "a\tb\t1\nc\td\tinf\n", "line 2: the score 'inf'"),
        ("p.tsv", "a\tb\t1\nc\td\t1\n", "every label is 1"),
        ("p.tsv", "a\tb\t3\nc\td\t3\n", "every score is 3"),
        ("p.csv", "g\tf\ty\t1\t4.5\ta\tb\ng\tf\ty\t2\t7\tc\td\n", "line 2: the score 7 is out of range"),
        ("p.csv", 'text_a,text_b,label\n"a",b,1\n"c,d,0\ne,f,1\n', "line 3: the quotes do not close"),
        ("p.csv", 'text_a,text_b,label\na"b,c,1\n"x"y,b,1\n', "line 3: the quotes do not close"),
        ("p.jsonl", '{"text_a": "a", "text_b": "b", "score": 1}\n{"text_a": "a"}\n', "line 2: it has no 'text_b'"),
        ("p.jsonl", '{"text": "a"}\n{"text": \n', "line 2: it is not JSON"),
        ("p.jsonl", '[1, 2]\n', "line 1: it is a list, not an object"),
        ("p.jsonl", "[" * 100_000, "line 1: it is not JSON"),
        ("p.tsv", b"good\tline\t1\nb\xe4d\tline\t0\n", "line 2: the byte 0xe4 is not UTF-8"),
        ("p.tsv", "a\tb\t1\n".encode("utf-16"), "line 1: it is UTF-16"),
        ("p.txt", b"one\ntwo\nthr\0ee\n", "line 3: there is a NUL byte"),
        ("p.xlsx", "x", "ends in '.xlsx'"),
    ],
)  # fmt: skip
def test_what_is_broken_is_refused_with_its_line(written, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(written(name, content))
    assert message in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_rare_odd_label_is_a_mistake_and_many_are_grades(written) -> None:
    rows = [f"a{place}\tb{place}\t{place % 2}" for place in range(300)]
    with pytest.raises(DataError, match="line 151: the label 9 is out of range"):
        read(written("p.tsv", "\n".join(["text_a\ttext_b\tlabel", *rows[:149], "x\ty\t9", *rows[149:]])))
    graded = [f"a{place}\tb{place}\t{place % 3}" for place in range(300)]
    assert isinstance(read(written("p.tsv", "\n".join(["text_a\ttext_b\tlabel", *graded]))), ScoredPairs)


def test_labelled_pairs_that_were_asked_for_must_be_labelled(written) -> None:
    path = written("p.tsv", "a\tb\t0\nc\td\t2\n")
    with pytest.raises(DataError, match="line 2: the label 2 is out of range"):
        read(path, "pairs")
    with pytest.raises(DataError, match="no pairs"):
        read(written("t.txt", "one\ntwo\n"), "sts")
    with pytest.raises(DataError, match="no column for the score"):
        read(written("u.tsv", "one\ttwo\nthree\tfour\n"), "pairs")


def test_no_file_and_too_large_a_file(written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="There is no data at"):
        read(tmp_path / "none.tsv")
    monkeypatch.setattr(data_files, "MOST_BYTES", 10)
    with pytest.raises(DataError, match="are more than 10"):
        read(written("t.txt", "more than ten bytes\n"))


@example(content=b",", suffix=".csv")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".txt", ".tsv", ".csv", ".jsonl"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    try:
        assert read(path).texts is not None
    except DataError as error:
        assert error.hint


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            *[st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs")), min_size=1)] * 2,
            st.sampled_from([0.5, 2.0, 3.5]),
        ),
        min_size=2,
    ).filter(lambda rows: len({row[2] for row in rows}) > 1)
)
def test_what_was_written_is_read_back(tmp_path: Path, rows: list[tuple[str, str, float]]) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"text1": a, "text2": b, "score": s}) + "\n" for a, b, s in rows))
    found = read(path)
    assert isinstance(found, ScoredPairs)
    assert found.pairs == tuple((a.strip(), b.strip()) for a, b, _ in rows)
    assert found.scores == tuple(s for _, _, s in rows)


# Collections --------------------------------------------------------------------------------------------

EXPECTED = Retrieval(
    documents={"d1": "Wings lift and drag", "d2": "Heat in slabs"},
    queries={"q1": "what lifts a wing"},
    judgements={"q1": {"d1": 2, "d2": 0}},
)


def beir(written) -> Path:
    written("c/corpus.jsonl", '{"_id": "d1", "title": "Wings", "text": "lift and drag"}\n'
                              '{"_id": "d2", "title": "", "text": "Heat in slabs"}\n')  # fmt: skip
    written("c/queries.jsonl", '{"_id": "q1", "text": "what lifts a wing"}\n{"_id": "q2", "text": "unjudged"}\n')
    written("c/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td2\t1\n")
    return written("c/qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n").parent.parent


def test_beir_layout_and_one_of_its_judgements(written) -> None:
    folder = beir(written)
    assert read(folder) == EXPECTED
    assert read(folder / "qrels" / "test.tsv").judgements == {"q1": {"d2": 1}}


def test_plain_layout(written) -> None:
    written("c/documents.tsv", "id\ttext\nd1\tWings lift\tand drag\nd2\tHeat in slabs\n")
    written("c/queries.tsv", "q1\twhat lifts a wing\n")
    folder = written("c/qrels.txt", "q1 0 d1 2\nq1 0 d2 0\n").parent
    assert read(folder) == EXPECTED


DOCS = (
    "<doc>\n<docno>d1</docno><title>Wings</title><text>Wings lift\nand  drag</text></doc>\n"
    "<doc><docno>d2</docno><title/><text>Heat in slabs</text></doc>"
)
TOPICS = "<?xml version='1.0' encoding='utf-8'?>\n<xml><top><num> 7</num><title>what lifts a wing</title></top></xml>"


def test_trec_xml_with_topics_judged_by_position(written) -> None:
    written("c/documents.xml", DOCS)
    written("c/topics.xml", TOPICS)
    folder = written("c/qrels.trec.txt", "1 0 d1 2\n1 0 d2 0\n").parent
    found = read(folder)
    assert found.documents == EXPECTED.documents
    assert found.queries == {"1": "what lifts a wing"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("documents.xml", "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><doc>&a;</doc>", "declares entities"),
        ("documents.xml", "<doc>\n<docno>1</docno>\n<text>a & b</text></doc>", "line 3: it is not XML"),
        ("documents.tsv", "d1 without a tab\n", "line 1: there is no identifier"),
        ("documents.tsv", "d1\ta\nd1\tb\n", "line 2: 'd1' occurs twice"),
        ("documents.jsonl", '{"text": "a"}\n', "line 1: there is no _id"),
        ("qrels.txt", "q1 d1\n", "line 1: 2 fields"),
        ("qrels.txt", "q1 0 d1 high\n", "line 1: the relevance 'high'"),
        ("qrels.txt", "q1 0 d1 0\n", "no document is relevant"),
        ("qrels.txt", "q9 0 d1 1\n", "the query 'q9' is judged, but not given"),
        ("qrels.txt", "q1 0 d9 1\n", "none of the documents relevant to 'q1'"),
    ],
)
def test_a_broken_collection_is_refused(written, name: str, content: str, message: str) -> None:
    parts = {"documents.tsv": "d1\ta text\n", "queries.tsv": "q1\ta query\n", "qrels.txt": "q1 0 d1 1\n"}
    parts = {key: value for key, value in parts.items() if Path(key).stem != Path(name).stem} | {name: content}
    for part, value in parts.items():
        folder = written(f"c/{part}", value).parent
    with pytest.raises(DataError) as caught:
        read(folder)
    assert message in caught.value.message


def test_an_incomplete_collection_names_what_is_missing(written) -> None:
    folder = written("c/documents.tsv", "d1\ta\n").parent
    with pytest.raises(DataError, match="has no judgements"):
        read(folder)
    with pytest.raises(DataError, match="is a retrieval collection, not sts"):
        read(folder, "sts")


# Real files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("stsbenchmark/sts-dev.csv", ScoredPairs, 1500),
        ("stsb_zh/stsb-zh-dev.csv", ScoredPairs, 1500),
        ("chinese_sts_pairs/LCQMC_dev.txt", LabelledPairs, 8802),
        ("chinese_sts_pairs/PAWS-X_dev_2k.tsv", LabelledPairs, 2000),
        ("bq_corpus_zh/dev.csv", LabelledPairs, 10000),
        ("ccks2021_address_match/dev.tsv", ScoredPairs, 2279),
    ],
)
def test_real_pairs(data: Path, name: str, kind: type, size: int) -> None:
    found = read(data / name)
    assert isinstance(found, kind)
    assert len(found.pairs) == size


def test_real_collection(data: Path) -> None:
    found = read(data / "cranfield_retrieval")
    assert (len(found.documents), len(found.queries)) == (1400, 112)
    assert found.queries["2"].startswith("what are the structural and aeroelastic problems")
