"""Live streams: what the dashboard shows, and search results that follow the words and the index.

Both come as server-sent events and over a WebSocket, as the same messages: a snapshot, then JSON Patches with sequence
numbers (`deltas`). A reader that is slow gets a snapshot instead of what it missed; its place costs the same memory.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import msgspec

from tightrope.device.serve.deltas import Feed
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import Request, Response, Route, State, WebSocket
from tightrope.errors import TightropeError

EVENTS = "text/event-stream"
PING_S = 15.0
"""A comment goes out after so long without news, so that proxies keep the stream and dead readers are noticed."""
AGAIN_S = 1.0
"""How often a question is asked again while somebody looks at its answer: the index may have changed."""
QUERY_CHARACTERS = 2000
VIOLATION = 1008
"""How a WebSocket ends whose reader may not have it any more (RFC 6455, 7.4.1)."""


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """What a reader of search results says: a question, or that it missed a message."""

    query: str = ""
    k: int = 8
    index: str | None = None
    resync: bool = False


# Search -----------------------------------------------------------------------------------------------------


class Follower:
    """One reader's question: only the latest counts, and its answer is looked for again while it is looked at."""

    def __init__(self, state: State, feed: Feed) -> None:
        self._state = state
        self._feed = feed
        self._question = Question()
        self._told: dict[str, Any] = {}
        self._asked = asyncio.Event()

    def hear(self, text: str | bytes) -> None:
        """Take what the reader says; what is no question is told as the answer."""
        try:
            question = msgspec.json.decode(text, type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._told = _answer(Question(), [], 0.0, f"This is no question: {error}.")
            self._feed.push(self._told)
            return
        if question.resync:
            self._feed.resync()
        else:
            self.ask(question)

    def ask(self, question: Question) -> None:
        """Look for this from now on."""
        self._question = question
        self._asked.set()

    async def run(self) -> None:
        """Answer until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), AGAIN_S if self._question.query else None)
            self._asked.clear()
            found = await self._found(self._question)
            if found | {"took_s": 0.0} != self._told | {"took_s": 0.0}:  # how long it took alone is no news
                self._told = found
                self._feed.push(found)

    async def _found(self, question: Question) -> dict[str, Any]:
        from tightrope.device.serve.http.search import find  # SQLite, for those who search

        if not question.query:
            return _answer(question, [], 0.0)
        started = time.perf_counter()
        try:
            if len(question.query) > QUERY_CHARACTERS:
                raise Failure("too_large", f"A question has {QUERY_CHARACTERS} characters at most.")
            hits, _ = await find(self._state, question.query, k=max(1, min(question.k, 50)), index=question.index)
        except TightropeError as error:
            return _answer(question, [], 0.0, error.message)
        except Failure as failure:
            return _answer(question, [], 0.0, failure.detail)
        return _answer(question, hits, time.perf_counter() - started)


def _answer(question: Question, hits: list[dict[str, Any]], took_s: float, error: str = "") -> dict[str, Any]:
    return {"query": question.query, "hits": hits, "took_s": float(f"{took_s:.2g}"), "error": error}


# Streams ----------------------------------------------------------------------------------------------------


@contextmanager
def _feed(state: State) -> Iterator[Feed]:
    """A feed for one more reader. Raises `Failure` if there are as many as may be."""
    board = state.board
    if board.readers >= state.limits.streams:
        raise Failure("limited", f"{board.readers} streams are open, as many as may be.", retry_after_s=5.0)
    board.readers += 1
    try:
        yield Feed(state.limits.stream_messages)
    finally:
        board.readers -= 1


async def _events(
    request: Request, held: ExitStack, feed: Feed, work: Coroutine[Any, Any, None] | None = None
) -> AsyncIterator[bytes]:
    """A feed as server-sent events, until the reader is gone; `work` fills it meanwhile, `held` is left at the end."""
    ends = [asyncio.ensure_future(_left(request)), asyncio.ensure_future(_barred(request))]
    others = ends if work is None else [*ends, asyncio.ensure_future(work)]
    with held:
        try:
            before = b"retry: 2000\n"
            while not any(end.done() for end in ends):
                news = asyncio.ensure_future(feed.pull())
                await asyncio.wait((news, *ends), timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
                if news.done():
                    yield before + b"data: " + news.result().encode() + b"\n\n"
                    before = b""
                    continue
                news.cancel()
                yield b": ping\n\n"
        finally:
            for task in others:
                task.cancel()


async def _left(request: Request) -> None:
    """Wait until the reader is gone, or the server stops."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _barred(request: Request) -> None:
    """Wait until the reader's key is revoked, or the session is over; for ever where nobody needs one."""
    while request.holds():
        await asyncio.sleep(AGAIN_S)


async def _socket(
    request: Request, socket: WebSocket, feed: Feed, hear: Callable[[str], None], *works: Coroutine[Any, Any, None]
) -> None:
    """A feed over a WebSocket, until one side ends it or the reader may not have it any more."""

    async def read() -> None:
        while (text := await socket.receive()) is not None:
            hear(text)

    async def write() -> None:
        while True:
            await socket.send(await feed.pull())

    barred, *_ = tasks = [asyncio.ensure_future(work) for work in (_barred(request), read(), write(), *works)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if barred.done():
            await socket.close(VIOLATION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def status_events(request: Request) -> Response:
    """The dashboard's document, as server-sent events."""
    with ExitStack() as stack:
        feed = stack.enter_context(_feed(request.state))
        stack.enter_context(request.state.board.watched(feed))
        return _stream(_events(request, stack.pop_all(), feed))


async def status_socket(request: Request, socket: WebSocket) -> None:
    """The dashboard's document, over a WebSocket; whatever comes asks for a snapshot."""
    with _feed(request.state) as feed, request.state.board.watched(feed):
        await socket.accept()
        await _socket(request, socket, feed, lambda text: feed.resync())


async def search_events(request: Request) -> Response:
    """The answer to `query`, and what changes in it, as server-sent events."""
    given = request.query
    k = given.get("k", "8")
    question = Question(given.get("query", ""), int(k) if k.isascii() and k.isdecimal() and len(k) < 3 else 8)
    question.index = given.get("index")
    with ExitStack() as stack:
        feed = stack.enter_context(_feed(request.state))
        follower = Follower(request.state, feed)
        follower.ask(question)
        return _stream(_events(request, stack.pop_all(), feed, follower.run()))


async def search_socket(request: Request, socket: WebSocket) -> None:
    """Answers to the latest question that came over a WebSocket, and what changes in them."""
    with _feed(request.state) as feed:
        follower = Follower(request.state, feed)
        await socket.accept()
        await _socket(request, socket, feed, follower.hear, follower.run())


def _stream(pieces: AsyncIterator[bytes]) -> Response:
    return Response(pieces, content_type=EVENTS, headers=((b"x-accel-buffering", b"no"),))


ROUTES = (
    Route("GET", "/v1/live/status", status_events, api="live"),
    Route("WEBSOCKET", "/v1/live/status", status_socket, api="live"),
    Route("GET", "/v1/live/search", search_events, api="live"),
    Route("WEBSOCKET", "/v1/live/search", search_socket, api="live"),
)
