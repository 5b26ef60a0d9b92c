"""What a request did and when, as spans: read from W3C Trace Context, written as OpenTelemetry's OTLP in JSON.

A request is a span of its own, under that of who asked if the request says so (`traceparent`); its wait in the queue
and the batches that it was in are spans below it. Nothing of what was asked is in them: no text, no key, no address,
and of a path only the route.

The SDK of OpenTelemetry would do the same for 13 MB more (decision 1).
"""

import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Headers = Iterable[tuple[bytes, bytes]]
Value = str | int | float

TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
TRACESTATE_CHARACTERS = 512
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"))
INTERNAL, SERVER = 1, 2
"""Kinds of spans, as OTLP numbers them."""
ERROR = 2


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that a request belongs to; `sampled` says whether anybody keeps it."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""


def parent(headers: Headers) -> Parent | None:
    """Who asked, as `traceparent` tells (W3C Trace Context, 3.2). `None` if it is not there, twice, or cannot be read.

    >>> parent([(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    Parent(trace_id='0af7651916cd43dd8448eb211c80319c', span_id='b7ad6b7169203331', sampled=True, state='')
    """
    given = [value for name, value in headers if name == b"traceparent"]
    found = TRACEPARENT.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None or (found[1] == b"00" and found[5]):  # only later versions may say more
        return None
    said = ",".join(value.decode("ascii", "replace") for name, value in headers if name == b"tracestate")
    state = said if len(said) <= TRACESTATE_CHARACTERS and said.isascii() and said.isprintable() else ""
    return Parent(found[2].decode(), found[3].decode(), bool(int(found[4], 16) & 1), state)


class Span:
    """A request while it is answered, and afterwards what is to be told of it."""

    __slots__ = ("_begun_ns", "_start_s", "above", "attributes", "id", "name", "parts", "seconds", "status", "trace_id")

    def __init__(self, above: Parent | None, draw: random.Random) -> None:
        self.above = above
        self.trace_id = above.trace_id if above is not None else f"{draw.getrandbits(128) or 1:032x}"
        self.id = f"{draw.getrandbits(64) or 1:016x}"
        self.name = ""
        self.status = 0
        self.seconds = 0.0
        self.attributes: dict[str, Value] = {}
        self.parts: list[tuple[str, float, float, dict[str, Value]]] = []
        """Name, start and length in seconds, attributes of what happened within."""
        self._begun_ns = time.time_ns()
        self._start_s = time.perf_counter()

    def answered(self, served: Any) -> None:
        """A model gave an answer just now (`answering.Served`). Where the queue ended is reckoned back from here."""
        answer = served.answer
        now = time.perf_counter() - self._start_s
        begun = max(0.0, now - answer.computed_s)
        waited = min(begun, answer.queued_s)
        model: dict[str, Value] = {"tightrope.model": served.name, "tightrope.version": served.version}
        batch: dict[str, Value] = {"tightrope.batch_texts": answer.batch_texts, "tightrope.tokens": answer.tokens}
        self.attributes |= model | {"tightrope.texts": len(answer.rows)}
        self.parts.append(("queue", begun - waited, waited, {}))
        if answer.batch_texts:  # nothing was computed where everything was remembered
            self.parts.append(("inference", begun, now - begun, model | batch))

    def end(self, method: str, route: str | None, status: int) -> None:
        """The answer is out. `route` is the path with its segments in braces: no key of a document is in it."""
        self.seconds = time.perf_counter() - self._start_s
        known = method if method in METHODS else "_OTHER"
        self.name = f"{known} {route}" if route else known
        self.status = status
        self.attributes |= {"http.request.method": known, "http.response.status_code": status}
        self.attributes |= {"http.route": route} if route else {}
        self.attributes |= {"error.type": str(status)} if status >= 500 else {}

    def __len__(self) -> int:
        return 1 + len(self.parts)

    def told(self, draw: random.Random) -> list[dict[str, Any]]:
        """This span and those below it, as OTLP has them in JSON."""
        own = {
            **self._shared(self.id, self.name, 0.0, self.seconds, self.attributes),
            "kind": SERVER,
            "status": {"code": ERROR} if self.status >= 500 else {},
            **({"parentSpanId": self.above.span_id} if self.above is not None else {}),
        }
        below = [
            {
                **self._shared(f"{draw.getrandbits(64) or 1:016x}", name, start, seconds, attributes),
                "kind": INTERNAL,
                "parentSpanId": self.id,
            }
            for name, start, seconds, attributes in self.parts
        ]
        return [own, *below]

    def _shared(
        self, span_id: str, name: str, start_s: float, seconds: float, attributes: dict[str, Value]
    ) -> dict[str, Any]:
        start_ns = self._begun_ns + round(start_s * 1e9)
        state = {"traceState": self.above.state} if self.above is not None and self.above.state else {}
        return {
            "traceId": self.trace_id,
            "spanId": span_id,
            "name": name,
            "startTimeUnixNano": str(start_ns),
            "endTimeUnixNano": str(start_ns + round(seconds * 1e9)),
            "attributes": pairs(attributes),
            **state,
        }


def request(spans: Sequence[Span], resource: dict[str, Value], version: str, draw: random.Random) -> dict[str, Any]:
    """An ExportTraceServiceRequest of OTLP 1.x."""
    listed = [one for span in spans for one in span.told(draw)]
    scope = {"scope": {"name": "tightrope", "version": version}, "spans": listed}
    return {"resourceSpans": [{"resource": {"attributes": pairs(resource)}, "scopeSpans": [scope]}]}


def pairs(attributes: dict[str, Value]) -> list[dict[str, Any]]:
    """Attributes as OTLP has them: 64-bit integers are texts in JSON.

    >>> pairs({"http.response.status_code": 200})
    [{'key': 'http.response.status_code', 'value': {'intValue': '200'}}]
    """
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
