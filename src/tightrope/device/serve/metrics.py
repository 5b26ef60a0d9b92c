"""What the server counts, in one place: for Prometheus as text, for the dashboard as a value.

Names that operators know from other servers (text-embeddings-inference, Triton, OpenTelemetry) stand beside ours and
show the same numbers, so that their dashboards and alerts work. No text, no key and no name of a client is a label.
"""

from collections.abc import Callable, Iterator
from typing import Any

from tightrope.device.meter import memory
from tightrope.device.serve.instruments import Counter, Gauge, Histogram, exposition, percentiles, single
from tightrope.errors import RefusedError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

APIS = ("openai", "tei", "v2", "native", "live", "health", "metrics", "page", "admin", "other")
"""Which part of the server a request asks. The first four are work; the rest is looking at it."""
WORK = APIS[:4]
STATES = ("loading", "verifying", "warming", "shadow", "canary", "current", "idle", "retired", "rolled_back", "failed")
FATES = ("sent", "dropped")
ROLLBACKS = ("agreement", "latency", "errors", "memory", "asked", "other")

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = tuple(float(2**power) for power in range(12))
TOKENS = tuple(float(2**power) for power in range(3, 18))


class Metrics:
    """The server's instruments. Safe for use from any thread; every one is bounded.

    >>> metrics = Metrics()
    >>> metrics.requests.add(api="openai", status=200)
    >>> metrics.requests.total(api="openai")
    1.0
    """

    def __init__(self) -> None:
        self._requests()
        self._work()
        self._state()
        self._before: list[Callable[[], None]] = []

    def _requests(self) -> None:
        apis = {"api": APIS}
        self.requests = Counter("tightrope_requests_total", "Requests answered.", "api", "status", known=apis, most=192)
        self.request_seconds = Histogram(
            "tightrope_request_seconds", "From a request's last byte to its answer.", "api", buckets=SECONDS, known=apis
        )
        self.refused = Counter(
            "tightrope_refused_total",
            "Requests that were not taken, or not finished.",
            "reason",
            known={"reason": RefusedError.REFUSALS},
        )
        self.deadline_missed = Counter("tightrope_deadline_missed_total", "Requests whose time ran out.")
        self.cancelled = Counter("tightrope_cancelled_total", "Requests that nobody waited for any more.")
        self.spans = Counter(
            "tightrope_spans_total", "Spans for the collector of traces.", "fate", known={"fate": FATES}
        )
        self.connections = Gauge("tightrope_connections", "Connections that are open.")

    def _work(self) -> None:
        self.queue_requests = Gauge("tightrope_queue_requests", "Requests that wait.")
        self.queue_tokens = Gauge("tightrope_queue_tokens", "Tokens of the requests that wait.")
        self.queue_seconds = Histogram(
            "tightrope_queue_seconds", "How long requests waited for their batch.", buckets=SECONDS
        )
        self.inference_seconds = Histogram("tightrope_inference_seconds", "How long batches took.", buckets=SECONDS)
        self.batch_texts = Histogram("tightrope_batch_texts", "Texts in a batch.", buckets=SIZES)
        self.batch_tokens = Histogram("tightrope_batch_tokens", "Tokens in a batch.", buckets=TOKENS)
        self.cache_hits = Counter("tightrope_cache_hits_total", "Texts whose answer was remembered.")
        self.cache_misses = Counter("tightrope_cache_misses_total", "Texts whose answer was not remembered.")

    def _state(self) -> None:
        self.memory_bytes = Gauge("tightrope_memory_bytes", "Memory that each owner has reserved.", "owner", most=128)
        self.memory_budget_bytes = Gauge("tightrope_memory_budget_bytes", "Memory that the server may use.")
        self.model_state = Gauge(
            "tightrope_model_state",
            "1 for the state that a version of a model is in.",
            *("model", "version", "state"),
            known={"state": STATES},
            most=256,
        )
        self.rollbacks = Counter(
            "tightrope_rollbacks_total", "Versions that were taken back.", "reason", known={"reason": ROLLBACKS}
        )
        self.temperature_celsius = Gauge("tightrope_temperature_celsius", "The processor's temperature.")
        self.energy_joules = Counter(
            "tightrope_energy_joules_total", "Energy that the source measured while the server ran.", "source", most=8
        )
        for gauge in (self.connections, self.queue_requests, self.queue_tokens):
            gauge.set(0)

    def before_reading(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` whenever somebody is about to look: for gauges that are dear to keep up to date."""
        self._before.append(refresh)

    def text(self) -> str:
        """Everything in Prometheus' text format (`CONTENT_TYPE`)."""
        self._refresh()
        lines: list[str] = []
        for instrument in vars(self).values():
            if isinstance(instrument, Counter | Gauge | Histogram):
                lines += exposition(instrument)
        lines += self._familiar()
        lines += _process()
        return "\n".join(lines) + "\n"

    def snapshot(self) -> dict[str, Any]:
        """The same for people: plain dictionaries, lists and numbers; `None` where nothing is known."""
        self._refresh()
        used = memory.read()
        return {
            "requests": self._request_figures(),
            "refused": _by_label(self.refused),
            "deadline_missed": self.deadline_missed.total(),
            "cancelled": self.cancelled.total(),
            "connections": self.connections.value(),
            "queue": {
                "requests": self.queue_requests.value(),
                "tokens": self.queue_tokens.value(),
                "seconds": _figures(self.queue_seconds),
            },
            "inference_seconds": _figures(self.inference_seconds),
            "batch_texts": {**_figures(self.batch_texts), "buckets": _buckets(self.batch_texts)},
            "batch_tokens": _figures(self.batch_tokens),
            "cache": {"hits": self.cache_hits.total(), "misses": self.cache_misses.total()},
            "memory": {
                "budget_bytes": self.memory_budget_bytes.value(),
                "resident_bytes": used.resident_bytes,
                "peak_bytes": used.peak_bytes,
                "owners": _by_label(self.memory_bytes),
            },
            "models": [
                {"model": model, "version": version, "state": state}
                for (model, version, state), value in sorted(self.model_state.values().items())
                if value
            ],
            "rollbacks": _by_label(self.rollbacks),
            "temperature_celsius": self.temperature_celsius.value(),
            "energy_joules": _by_label(self.energy_joules),
        }

    def _refresh(self) -> None:
        for refresh in self._before:
            refresh()

    def _request_figures(self) -> dict[str, Any]:
        spreads = {key[0]: spread for key, spread in self.request_seconds.values().items()}
        counts = self.requests.values()
        by_api = {}
        for api in APIS:
            total = sum(n for (name, _), n in counts.items() if name == api)
            if total:
                failed = sum(n for (name, status), n in counts.items() if name == api and status >= "5")
                recent = list(spreads[api].recent) if api in spreads else []
                by_api[api] = {"total": total, "failed": failed, **_shares(recent)}
        work = [value for api in WORK if api in spreads for value in spreads[api].recent]
        return {"total": sum(counts.values()), "work": self._work_total(), "by_api": by_api} | _shares(work)

    def _work_total(self, *, failed: bool | None = None) -> float:
        """Requests for work: all, those that failed for whatever reason, or those that did not."""
        return sum(
            n
            for (api, status), n in self.requests.values().items()
            if api in WORK and (failed is None or failed == (status >= "4"))
        )

    def _familiar(self) -> Iterator[str]:
        """The same numbers under the names of text-embeddings-inference, Triton and OpenTelemetry."""
        merged = self.request_seconds.merged(*((api,) for api in WORK))
        shown: tuple[tuple[str, Histogram | Gauge], ...] = (
            ("te_request_duration", merged),
            ("te_request_queue_duration", self.queue_seconds),
            ("te_request_inference_duration", self.inference_seconds),
            ("te_batch_next_size", self.batch_texts),
            ("te_batch_next_tokens", self.batch_tokens),
            ("te_queue_size", self.queue_requests),
            ("gen_ai_server_request_duration_seconds", merged),
        )
        for name, instrument in shown:
            yield from exposition(instrument, name)
        good, bad = self._work_total(failed=False), self._work_total(failed=True)
        for name, about, value in (
            ("te_request_count", "Requests for work.", good + bad),
            ("te_request_success", "Requests for work that were answered.", good),
            ("te_request_failure", "Requests for work that were not answered.", bad),
            ("nv_inference_request_success", "Requests for work that were answered.", good),
            ("nv_inference_request_failure", "Requests for work that were not answered.", bad),
            ("nv_inference_count", "Texts that models answered.", _sum(self.batch_texts)),
            ("nv_inference_exec_count", "Batches that models answered.", _count(self.batch_texts)),
            ("nv_inference_request_duration_us", "Time of requests for work.", round(1e6 * _sum(merged))),
            ("nv_inference_queue_duration_us", "Time that requests waited.", round(1e6 * _sum(self.queue_seconds))),
            ("nv_inference_compute_infer_duration_us", "Batches' time.", round(1e6 * _sum(self.inference_seconds))),
        ):
            yield from single(name, "counter", about, value)


def _process() -> Iterator[str]:
    used = memory.read()
    if used.resident_bytes is not None:
        yield from single("process_resident_memory_bytes", "gauge", "Resident memory.", used.resident_bytes)
    if used.peak_bytes is not None:
        yield from single("process_peak_memory_bytes", "gauge", "The most that was ever resident.", used.peak_bytes)


def _by_label(instrument: Counter | Gauge) -> dict[str, float]:
    return {key[0]: value for key, value in sorted(instrument.values().items())}


def _shares(observed: list[float]) -> dict[str, float | None]:
    return dict(zip(("p50", "p95", "p99"), percentiles(observed, 0.5, 0.95, 0.99), strict=True))


def _figures(histogram: Histogram) -> dict[str, float | None]:
    spread = histogram.values()[()]
    mean = spread.sum / spread.count if spread.count else None
    return {"count": spread.count, "mean": mean, **_shares(list(spread.recent))}


def _buckets(histogram: Histogram) -> list[list[float | None]]:
    """Pairs of a bucket's upper bound (`None` for the last) and how many fell into it."""
    counts = histogram.values()[()].counts
    return [[bound, count] for bound, count in zip((*histogram.buckets, None), counts, strict=True)]


def _sum(histogram: Histogram) -> float:
    return histogram.values()[()].sum


def _count(histogram: Histogram) -> int:
    return histogram.values()[()].count
