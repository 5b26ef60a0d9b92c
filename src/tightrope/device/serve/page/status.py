"""What the dashboard shows, as one document of plain values, and the last minutes of it."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tightrope.device.meter import memory
from tightrope.device.serve.instruments import percentiles
from tightrope.device.serve.metrics import WORK, Metrics

PERIOD_S = 2.0
POINTS = 150
COLUMNS = ("rate", "refused", "p50", "p95", "p99", "queue", "memory")
Point = dict[str, Any]


class History:
    """One point every `PERIOD_S`, for five minutes. Points bear an `id`, so that a patch shifts them for little."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._points = deque((_point(str(place)) for place in range(-POINTS, 0)), maxlen=POINTS)
        self._answered: dict[str, int] = {}
        self._refused = 0.0
        self._number = 0

    def sample(self, elapsed_s: float) -> None:
        """Add a point for the `elapsed_s` since the last one."""
        answered, observed = self._new()
        refused = self._metrics.refused.total()
        self._points.append(
            _point(
                str(self._number),
                answered / elapsed_s,
                (refused - self._refused) / elapsed_s,
                *percentiles(observed, 0.5, 0.95, 0.99),
                self._metrics.queue_requests.value(),
                memory.read().resident_bytes,
            )
        )
        self._refused = refused
        self._number += 1

    def _new(self) -> tuple[int, list[float]]:
        """How many requests were answered since the last point, and their times: of each API the last ones."""
        answered, observed = 0, []
        for (api,), spread in self._metrics.request_seconds.values().items():
            if api in WORK:
                new = spread.count - self._answered.get(api, 0)
                self._answered[api] = spread.count
                answered += new
                observed += spread.last(new)
        return answered, observed

    @property
    def points(self) -> list[Point]:
        """The points, the oldest first."""
        return list(self._points)


def document(
    metrics: Metrics,
    history: History,
    *,
    server: Mapping[str, Any],
    models: Sequence[Mapping[str, Any]],
    indexes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The whole of it."""
    return {
        "server": {"period_s": PERIOD_S, **server},
        "metrics": metrics.snapshot(),
        "history": history.points,
        "models": list(models),
        "indexes": list(indexes),
    }


def _point(number: str, *values: float | None) -> Point:
    """A point; without values it says that nothing is known of that time."""
    padded = values or (None,) * len(COLUMNS)
    return {"id": number, **{name: _brief(value) for name, value in zip(COLUMNS, padded, strict=True)}}


def _brief(value: float | None) -> float | None:
    """Four digits: more would only make messages longer."""
    return None if value is None else float(f"{value:.4g}")
