"""Search, answers, recommendation and pairs; documents that come and go. Native routes, failures by RFC 9457.

A question is embedded by the version whose vectors the index holds. Is that version gone, after it was taken back for
good, search goes on by words until the index is made anew.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from tightrope.device.apps import faq_bot, recommender, semantic_search
from tightrope.device.apps.semantic_search import Mode
from tightrope.device.index.documents import Document, Hit, checked
from tightrope.device.serve import logs
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import Request, Response, Route, State, json
from tightrope.device.serve.http.search_messages import (
    Deleted,
    Documents,
    Hits,
    IndexList,
    IndexState,
    Keys,
    Liked,
    Pairs,
    Question,
    Reply,
    Scores,
    Search,
    SearchHits,
    Text,
    Where,
    Written,
)
from tightrope.device.serve.shelf import Pair, Shelf
from tightrope.errors import OutputError, RefusedError, SearchError

Ask = Callable[..., Awaitable[Any]]
"""`ask(catalogue.answer, name, inputs, …)`: what is served; `Request.answer` is one."""

# Finding ----------------------------------------------------------------------------------------------------


async def find(
    state: State,
    query: str,
    *,
    k: int = 10,
    index: str | None = None,
    where: Where | None = None,
    mode: Mode = Mode.HYBRID,
    ask: Ask | None = None,
) -> tuple[list[dict[str, Any]], Mode]:
    """Hits as JSON has them, each with an `id` of its own, and how they were searched in the end."""
    asked = semantic_search.asked(query)
    async with _using(state, index) as (shelf, pair):
        vector = None
        if mode is not Mode.WORDS:
            try:
                vector = await _vector(state, shelf, pair, asked, ask or _ask)
            except RefusedError as error:
                if error.reason != "unknown_model" or mode is Mode.VECTOR:
                    raise
                mode = Mode.WORDS
        hits = await asyncio.to_thread(semantic_search.found, pair.index, vector, asked, k, where=where, mode=mode)
    return [_told(hit) for hit in hits], mode


async def _search(request: Request) -> Response:
    """Passages for a query: by meaning, by words, or both."""
    body = await request.json(Search)
    hits, mode = await find(
        request.state, body.query, k=body.k, index=body.index, where=body.where, mode=body.mode, ask=request.answer
    )
    return json({"hits": hits, "mode": mode})


async def _answered(request: Request) -> Response:
    """An answer from the index, or that it is not known."""
    body = await request.json(Question)
    question = semantic_search.asked(body.question)
    async with _using(request.state, body.index) as (shelf, pair):
        vector = await _vector(request.state, shelf, pair, question, request.answer)
        found = await request.thread(lambda: faq_bot.answered(pair.index, vector, k=body.k, where=body.where))
    return json(
        {
            "answer": found.text,
            "known": found.text is not None,
            "score": found.score,
            "threshold": found.threshold,
            "hits": [_told(hit) for hit in found.hits],
        }
    )


async def _recommended(request: Request) -> Response:
    """Documents for who liked these."""
    body = await request.json(Liked)
    async with _using(request.state, body.index) as (_, pair):
        hits = await request.thread(
            lambda: recommender.recommend(
                pair.index,
                body.history,
                _few(body.k),
                half_life=body.half_life,
                diversity=body.diversity,
                where=body.where,
            )
        )
    return json({"hits": [_told(hit) for hit in hits]})


async def _paired(request: Request) -> Response:
    """Scores of pairs: a cross-encoder's own, or the cosine of an embedder's vectors."""
    body = await request.json(Pairs)
    _check_count(request.state, 2 * len(body.pairs))
    about = await request.thread(request.state.catalogue.about, body.model)
    scores = about.source is not None and about.source.content.task["name"] == "scoring"
    inputs: list[Any] = list(body.pairs) if scores else [text for pair in body.pairs for text in pair]
    if not inputs:
        return json(Scores(about.name, []))
    served = await request.answer(request.state.catalogue.answer, body.model, inputs)
    rows = served.answer.rows
    if not scores:
        rows = np.clip((rows[::2] * rows[1::2]).sum(1, keepdims=True), -1, 1)
    return json(Scores(served.name, (rows[:, 0] if rows.shape[1] == 1 else rows).tolist()))


# Documents --------------------------------------------------------------------------------------------------


async def _add(request: Request) -> Response:
    """Add documents: texts are cut into passages and embedded. One that is there already is refused."""
    return await _put(request, replacing=False)


async def _replace(request: Request) -> Response:
    """Add documents, in place of those with the same keys."""
    return await _put(request, replacing=True)


async def _put(request: Request, *, replacing: bool) -> Response:
    body = await request.json(Documents)
    if not body.documents:
        raise Failure("invalid", "There are no documents. Give at least one.", param="documents")
    async with _using(request.state, body.index) as (shelf, pair):
        documents = await request.thread(_cut, shelf, body.documents)
        texts = [text for document in documents for text in document.passages]
        _check_count(request.state, len(texts))
        served = await request.answer(
            request.state.catalogue.answer, shelf.name, texts, version=pair.version, prompt=pair.for_passages
        )
        await request.thread(pair.index.replace if replacing else pair.index.add, documents, served.answer.rows)
    return json(Written(len(documents), len(texts)), 200 if replacing else 201)


async def _delete(request: Request) -> Response:
    """Take documents out of the index; keys that it has not are passed over."""
    body = await request.json(Keys)
    _check_count(request.state, len(body.keys))
    async with _using(request.state, body.index) as (_, pair):
        return json(Deleted(await request.thread(pair.index.delete, body.keys)))


async def _delete_one(request: Request) -> Response:
    """Take one document out of the index."""
    async with _using(request.state, request.query.get("index")) as (_, pair):
        if not await request.thread(pair.index.delete, [request.params["key"]]):
            raise Failure("not_found", "There is no such document.")
    return json(Deleted(1))


async def _listed(request: Request) -> Response:
    """The indexes that are served."""
    indexes = []
    for name in request.state.indexes:
        async with _using(request.state, name) as (shelf, pair):
            about = await asyncio.to_thread(lambda index: index.about, pair.index)
            indexes.append(
                IndexState(
                    name=name,
                    model=shelf.name,
                    version=pair.version,
                    digest=about.digest,
                    state=shelf.state,
                    documents=about.documents,
                    passages=about.passages,
                    memory_bytes=pair.index.size_bytes,
                )
            )
    return json(IndexList(indexes))


def _cut(shelf: Shelf, given: list[Text]) -> list[Document]:
    """Documents of passages; one that the index would refuse is refused before it is embedded."""
    with shelf.cutting() as cut:
        return [
            checked(
                Document(
                    key=item.key,
                    passages=tuple(cut(item.text)),
                    title=item.title,
                    answer=item.answer,
                    metadata=item.metadata,
                )
            )
            for item in given
        ]


# What they share --------------------------------------------------------------------------------------------


@asynccontextmanager
async def _using(state: State, name: str | None) -> AsyncIterator[tuple[Shelf, Pair]]:
    """The index that was asked for, or the only one; what fails in it is told without its path."""
    indexes: Mapping[str, Shelf] = state.indexes
    if name is None and len(indexes) == 1:
        name = next(iter(indexes))
    if name is None or name not in indexes:
        listed = ", ".join(indexes) or "none: start the server with --index"
        raise Failure("not_found", f"There is no index {name!a:.60}. There is: {listed}.", param="index")
    shelf = indexes[name]
    try:
        with shelf.pair() as pair:
            yield shelf, pair
    except (SearchError, OutputError) as error:
        logs.event("index.failed", level="error", index=name, error=type(error).__name__)
        what = "written" if isinstance(error, OutputError) else "used"
        raise Failure("unavailable", f"The index cannot be {what} just now.", retry_after_s=1.0) from error


async def _vector(state: State, shelf: Shelf, pair: Pair, text: str, ask: Ask) -> Any:
    served = await ask(state.catalogue.answer, shelf.name, [text], version=pair.version, prompt=pair.for_questions)
    return served.answer.rows[0]


async def _ask(start: Callable[..., Any], *given: Any, **named: Any) -> Any:
    return await asyncio.wrap_future(start(*given, **named))


def _told(hit: Hit) -> dict[str, Any]:
    return {
        "id": f"{hit.key}#{hit.position}",
        "key": hit.key,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
        "answer": hit.answer,
        "position": hit.position,
        "metadata": hit.metadata,
    }


def _few(k: int) -> int:
    if not 1 <= k <= 100:
        raise Failure("invalid", f"{k} recommendations cannot be given. Ask for 1 to 100.", param="k")
    return k


def _check_count(state: State, count: int) -> None:
    if count > state.limits.inputs:
        raise Failure("too_large", f"{count} texts are more than {state.limits.inputs} in one request.")


ROUTES = (
    Route("POST", "/v1/search", _search),
    Route("POST", "/v1/ask", _answered),
    Route("POST", "/v1/recommend", _recommended),
    Route("POST", "/v1/pairs", _paired),
    Route("GET", "/v1/indexes", _listed),
    Route("POST", "/v1/documents", _add),
    Route("PUT", "/v1/documents", _replace),
    Route("POST", "/v1/documents/delete", _delete),
    Route("DELETE", "/v1/documents/{key}", _delete_one),
)
MESSAGES: dict[Any, tuple[Any, Any]] = {
    _search: (Search, SearchHits),
    _answered: (Question, Reply),
    _recommended: (Liked, Hits),
    _paired: (Pairs, Scores),
    _listed: (None, IndexList),
    _add: (Documents, Written),
    _replace: (Documents, Written),
    _delete: (Keys, Deleted),
    _delete_one: (None, Deleted),
}
