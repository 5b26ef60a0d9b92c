"""Bytes to requests: in whatever pieces they come, and what is refused because two readers could see two things."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve.http.reader import End, Flaw, Head, Reader

LIMIT = 4096
HOST = b"Host: localhost\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /b?c=d HTTP/1.1\r\n" + HOST + b"\r\n"


def read(*pieces):
    reader = Reader(LIMIT)
    for piece in pieces:
        reader.feed(memoryview(piece))
    return reader


def seen(reader):
    """The events, with the pieces of a body put together."""
    found = []
    for event in reader.events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


def test_a_request_is_a_head_a_body_and_an_end():
    head, body, end = seen(read(POST + b"Content-Length: 5\r\nX-A:  b \t\r\n\r\nhello"))
    assert head == Head(
        "POST", b"/a", "1.1", [(b"host", b"localhost"), (b"content-length", b"5"), (b"x-a", b"b")], True
    )
    assert (body, end) == (b"hello", End())


STREAMS = (
    POST + b"Content-Length: 5\r\n\r\nhello" + GET + GET,
    CHUNKED + b"5;x=y\r\nhello\r\n3\r\n, w\r\n0\r\nX-Trailer: no\r\n\r\n" + GET,
    b"\r\n" + GET + b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET,
    POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok" + GET,
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n\x81\x00 frames" + GET,
    GET + b"GET /c HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + GET,
    CHUNKED + b"5\r\nhelloX",
)


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 300), max_size=12))
def test_the_pieces_that_bytes_come_in_do_not_matter(stream, cuts):
    whole = read(stream)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = read(*(stream[a:b] for a, b in pairwise(places)))
    assert seen(pieces) == seen(whole)
    assert pieces.early == whole.early


def test_what_follows_a_request_for_a_websocket_is_kept_and_no_http():
    reader = read(STREAMS[5])
    assert [type(event) for event in reader.events] == [Head, End] and reader.events[0].websocket
    assert bytes(reader.early) == b"\x81\x00 frames" + GET


def test_another_protocol_is_not_gone_over_to():
    for stream in STREAMS[3:5]:
        reader = read(stream)
        heads = [event for event in reader.events if isinstance(event, Head)]
        assert [head.websocket for head in heads] == [False, False] and heads[1].target == b"/b?c=d"


def test_trailers_never_become_headers_of_the_next_request():
    heads = [event for event in read(STREAMS[1]).events if isinstance(event, Head)]
    assert heads[1].headers == [(b"host", b"localhost")]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
        (POST + b"Content-Length: +5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"A : b\r\n\r\n", 400),
        (POST + b"A: b\r\n c\r\n\r\n", 400),
        (POST + b"A: b\rc\r\n\r\n", 400),
        (POST + b"A: b\0c\r\n\r\n", 400),
        (POST + b"A: b\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n", 400),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"FETCH / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * LIMIT + b"\r\n\r\n", 431),
    ],
)
def test_what_is_unclear_is_refused(raw, status):
    flaws = [event for event in read(raw + GET).events if isinstance(event, Flaw)]
    assert [flaw.status for flaw in flaws] == [status]
    assert not any(isinstance(event, Head) and event.target == b"/b?c=d" for event in read(raw + GET).events)


@pytest.mark.parametrize(
    "endless",
    [b"x" * 50, b"5\nX", b"5\r\nhelloX0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello", b"f" * 17 + b"\r\n"],
)
def test_chunks_are_read_to_the_letter(endless):
    assert read(CHUNKED + endless).events[-1].status == 400


@pytest.mark.parametrize("piece", [b"y" * 64, b"X: y\r\n" * 10, b"\r\n" * 30])
@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX: ", CHUNKED + b"0\r\nX: ", CHUNKED + b"5;ext="])
def test_what_never_amounts_to_anything_ends(start, piece):
    reader = Reader(LIMIT)
    reader.feed(memoryview(start))
    for _ in range(2 * LIMIT // len(piece)):
        reader.feed(memoryview(piece))
    assert isinstance(reader.events[-1], Flaw) or reader.events[-1] == End()
    assert len(reader.events) < 2 * LIMIT // 64


def test_a_reader_that_was_closed_lets_go():
    reader = read(GET)
    reader.close()
    reader.feed(memoryview(GET))
    assert len(reader.events) == 2
