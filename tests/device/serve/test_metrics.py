"""The exposition is read by Prometheus' own parser; every instrument is bounded; the dashboard's value is plain."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tightrope.device.serve.instruments import OTHER, RECENT, Counter, Gauge, Histogram, exposition, percentiles
from tightrope.device.serve.metrics import APIS, Metrics
from tightrope.errors import RefusedError


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name to labels to value, by the real parser; no series may come twice.

    The parser gives counters the ending that OpenMetrics wants; Prometheus itself keeps the names as they are.
    """
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in series
            series[labels] = sample.value
    return found


@pytest.fixture
def busy() -> Metrics:
    """Metrics of a server that answered a few requests."""
    metrics = Metrics()
    for seconds in (0.004, 0.006, 0.02):
        metrics.requests.add(api="openai", status=200)
        metrics.request_seconds.observe(seconds, api="openai")
    metrics.requests.add(api="tei", status=429)
    metrics.request_seconds.observe(0.0002, api="tei")
    metrics.requests.add(5, api="health", status=200)
    metrics.request_seconds.observe(0.0001, api="health")
    metrics.refused.add(reason="overloaded")
    metrics.batch_texts.observe(3)
    metrics.batch_tokens.observe(57)
    metrics.inference_seconds.observe(0.003)
    metrics.queue_seconds.observe(0.001)
    metrics.memory_bytes.set(23_000_000, owner="minilm@1")
    metrics.memory_budget_bytes.set(100_000_000)
    metrics.model_state.set(1, model="minilm", version="1", state="current")
    return metrics


def test_the_exposition_is_what_prometheus_reads(busy: Metrics) -> None:
    found = parsed(busy.text())
    assert found["tightrope_requests_total"][("api", "openai"), ("status", "200")] == 3
    assert found["tightrope_request_seconds_bucket"][("api", "openai"), ("le", "0.005")] == 1
    assert found["tightrope_request_seconds_bucket"][("api", "openai"), ("le", "+Inf")] == 3
    assert found["tightrope_request_seconds_sum"][(("api", "openai"),)] == pytest.approx(0.03)
    assert found["tightrope_memory_bytes"][(("owner", "minilm@1"),)] == 23_000_000
    assert found["tightrope_refused_total"] == {
        (("reason", reason),): float(reason == "overloaded") for reason in RefusedError.REFUSALS
    }
    assert found["process_resident_memory_bytes"][()] > 1_000_000


def test_familiar_names_count_the_same_work(busy: Metrics) -> None:
    found = parsed(busy.text())
    assert found["te_request_count_total"][()] == 4  # health checks are no work
    assert found["te_request_success_total"][()] == found["nv_inference_request_success_total"][()] == 3
    assert found["te_request_failure_total"][()] == 1
    assert found["te_queue_size"][()] == 0
    assert found["te_batch_next_size_sum"][()] == found["nv_inference_count_total"][()] == 3
    assert found["nv_inference_exec_count_total"][()] == 1
    assert found["gen_ai_server_request_duration_seconds_count"][()] == 4
    assert found["nv_inference_request_duration_us_total"][()] == 30_200


def test_no_series_is_a_flood_away(busy: Metrics) -> None:
    before = len(busy.text())
    for number in range(5000):
        busy.requests.add(api=f"api {number}", status=number)
        busy.memory_bytes.set(1, owner=f"owner {number}")
        busy.refused.add(reason=f"reason {number}")
        busy.model_state.set(1, model=f"m{number}", version="1", state="current")
    assert busy.requests.total() == 5009
    assert busy.refused.total(reason=OTHER) == 5000
    assert len(busy.memory_bytes.values()) <= 129
    assert {api for api, _ in busy.requests.values()} <= {*APIS}
    assert len(busy.text()) < before + 60_000


def test_what_is_gone_makes_room() -> None:
    gauge = Gauge("state", "…", "model", "state", known={"state": ("idle", "current")}, most=2)
    gauge.set(1, model="a", state="idle")
    gauge.set(1, model="b", state="idle")
    gauge.remove(model="a")
    gauge.set(1, model="c", state="current")
    assert gauge.values() == {("b", "idle"): 1, ("c", "current"): 1}


@given(st.text())
def test_any_word_is_a_label(word: str) -> None:
    gauge = Gauge("owner_bytes", "…", "owner")
    gauge.set(7, owner=word)
    lines = list(exposition(gauge))
    assert len("\n".join(lines).splitlines()) == 3
    [family] = text_string_to_metric_families("\n".join(lines) + "\n")
    assert [sample.value for sample in family.samples] == [7]
    assert lines[2].encode()
    gauge.remove(owner=word)
    assert not gauge.values()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_buckets_and_percentiles_hold_every_observation(seconds: list[float]) -> None:
    histogram = Histogram("seconds", "…", buckets=(0.1, 1.0, 10.0))
    for value in seconds:
        histogram.observe(value)
    found = parsed("\n".join(exposition(histogram)) + "\n")
    for bound in ("0.1", "1", "10"):
        assert found["seconds_bucket"][(("le", bound),)] == sum(value <= float(bound) for value in seconds)
    assert found["seconds_count"][()] == len(seconds)
    ordered = sorted(seconds)
    assert percentiles(seconds, 0.0, 0.5, 1.0) == [ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]]


def test_percentiles_are_of_the_last_observations() -> None:
    histogram = Histogram("seconds", "…", buckets=(1.0,))
    for _ in range(RECENT):
        histogram.observe(9.0)
    for _ in range(RECENT):
        histogram.observe(2.0)
    [spread] = histogram.values().values()
    assert percentiles(list(spread.recent), 0.01, 0.99) == [2.0, 2.0]
    assert spread.count == 2 * RECENT
    histogram.observe(1.0)
    histogram.observe(3.0)
    [spread] = histogram.values().values()
    assert (spread.last(3), spread.last(0)) == ([2.0, 1.0, 3.0], [])
    assert len(spread.last(10_000)) == RECENT


def test_threads_lose_no_count() -> None:
    counter = Counter("done_total", "…", "who")
    threads = [threading.Thread(target=lambda: [counter.add(who="all") for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.total() == 8000


def test_the_snapshot_is_plain_and_says_what_people_ask(busy: Metrics) -> None:
    busy.before_reading(lambda: busy.memory_bytes.set(1, owner="cache"))
    found = busy.snapshot()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["requests"]["work"] == 4
    assert found["requests"]["p99"] == 0.02
    assert found["requests"]["by_api"]["openai"] == {"total": 3, "failed": 0, "p50": 0.006, "p95": 0.02, "p99": 0.02}
    assert found["memory"]["owners"] == {"cache": 1, "minilm@1": 23_000_000}
    assert found["models"] == [{"model": "minilm", "version": "1", "state": "current"}]
    assert found["temperature_celsius"] is None
    assert found["batch_texts"]["buckets"][2] == [4.0, 1]


def test_an_unused_server_has_a_snapshot_too() -> None:
    found = Metrics().snapshot()
    assert found["requests"]["p50"] is None
    assert found["queue"]["requests"] == 0
    assert found["energy_joules"] == {}


def test_wrong_labels_are_our_own_mistake() -> None:
    metrics = Metrics()
    with pytest.raises(AssertionError, match="has the labels"):
        metrics.requests.add(api="openai")
    with pytest.raises(AssertionError, match="cannot shrink"):
        metrics.cancelled.add(-1)
