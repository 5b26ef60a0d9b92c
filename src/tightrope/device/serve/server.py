"""A server around bundles: open, warm, ready, run, drain.

It puts the rooms together and owns what they share: the event loop's thread, the sockets, the order in which things
begin and end. Everything else lives in those rooms.
"""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from tightrope import bundle
from tightrope.device import machine
from tightrope.device.serve import adapt, logs
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.child import open_safely
from tightrope.device.serve.http import owner
from tightrope.device.serve.http.app import App
from tightrope.device.serve.http.board import Board, describe
from tightrope.device.serve.http.guard import Guard, allow_descriptors
from tightrope.device.serve.http.protocol import Connection
from tightrope.device.serve.http.routes import State
from tightrope.device.serve.http.sessions import Sessions
from tightrope.device.serve.keys import Keys
from tightrope.device.serve.ledger import Ledger, share_heap
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.loader import footprint_bytes
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.service import Service
from tightrope.errors import ServeError
from tightrope.manifest import MANIFEST
from tightrope.units import parse
from tightrope.version import __version__

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
BACKLOG = 1024
SENT_BYTES = 131_072
"""Of answers that nobody reads yet, for each connection in the system's memory, which would grow to megabytes."""
_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a server is asked to be. `path`: a bundle, or a folder of `NAME/VERSION.bundle`.

    `state`: the folder for what must outlast it; `None` keeps nothing. `admin`: the Unix socket of its owner.
    `otlp`: the address of a collector of traces; `otlp_share`: of how many requests.
    """

    path: Path
    memory_bytes: int | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    key_file: Path | None = None
    indexes: Mapping[str, Path] = field(default_factory=dict)
    threads: int | None = None
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    admin: Path | None = None
    state: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    otlp: str | None = None
    otlp_share: float = 1.0

    def __post_init__(self) -> None:
        if self.key_file is None and not _is_loopback(self.host):
            raise ServeError(
                f"Without keys nobody but this machine may ask; {self.host} is open to others.",
                hint="Give --key-file (tightrope key new NAME --key-file PATH), or leave out --host.",
            )
        if (self.certificate is None) != (self.private_key is None):
            raise ServeError("TLS needs a certificate and its key.", hint="Give both --tls-cert and --tls-key.")
        if not 0 <= self.otlp_share <= 1:
            raise ServeError(f"{self.otlp_share} is no share of the requests.", hint="Give 0 to 1, or 0% to 100%.")
        if not 0 <= self.port <= 65535:
            raise ServeError(f"There is no port {self.port}.", hint="Give 0 to 65535; 0 takes any free one.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Server:
    """A server in a thread of its own: `with Server(options) as server:`, or `run` in the main thread."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.url = ""
        self.app: App
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._hurried = False
        """Who stops it does not want to wait."""
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start; returns when requests are answered. Raises what kept the server from starting."""
        self._thread = threading.Thread(target=self._in_thread, name="tightrope server")
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        assert self._thread is not None
        self._thread.join()

    def stop(self) -> None:
        """Ask the server to finish what was begun and end. May be called from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._main(lambda server: None))
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()

    def run(self, ready: Callable[["Server"], None]) -> None:
        """Serve until SIGTERM or SIGINT; `ready` is called when requests are answered.

        A second signal does not wait for requests to finish; a third is the system's to answer.
        """
        share_heap()
        asyncio.run(self._main(ready, signals=True))

    async def _main(self, ready: Callable[["Server"], None], *, signals: bool = False) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_fault)
        for number in _ENDING if signals else ():
            self._loop.add_signal_handler(number, self._signalled)
        options = self.options
        with ExitStack() as held:
            found = await self._loop.run_in_executor(None, _assembled, options, held)
            self.app = App(found)
            async with AsyncExitStack() as listening:
                guard = Guard(self.app, options.limits, counted=found.metrics.connections.set)
                allow_descriptors(options.limits.connections + BACKLOG)  # so many may come in one turn of the loop
                self.url = await self._listen(guard, listening)
                if options.admin is not None:
                    await owner.listen(options.admin, found.catalogue, listening)
                board = asyncio.ensure_future(found.board.run())
                self._up.set()
                ready(self)
                try:
                    await self._stop.wait()
                    await guard.drain(lambda: self._hurried)
                finally:
                    board.cancel()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurried = True
            for number in _ENDING:
                self._loop.remove_signal_handler(number)
        self._stop.set()

    async def _listen(self, guard: Guard, listening: AsyncExitStack) -> str:
        """Open the port; the URL that it has."""
        options, context = self.options, None
        if options.certificate is not None:
            context = _tls(options)
        scheme = "https" if context else "http"
        try:
            server = await self._loop.create_server(
                lambda: Connection(guard, scheme=scheme), options.host.strip("[]"), options.port,
                backlog=BACKLOG, ssl=context,
            )  # fmt: skip
        except OSError as error:
            raise ServeError(
                f"Port {options.port} of {options.host} cannot be opened: {error.strerror or error}.",
                hint="Give another --port; 0 takes any free one.",
            ) from error
        listening.callback(server.close)
        for listener in server.sockets:  # what is accepted there inherits it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)
        port = server.sockets[0].getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host and "[" not in options.host else options.host
        return f"{scheme}://{host}:{port}"


def serve(path: Path | str, **options: Any) -> Server:
    """A server for a bundle, or for a folder of them, to use as a context manager.

        with tightrope.serve("minilm.bundle", memory="100MB") as server:
            print(server.url)

    `memory`: the budget of the whole process, in words or bytes. Everything else as in `Options`; paths may be texts.
    The port is any free one unless it is named.
    """
    memory = options.pop("memory", None)
    if memory is not None:
        try:
            options["memory_bytes"] = int(parse(memory, "bytes")) if isinstance(memory, str) else memory
        except ValueError as error:
            raise ServeError(f"memory is {memory!a:.40}: {error}.", hint='Write "100MB", or give bytes.') from error
    if (index := options.pop("index", None)) is not None:
        options["indexes"] = {Path(index).stem: Path(index)}
    for name in ("key_file", "admin", "state", "certificate", "private_key"):
        if options.get(name) is not None:
            options[name] = Path(options[name])
    return Server(Options(path=Path(path), **({"port": 0} | options)))


def _assembled(options: Options, held: ExitStack) -> State:
    """Open everything that answers, in the order in which it is needed; `held` closes it the other way round."""
    started = time.monotonic()
    metrics, limits = Metrics(), options.limits
    keys = Keys(options.key_file) if options.key_file is not None else None
    ledger = Ledger(options.memory_bytes)
    crew = _crew(options, ledger)
    service = held.enter_context(Service(ledger, metrics, limits, workers=crew.workers))
    opened = partial(open_safely, threads=crew.threads, ledger=ledger)
    catalogue = held.enter_context(
        Catalogue.open(options.path, service, ledger, metrics, limits, state=options.state, open_model=opened)
    )
    indexes = {}
    for name, path in options.indexes.items():
        from tightrope.device.serve.shelf import Shelf  # SQLite and what reads documents, for those who search

        indexes[name] = held.enter_context(Shelf(path, catalogue, ledger))
    found = State(
        catalogue=catalogue,
        service=service,
        ledger=ledger,
        metrics=metrics,
        limits=limits,
        keys=keys,
        sessions=Sessions(),
        board=Board(metrics, lambda: describe(found)),
        indexes=indexes,
        hosts=frozenset({*LOOPBACK, options.host.lower()}),
        version=__version__,
        started_s=started,
        reasons=crew.reasons,
        tracer=_tracer(options, metrics, ledger, held),
    )
    return found


def _tracer(options: Options, metrics: Metrics, ledger: Ledger, held: ExitStack) -> Any:
    """What brings spans to the collector, if there is one."""
    if options.otlp is None:
        return None
    from tightrope.device.serve import otlp  # an HTTP client, for those who ask for it

    def counted(fate: str, number: int) -> None:
        metrics.spans.add(number, fate=fate)

    tracer = otlp.Tracer(options.otlp, version=__version__, share=options.otlp_share, counted=counted)
    held.callback(ledger.reserve("traces", otlp.BYTES).release)
    return held.enter_context(tracer)


def _crew(options: Options, ledger: Ledger) -> adapt.Crew:
    """As many threads and workers as were asked for; else as a short measurement of the only bundle tells."""
    if options.threads is not None or options.workers is not None:
        return adapt.Crew(threads=options.threads or 1, workers=options.workers or 1, reasons=("as you said",))
    cores = len(machine.allowed_cores()) or os.cpu_count() or 1
    if not (options.path / MANIFEST).is_file():
        return adapt.Crew(threads=1, workers=cores, reasons=(f"many models: {cores} workers with one thread each",))
    source = bundle.read(options.path, verify=False)
    with ledger.reserve(
        f"model:{options.path.stem}", footprint_bytes(source)
    ):  # what is too large is refused before it is opened
        return adapt.crew(source, cores)


def _fault(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """What went wrong beside any request, descriptors that ran out above all, is an event like others."""
    error = type(context["exception"]).__name__ if context.get("exception") else ""
    logs.event("network.failed", level="error", detail=str(context.get("message", "")), error=error)


def _tls(options: Options) -> Any:
    import ssl  # 6 MB, for those who ask for it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        assert options.certificate is not None and options.private_key is not None
        context.load_cert_chain(options.certificate, options.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ServeError(
            f"{options.certificate} and {options.private_key} are no certificate and its key: {error}.",
            hint="Give both as PEM files.",
        ) from error
    return context
