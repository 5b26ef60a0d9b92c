"""Spans, held against the specification of W3C Trace Context and against OTLP's own protobuf definitions."""

import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve import traces

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


def answer(**changed: Any) -> SimpleNamespace:
    """What a model gave."""
    given: dict[str, Any] = {"queued_s": 0.0, "computed_s": 0.0, "batch_texts": 3, "tokens": 12} | changed
    return SimpleNamespace(name="tiny", version="1", answer=SimpleNamespace(rows=np.zeros((2, 4), np.float32), **given))


def test_a_parent_is_read() -> None:
    found = traces.parent([(b"host", b"x"), (b"traceparent", GOOD), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    assert found == traces.Parent(TRACE, SPAN, sampled=True, state="a=1,b=2")
    found = traces.parent([(b"traceparent", GOOD[:-1] + b"2")])
    assert found is not None and not found.sampled
    later = traces.parent([(b"traceparent", b"cc" + GOOD[2:] + b"-what-comes-later")])
    assert later is not None and later.trace_id == TRACE


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"ff" + GOOD[2:],
        GOOD.upper(),
        GOOD + b"-more",
        GOOD + b"x",
        GOOD[:-1],
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        GOOD.replace(b"-", b"_"),
        b"\xff" * 55,
    ],
)
def test_what_is_no_parent_begins_a_trace_of_its_own(wrong: bytes) -> None:
    assert traces.parent([(b"traceparent", wrong)]) is None


def test_two_parents_are_none_and_an_odd_state_is_left_out() -> None:
    assert traces.parent([(b"traceparent", GOOD), (b"traceparent", GOOD)]) is None
    for odd in (b"a=\xff", b"a=" + b"1" * 600, b"a=\x01"):
        found = traces.parent([(b"traceparent", GOOD), (b"tracestate", odd)])
        assert found is not None and found.state == ""


@given(st.binary(max_size=80))
def test_no_header_is_an_error(value: bytes) -> None:
    traces.parent([(b"traceparent", value), (b"tracestate", value)])


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1) | st.floats(-1, 1)))
def test_attributes_are_otlps(attributes: dict[str, Any]) -> None:
    for pair in traces.pairs(attributes):
        [(kind, value)] = pair["value"].items()
        assert {"stringValue": str, "intValue": int, "doubleValue": float}[kind](value) == attributes[pair["key"]]


def test_a_span_of_a_request_has_its_queue_and_its_inference_below() -> None:
    draw = random.Random(1)
    span = traces.Span(traces.parent([(b"traceparent", GOOD), (b"tracestate", b"a=1")]), draw)
    span.answered(answer(queued_s=0.0, computed_s=1e-6))
    span.end("POST", "/v1/embeddings", 200)
    own, queue, inference = span.told(draw)
    assert {each["traceId"] for each in (own, queue, inference)} == {TRACE}
    assert own["parentSpanId"] == SPAN and own["traceState"] == "a=1"
    assert queue["parentSpanId"] == inference["parentSpanId"] == own["spanId"]
    assert len({each["spanId"] for each in (own, queue, inference)}) == 3
    assert (own["name"], queue["name"], inference["name"]) == ("POST /v1/embeddings", "queue", "inference")
    times = [int(each[name]) for each in (own, queue, inference) for name in ("startTimeUnixNano", "endTimeUnixNano")]
    assert times[0] <= times[2] <= times[3] == times[4] <= times[5] <= times[1]
    assert len(span) == 3


def test_what_cannot_have_been_is_not_said() -> None:
    """Times of a clock that jumped, or a batch longer than the request: nothing begins before the request does."""
    draw = random.Random(1)
    span = traces.Span(None, draw)
    span.answered(answer(queued_s=900.0, computed_s=900.0))
    span.end("POST", "/embed", 200)
    own, *below = span.told(draw)
    assert "parentSpanId" not in own
    for each in below:
        assert int(own["startTimeUnixNano"]) <= int(each["startTimeUnixNano"]) <= int(each["endTimeUnixNano"])
        assert int(each["endTimeUnixNano"]) <= int(own["endTimeUnixNano"])


def test_what_was_remembered_was_not_computed() -> None:
    span = traces.Span(None, random.Random(1))
    span.answered(answer(batch_texts=0))
    assert [part[0] for part in span.parts] == ["queue"]


def test_failures_and_odd_methods_are_told_as_the_conventions_say() -> None:
    draw = random.Random(1)
    span = traces.Span(None, draw)
    span.end("BREW" * 20, None, 503)
    [own] = span.told(draw)
    assert own["name"] == "_OTHER" and own["status"] == {"code": traces.ERROR}
    assert {"key": "error.type", "value": {"stringValue": "503"}} in own["attributes"]
    json.dumps(own)
