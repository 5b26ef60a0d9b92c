"""A bundle that is open in a worker of its own, ready to be timed."""

from typing import Any

from tightrope.bundle import Bundle
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.protocol import take


class Opened:
    """A worker with one open bundle, what it said about itself, and its timed calls. To be closed."""

    def __init__(self, source: Bundle, command: str | None, *, limit_s: float, threads: int, cores: Any) -> None:
        self.bench = Bench(command, limit_s=limit_s)
        try:
            wanted = {"path": self.bench.bring(source), "threads": threads, "cores": cores}
            self.facts = self.bench.request("open", wanted)[0]
            self.engine = str(take(self.facts, "engine", str))
            self.engine_version = str(take(self.facts, "engine_version", str))
            self.cores: tuple[int, ...] = tuple(take(self.facts, "cores", list, None) or ())
            self.start_s = self._start()
        except BaseException:
            self.close(gently=False)
            raise

    def close(self, *, gently: bool = True) -> None:
        """End the worker."""
        self.bench.close(gently=gently)

    def block(self, item: Any, repeats: int) -> list[float]:
        """Seconds of each of some calls in a row, after one that is not counted: the caches belong to the other."""
        return self.bench.seconds("time", [item], repeats=repeats, warm_up=1)

    def _start(self) -> float:
        """The process's own start, its imports and opening, without the time it waited for requests."""
        hello = self.bench.hello
        if self.bench.is_here:  # one machine, one monotonic clock
            start = take(hello, "ready_monotonic_s", float) - self.bench.spawned_s
        else:
            start = take(hello, "since_start_s", float)
        return float(start + take(self.facts, "import_s", float) + take(self.facts, "open_s", float))
