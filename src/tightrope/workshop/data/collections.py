"""Retrieval collections: documents, queries and judgements in one folder.

Three layouts are read: that of BEIR (`corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`); plain files named after
what they hold (`documents.tsv`, `queries.jsonl`, `qrels.txt`); and TREC's own, documents as `<doc>` with `<docno>`,
topics as `<top>` with `<num>`, judgements as `query 0 document relevance`. XML with entities of its own is refused.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tightrope.errors import DataError
from tightrope.samples import Retrieval
from tightrope.workshop.data.files import lines, objects, read_text, wrong

DOCUMENTS = ("corpus", "documents", "docs", "collection", "cran.all")
QUERIES = ("queries", "query", "topics", "cran.qry")
JUDGEMENTS = ("qrels", "qrel", "judgements", "cranqrel")
PARTS = ("dev", "test", "train")
"""Which judgements are taken from a folder that has several, the first that is there."""

LAYOUT_HINT = "Give documents, queries and qrels in one folder; see docs/guide/data.md."


def is_judgements_of_collection(path: Path) -> bool:
    """Whether a file is one of several judgements of a collection, such as `qrels/train.tsv`."""
    return path.is_file() and path.parent.name == "qrels" and _find(path.parent.parent, DOCUMENTS) is not None


def read_collection(path: Path) -> Retrieval:
    """Read a folder, or one file of its `qrels`. Raises `DataError` with the file and line."""
    if path.is_dir():
        folder, judged = path, _judgement_file(path)
    else:
        folder, judged = path.parent.parent, path
    documents = dict(_texts(_wanted(folder, DOCUMENTS, "documents")))
    query_file = _wanted(folder, QUERIES, "queries")
    queries = dict(_texts(query_file))
    judgements = _judgements(judged)
    if query_file.suffix == ".xml":
        queries = _by_position(queries, judgements)
    _check_known(judged, judgements, queries, documents)
    return Retrieval(documents=documents, queries={name: queries[name] for name in judgements}, judgements=judgements)


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    files = [
        item
        for item in sorted(folder.iterdir())
        if item.is_file() and item.suffix in (".tsv", ".jsonl", ".xml", ".txt", ".trec")
    ]
    return next((item for name in names for item in files if item.name.lower().startswith(name)), None)


def _wanted(folder: Path, names: tuple[str, ...], what: str) -> Path:
    found = _find(folder, names)
    if found is None:
        raise DataError(f"{folder} has no {what} (such as {names[0]}.jsonl).", hint=LAYOUT_HINT)
    return found


def _judgement_file(folder: Path) -> Path:
    inside = folder / "qrels"
    if inside.is_dir():
        found = next((file for part in PARTS if (file := inside / f"{part}.tsv").is_file()), None)
        if found:
            return found
    return _wanted(folder, JUDGEMENTS, "judgements")


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Identifiers and texts; a title goes before the text, unless the text repeats it."""
    read = {".jsonl": _from_jsonl, ".xml": _from_xml}.get(path.suffix, _from_tsv)
    seen: set[str] = set()
    for line, name, title, text in read(path):
        if name in seen:
            raise wrong(path, line, f"{name!r} occurs twice.", "Give every document and query its own identifier.")
        seen.add(name)
        title, text = " ".join(title.split()), " ".join(text.split())
        yield name, text if text.startswith(title) else f"{title} {text}".strip()
    if not seen:
        raise wrong(path, None, "there is nothing in it.", LAYOUT_HINT)


Record = tuple[int | None, str, str, str]


def _from_jsonl(path: Path) -> Iterator[Record]:
    for line, value in objects(path):
        name = value.get("_id", value.get("id")) if isinstance(value, dict) else None
        if name is None or not isinstance(value.get("text"), str):
            raise wrong(path, line, "there is no _id or no text.", 'Write {"_id": "1", "text": "…"} on each line.')
        yield line, str(name), str(value.get("title") or ""), value["text"]


def _from_tsv(path: Path) -> Iterator[Record]:
    for line, written in lines(read_text(path)):
        name, tab, text = written.partition("\t")
        if not tab or not text.strip():
            raise wrong(
                path, line, "there is no identifier, tab and text.", "Write identifier, tab, text on each line."
            )
        if (name.lower(), text.lower()) not in (("id", "text"), ("_id", "text")):
            yield line, name.strip(), "", text.replace("\t", " ")


def _from_xml(path: Path) -> Iterator[Record]:
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise wrong(path, None, "it declares entities, which could expand without end.", "Remove its DOCTYPE.")
    declaration, _, body = text.partition("?>") if text.lstrip().startswith("<?xml") else ("", "", text)
    # Collections are often a run of <doc> without a root; one is put around, on the same line to keep line numbers.
    try:
        root = ElementTree.fromstring(f"<collection>{body}</collection>")
    except ElementTree.ParseError as error:
        raise wrong(
            path, error.position[0] + declaration.count("\n"), f"it is not XML ({error}).", LAYOUT_HINT
        ) from error
    for element in root.iter():
        if element.tag in ("doc", "DOC"):
            found = _parts(element)
            yield None, found.get("docno", ""), found.get("title", ""), found.get("text", "")
        elif element.tag in ("top", "topic"):
            found = _parts(element)
            yield None, found.get("num", ""), "", found.get("title") or found.get("desc", "")


def _parts(element: ElementTree.Element) -> dict[str, str]:
    return {child.tag.lower(): "".join(child.itertext()).strip() for child in element}


def _by_position(queries: dict[str, str], judgements: dict[str, dict[str, int]]) -> dict[str, str]:
    """Judgements that name topics by their position, as Cranfield's do, not by their number."""
    if all(name in queries for name in judgements):
        return queries
    return {str(place): text for place, text in enumerate(queries.values(), 1)}


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    """`query 0 document relevance`, or `query document relevance` with or without a header."""
    found: dict[str, dict[str, int]] = {}
    for line, written in lines(read_text(path)):
        fields = written.split()
        if fields[0] in ("query-id", "query_id", "qid"):
            continue
        if len(fields) not in (3, 4):
            raise wrong(
                path, line, f"{len(fields)} fields, where 3 or 4 are needed.", "Write: query 0 document relevance."
            )
        try:
            relevance = int(float(fields[-1]))
        except (ValueError, OverflowError) as error:
            raise wrong(path, line, f"the relevance {fields[-1]!r} is not a number.", "Write 0, 1, 2 …") from error
        found.setdefault(fields[0], {})[fields[-2]] = relevance
    return {name: judged for name, judged in found.items() if any(relevance > 0 for relevance in judged.values())}


def _check_known(
    path: Path, judgements: dict[str, dict[str, int]], queries: dict[str, str], documents: dict[str, str]
) -> None:
    if not judgements:
        raise wrong(path, None, "no document is relevant to any query.", "Give judgements above 0.")
    for name, judged in judgements.items():
        if name not in queries:
            raise wrong(path, None, f"the query {name!r} is judged, but not given.", LAYOUT_HINT)
        if not any(document in documents for document, relevance in judged.items() if relevance > 0):
            raise wrong(path, None, f"none of the documents relevant to {name!r} is given.", LAYOUT_HINT)
