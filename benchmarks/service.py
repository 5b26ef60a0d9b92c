"""What the service itself costs and keeps, without HTTP: its share of a request, a burst, cut requests, unloading.

python -m benchmarks.service             # measure build/minilm.bundle, store, write the table of the guide's page
python -m benchmarks.service --write     # write the table anew from what is stored
python -m benchmarks.service --check     # fail if the page says anything else

The burst runs against a session that takes 50 ms a call, so that ten times its capacity can be asked for here.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import tightrope
from benchmarks.documents import RESULTS, ROOT, command, read_stored, store, update
from tightrope.device import machine
from tightrope.device.meter import memory
from tightrope.device.model import open_bundle
from tightrope.device.serve.ledger import Ledger, trim_heap
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.service import Service
from tightrope.errors import RefusedError
from tightrope.ports import Capabilities, Port
from tightrope.testing import FakeSession

STORED = RESULTS / "service.json"
PAGE = ROOT / "docs" / "guide" / "memory-and-load.md"
BUNDLE = ROOT / "build" / "minilm.bundle"
BEGIN, END = "<!-- service:begin -->", "<!-- service:end -->"
TEXT = "the quick brown fox jumps over the lazy dog"
CALL_S = 0.05
CYCLES = 1000
CUTS = 50


def serving(limits: Limits) -> Service:
    """A service with a budget that it does not reach."""
    return Service(Ledger(500_000_000), Metrics(), limits)


def spread(seconds: list[float]) -> dict[str, float]:
    """Percentiles of times."""
    p50, p95, p99 = (float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return {"n": len(seconds), "p50_s": p50, "p95_s": p95, "p99_s": p99}


# Overhead ---------------------------------------------------------------------------------------------------


def overhead() -> dict[str, Any]:
    """Time of a request outside the session and the queue, asked one after the other by so many clients of a loop."""
    found = {}
    with open_bundle(BUNDLE) as model, serving(Limits(cache_bytes=0)) as service:
        service.add("m", model)

        async def client(times: list[float], count: int) -> None:
            for _ in range(count):
                started = time.perf_counter()
                answer = await asyncio.wrap_future(service.submit("m", [TEXT]))
                times.append(time.perf_counter() - started - answer.computed_s - answer.queued_s * (clients > 1))

        async def together() -> list[float]:
            times: list[float] = []
            await asyncio.gather(*(client(times, 2000 // clients) for _ in range(clients)))
            return times

        for clients in (1, 2, 4, 16):
            asyncio.run(together())
            found[str(clients)] = spread(asyncio.run(together()))
    return found


# Burst ------------------------------------------------------------------------------------------------------


class SlowSession(FakeSession):
    """A session that takes its time, whatever it is asked."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Ones, after a while."""
        time.sleep(CALL_S)
        return {"embedding": np.ones((len(feeds["offsets"]) - 1, 384), np.float32)}


class SlowRuntime:
    """What opens such sessions."""

    def open_artefact(self, *_: object, **__: object) -> SlowSession:
        """A session without a file."""
        ports = (Port("input_ids", "int32", ("tokens",)), Port("offsets", "int64", ("texts",)))
        free = Capabilities(ragged=True, parallel=True, exact=True)
        return SlowSession(lambda feeds: {}, ports, (Port("embedding", "float32", ("texts", 384)),), capabilities=free)


def burst() -> dict[str, Any]:
    """Latency of those who are admitted at eight tenths of the capacity and at ten times of it, and of refusals."""
    limits = Limits(cache_bytes=0, batch_tokens=64, queue_s=1.6 * CALL_S)
    with open_bundle(BUNDLE, runtime=lambda _: SlowRuntime()) as model, serving(limits) as service:
        service.add("m", model)
        texts = 64 // len(model.encode([TEXT]).ids.values)
        capacity = texts / CALL_S
        usual = asyncio.run(_load(service, 0.8 * capacity, 5.0))
        crowded = asyncio.run(_load(service, 10 * capacity, 5.0))
        again = asyncio.run(_load(service, 0.8 * capacity, 2.0))
    return {"capacity_per_s": capacity, "queue_s": limits.queue_s, "usual": usual, "burst": crowded, "after": again}


async def _load(service: Service, rate: float, seconds: float) -> dict[str, Any]:
    """Requests at a rate that does not wait for answers."""
    admitted: list[float] = []
    refused: list[float] = []

    async def ask() -> None:
        started = time.perf_counter()
        try:
            future = service.submit("m", [TEXT])
        except RefusedError as error:
            assert error.retry_after_s
            refused.append(time.perf_counter() - started)
            return
        await asyncio.wrap_future(future)
        admitted.append(time.perf_counter() - started)

    tasks, began = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        if (early := began + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(ask()))
    await asyncio.gather(*tasks)
    return {"admitted": spread(admitted), "refused": spread(refused) if refused else None}


# Cut requests and unloading ---------------------------------------------------------------------------------


def cuts() -> dict[str, float]:
    """Seconds from the cancelling of a large request in the midst of its work until another is begun."""
    times = []
    with open_bundle(BUNDLE) as model, serving(Limits(cache_bytes=0)) as service:
        service.add("m", model)
        for _ in range(CUTS):
            large = service.submit("m", ["word " * 60] * 500)
            time.sleep(0.03)
            large.cancel()
            times.append(service.submit("m", [TEXT]).result().queued_s)
    return spread(times)


def cycles() -> dict[str, Any]:
    """Resident memory with the model served, and what a thousand times loading, asking and unloading leave behind."""
    with serving(Limits()) as service:

        def cycle() -> int:
            model = tightrope.open(BUNDLE, verify=False)
            service.add("m", model)
            for _ in range(3):
                service.submit("m", [TEXT] * 20 + ["word " * 250]).result()
            resident = memory.resident_bytes() or 0
            service.remove("m")
            model.close()
            return resident

        served = [cycle() for _ in range(20)][-1]
        trim_heap()
        before = memory.resident_bytes() or 0
        for _ in range(CYCLES):
            cycle()
        trim_heap()
        after = memory.resident_bytes() or 0
    return {"served_bytes": served, "before_bytes": before, "after_bytes": after, "cycles": CYCLES}


def measure() -> dict[str, Any]:
    """All of it, the memory first, since nothing else has been loaded then."""
    parts: dict[str, Callable[[], Any]] = {"cycles": cycles, "overhead": overhead, "burst": burst, "cuts": cuts}
    here = asdict(machine.this_machine())
    conditions = {"command": "python -m benchmarks.service", "machine": {**here, "isa": list(here["isa"])}}
    return {"conditions": conditions, **{name: part() for name, part in parts.items()}}


# The table --------------------------------------------------------------------------------------------------


def block(found: Mapping[str, Any]) -> str:
    """The page's table."""

    def ms(seconds: float) -> str:
        return f"{seconds * 1000:.2f} ms"

    one, four = found["overhead"]["1"], found["overhead"]["4"]
    usual, crowd = found["burst"]["usual"]["admitted"], found["burst"]["burst"]
    grown = (found["cycles"]["after_bytes"] - found["cycles"]["before_bytes"]) / 1e6
    rows = [
        ("outside the session, one client: p50, p99", f"{ms(one['p50_s'])}, {ms(one['p99_s'])}", one["n"]),
        ("the same, four clients of one loop", f"{ms(four['p50_s'])}, {ms(four['p99_s'])}", four["n"]),
        ("p99 of those admitted, usually", ms(usual["p99_s"]), usual["n"]),
        ("the same at ten times the capacity", ms(crowd["admitted"]["p99_s"]), crowd["admitted"]["n"]),
        ("p99 of a refusal then", ms(crowd["refused"]["p99_s"]), crowd["refused"]["n"]),
        ("from a cut request to the next: p99", ms(found["cuts"]["p99_s"]), found["cuts"]["n"]),
        ("growth after loading and unloading", f"{grown:.1f} MB", found["cycles"]["cycles"]),
    ]
    lines = [f"| {what} | {value} | {n:,} |" for what, value, n in rows]
    processor = found["conditions"]["machine"]["processor"]
    note = f"`{found['conditions']['command']}` on {processor}, {found['conditions']['machine']['cores']} cores."
    return "\n".join([BEGIN, "| what | measured | n |", "|---|---:|---:|", *lines, "", note, END])


def write(*, check: bool) -> bool:
    """Bring the page up to date; whether it was."""
    return update(PAGE, block(read_stored(STORED, "Run: python -m benchmarks.service")), check=check)


def main() -> int:
    """Measure and write; or only write, or only check."""
    return command("The table of docs/guide/memory-and-load.md", write, lambda: store(STORED, measure()))


if __name__ == "__main__":
    sys.exit(main())
