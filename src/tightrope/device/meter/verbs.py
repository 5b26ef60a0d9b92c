"""What a bench can ask of a worker: one method a verb, on at most one open bundle.

Until a bundle is opened, this loads the standard library only: what the bare interpreter needs is measured first, and
everything after is the bundle's. Nothing here judges; it does what it is asked, and tells.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from tightrope.device import machine
from tightrope.device.meter import memory, power, protocol
from tightrope.device.meter.clock import now, since_process_start
from tightrope.device.meter.protocol import Message, take
from tightrope.errors import BenchError

Reply = tuple[Message, bytes]

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
"""How the libraries beneath are told the number of threads; it counts only before they are loaded."""

MOST_REPEATS = 100_000
MOST_SECONDS = 3600.0


def _open_bundle(path: str, threads: int, engine: str | None) -> Any:
    from tightrope.device.classifier import open_any

    return open_any(path, threads=threads, engine=engine)


class Worker:
    """One bundle at a time. Each method that is a verb takes the request and its payload and returns the answer."""

    def __init__(self, opener: Callable[[str, int, str | None], Any] = _open_bundle, cache: Path | None = None) -> None:
        self._opener = opener
        self._cache = cache
        self._model: Any = None
        self._session: Any = None
        self._bare = memory.read()
        self._ready_s = time.monotonic()
        self._since_start_s = since_process_start()

    def answer(self, request: Mapping[str, Any], payload: bytes) -> Reply:
        """Do what one request asks. Raises whatever goes wrong."""
        verb = take(request, "verb", str)
        if verb not in VERBS:
            raise BenchError(f"There is no verb {verb!r:.40}.", hint=f"There is: {', '.join(sorted(VERBS))}.")
        return VERBS[verb](self, request, payload)

    def hello(self, _request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Who is here: versions, the machine, and when the worker was ready."""
        return {
            "tightrope_bench": protocol.VERSION,
            "tightrope": import_module("tightrope").__version__,
            "python": platform.python_version(),
            "machine": asdict(machine.this_machine()),
            "ready_monotonic_s": self._ready_s,
            "since_start_s": self._since_start_s,
        }, b""

    def find(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Whether a bundle lies here already: at the path where the bench has it, or because it was sent before."""
        from tightrope.bundle import MANIFEST, sha256_of

        path = Path(take(request, "path", str))
        try:
            if sha256_of(path / MANIFEST) == take(request, "manifest", str):
                return {"path": str(path)}, b""
        except (OSError, ValueError):
            pass  # not to be seen from here: the usual case of a bench elsewhere
        found = self._received().find(take(request, "digest", str))
        return {"path": str(found) if found else None}, b""

    def receive(self, request: Mapping[str, Any], payload: bytes) -> Reply:
        """Keep one piece of one file of a bundle."""
        from tightrope.bundle import File

        item = File(
            path=take(request, "name", str), size=take(request, "size", int), sha256=take(request, "sha256", str)
        )
        self._received().add(take(request, "digest", str), item, take(request, "offset", int), payload)
        return {}, b""

    def seal(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Check a bundle that was received and keep it."""
        return {"path": str(self._received().seal(take(request, "digest", str)))}, b""

    def open(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Pin, load the libraries, open the bundle; each part timed."""
        path, threads = take(request, "path", str), take(request, "threads", int)
        if threads < 1:
            raise BenchError(f"{threads} threads cannot run anything.", hint="Ask for one or more.")
        self._close()
        cores = _cores(request, threads)
        before, pinned = memory.read(), machine.pin(cores)
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
        started = now()
        import_module("tightrope.device.classifier")  # numpy and the tokenizers: part of what a cold start costs

        imported = now()
        self._model = self._opener(path, threads, take(request, "engine", str, None))
        opened = now()
        if pinned:
            pinned = machine.pin(cores)  # again: an engine's own threads may have chosen other cores
        content = self._model.bundle.content
        return {
            "engine": self._model.engine,
            "engine_version": _version(self._model.engine),
            "task": content.task["name"],
            "max_length": content.senses.get("max_length"),
            "digest": self._model.bundle.digest,
            "size_bytes": self._model.bundle.size_bytes,
            "import_s": imported - started,
            "open_s": opened - imported,
            "cores": list(cores) if pinned else None,
            "memory_before": asdict(before),
            "memory_after": asdict(memory.read()),
        }, b""

    def embed(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Vectors of texts, float32 little-endian, row by row; `prompt` names one of the model's prompts."""
        return self._rows(_inputs(request, "texts"), take(request, "prompt", str, None))

    def score(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Scores of pairs, float32 little-endian, row by row."""
        return self._rows(_inputs(request, "pairs"))

    def classify(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Logits of images, float32 little-endian, row by row."""
        return self._rows(_inputs(request, "images"))

    def executed(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """The share of multiply-adds by precision for one input, and each layer's, as the engine tells it, or null."""
        from tightrope import plugins

        model = self._opened()
        artefact = next(item for item in model.bundle.content.models[0].artefacts if item.engine == model.engine)
        files = {role: model.bundle.file(path) for role, path in artefact.files.items()}
        first = _inputs(request, "inputs")[0]
        if isinstance(first, bytes):
            feeds = model.feeds(first)
        else:
            met = first if isinstance(first, tuple) else _prompt(model) + first
            feeds = model.feeds(model.tokenizer.encode([met]))
        found = plugins.load("runtimes", model.engine).executed(files, artefact.settings, feeds)
        if found is None:
            return {"share": None, "layers": None}, b""
        return {"share": dict(found.share), "layers": dict(found.by_layer)}, b""

    def compose(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """An input of exactly so many tokens, made from the given texts; null if the model takes no such length.

        The model's default prompt, which `embed` and `time` put before a text, is counted and left out.
        """
        from tightrope.device.senses.text import of_length

        tokens = take(request, "tokens", int)
        if not 1 <= tokens <= 1_000_000:
            raise BenchError(f"A text of {tokens} tokens was asked for.", hint="Ask for 1 to 1,000,000.")
        texts = [str(text) for text in _inputs(request, "texts")]
        model = self._opened()
        pair = model.bundle.content.task["name"] == "scoring"
        found = of_length(model.tokenizer, texts, tokens, pair=pair, before=_prompt(model))
        return {"input": found}, b""

    def time(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Seconds of each call that answers the inputs, after warm-up calls that are not counted."""
        call = self._call(_inputs(request, "inputs"))
        repeats, warm_up = take(request, "repeats", int), take(request, "warm_up", int)
        if not (0 < repeats <= MOST_REPEATS and 0 <= warm_up <= MOST_REPEATS):
            raise BenchError(f"{repeats} calls after {warm_up} were asked for.", hint=f"At most {MOST_REPEATS:,}.")
        for _ in range(warm_up):
            call()
        return {"seconds": [_timed(call) for _ in range(repeats)]}, b""

    def throughput(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Seconds of each pass over the inputs, batched as the bundle says: as many passes as fit in `for_s`."""
        call = self._call(_inputs(request, "inputs"))
        end = now() + _seconds(request, "for_s")
        seconds = [_timed(call)]
        while now() + min(seconds) < end:
            seconds.append(_timed(call))
        return {"seconds": seconds}, b""

    def memory(self, _request: Mapping[str, Any], _payload: bytes) -> Reply:
        """The memory of this process, and what it was before anything was loaded."""
        return {"now": asdict(memory.read()), "bare": asdict(self._bare)}, b""

    def energy(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Joules of one call, where the machine can tell, else null."""
        call, limit_s = self._call(_inputs(request, "inputs")), _seconds(request, "for_s")
        meter = power.find()
        if meter is None:
            return {"joules": None, "calls": 0, "source": None}, b""
        joules, calls = power.joules_per_call(meter, call, limit_s)
        return {"joules": joules, "calls": calls, "source": meter.source}, b""

    def close(self, _request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Close the bundle."""
        self._close()
        return {}, b""

    def bye(self, _request: Mapping[str, Any], _payload: bytes) -> Reply:
        """The last answer."""
        self._close()
        return {"bye": True}, b""

    def load(self, request: Mapping[str, Any], _payload: bytes) -> Reply:
        """Open an artefact by its files, without a bundle, its tokenizer or its task; says what it takes and gives."""
        from tightrope.device.meter import sessions

        self._close()
        os.environ.update(dict.fromkeys(_THREADS, str(take(request, "threads", int))))
        self._session, told = sessions.load(request)
        return told, b""

    def run(self, request: Mapping[str, Any], payload: bytes) -> Reply:
        """The outputs of the session that `load` opened, as arrays; so are the feeds."""
        from tightrope.device.meter import arrays

        if self._session is None:
            raise BenchError("No artefact is open.", hint="Ask for load first.")
        described, data = arrays.pack(self._session.run(arrays.unpack(take(request, "arrays", list), payload)))
        return {"arrays": described}, data

    def _close(self) -> None:
        model, self._model = self._model, None
        session, self._session = self._session, None
        for opened in (model, session):
            if opened is not None:
                opened.close()

    def _opened(self) -> Any:
        if self._model is None:
            raise BenchError("No bundle is open.", hint="Ask for open first.")
        return self._model

    def _call(self, inputs: list[Any], prompt: str | None = None) -> Callable[[], Any]:
        """What answers the inputs. Pairs go to `score`, texts to `embed`; of images, brought to size before, logits."""
        model = self._opened()
        verb = "logits" if isinstance(inputs[0], bytes) else "score" if isinstance(inputs[0], tuple) else "embed"
        if not hasattr(model, verb):
            kind = next(kind for known, kind in _KINDS.items() if hasattr(model, known))
            raise BenchError(f"This bundle cannot {verb}.", hint=f"Give it {kind}.")
        if verb == "logits":
            inputs = [model.senses.sized(image) for image in inputs]
        function = getattr(model, verb)
        return lambda: function(inputs) if prompt is None else function(inputs, prompt=prompt)

    def _rows(self, inputs: list[Any], prompt: str | None = None) -> Reply:
        call = self._call(inputs, prompt)
        started = now()
        rows = call()
        seconds = now() - started
        shape = (rows.shape[0], int(rows.size // rows.shape[0]))
        data = rows.astype("<f4").tobytes()
        return {"seconds": seconds, "rows": shape[0], "columns": shape[1]}, data

    def _received(self) -> Any:
        from tightrope.device.meter.received import Received, cache_folder

        return Received(self._cache or cache_folder() / "bench")


VERBS: dict[str, Callable[[Worker, Mapping[str, Any], bytes], Reply]] = {
    "hello": Worker.hello,
    "find": Worker.find,
    "receive": Worker.receive,
    "seal": Worker.seal,
    "open": Worker.open,
    "embed": Worker.embed,
    "score": Worker.score,
    "classify": Worker.classify,
    "executed": Worker.executed,
    "compose": Worker.compose,
    "time": Worker.time,
    "throughput": Worker.throughput,
    "memory": Worker.memory,
    "energy": Worker.energy,
    "load": Worker.load,
    "run": Worker.run,
    "close": Worker.close,
    "bye": Worker.bye,
}


_KINDS = {"score": "pairs", "logits": "images", "embed": "texts"}
"""What each way of asking an open bundle takes."""


def _timed(call: Callable[[], Any]) -> float:
    started = now()
    call()
    return now() - started


def _prompt(model: Any) -> str:
    """The prompt that the open model puts before a text by itself; empty if it has none."""
    from tightrope.device.senses.text import prompt_text

    senses = model.bundle.content.senses
    return prompt_text(senses["prompts"], senses["default_prompt"])


def _version(engine: str) -> str:
    from tightrope import plugins

    return str(plugins.load("runtimes", engine).version())


def _cores(request: Mapping[str, Any], threads: int) -> tuple[int, ...]:
    """The cores that were asked for; `true` asks for as many quiet ones as there are threads, `null` for no pinning."""
    wanted = request.get("cores")
    if wanted is True:
        return machine.quietest_cores(threads)
    cores = take(request, "cores", list, None) or []
    if not all(type(core) is int and 0 <= core < 65536 for core in cores):
        raise BenchError(f"{cores!r:.60} are not numbers of cores.", hint="Count from 0.")
    return tuple(cores)


def _inputs(request: Mapping[str, Any], name: str) -> list[Any]:
    """Texts, pairs of texts as tuples, or images as bytes."""
    items = take(request, name, list)
    if not items:
        raise BenchError(f"There is nothing in {name!r}.", hint="Give one input at least.")
    return [_input(item) for item in items]


def _input(item: Any) -> Any:
    if isinstance(item, dict):
        return protocol.image(item)
    return tuple(item) if isinstance(item, list) else item


def _seconds(request: Mapping[str, Any], name: str) -> float:
    seconds = float(take(request, name, float))
    if not 0 <= seconds <= MOST_SECONDS:
        raise BenchError(f"{seconds} seconds were asked for.", hint=f"At most {MOST_SECONDS:g}.")
    return seconds
