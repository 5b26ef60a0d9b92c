"""The Open Inference Protocol, version 2, with its extension for binary tensors, as Triton's clients speak it.

An embedder takes `text` (BYTES [n]) and gives `embedding` (FP32 [n, width]); a model that scores takes `text`
(BYTES [n, 2]) and gives `scores` (FP32 [n, labels]). Parameters: `prompt`, `normalize`, and `timeout` in microseconds.
"""

import asyncio
from typing import Any, Literal

import msgspec

from tightrope.device.model import Floats
from tightrope.device.serve.catalogue import ModelState, Served
from tightrope.device.serve.http import body, tensors, vectors
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import AT_ONCE_BYTES, Request, Response, Route, json

JSON_LENGTH = "inference-header-content-length"
"""Of how many bytes the JSON before the binary tensors is."""
ANSWERING = ("current", "idle", "canary", "shadow", "retired", "loading", "warming")
"""States of versions that answer who asks for them."""
_END = b"}]}"
"""What follows the last field of the only output: its data is put before it."""
_KNOWN = ("binary_data_output", "prompt", "normalize", "timeout")

Parameters = dict[str, bool | int | float | str]


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor that comes: its data as JSON here, or after the JSON in as many bytes as its parameters say."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """An output that is asked for, binary if its parameter `binary_data` is true."""

    name: str
    parameters: Parameters = {}


class Infer(msgspec.Struct, forbid_unknown_fields=True):
    """The body of infer."""

    inputs: list[Input]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[Wanted] = []


class Output(msgspec.Struct, omit_defaults=True):
    """A tensor that goes out."""

    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    parameters: dict[str, int] = {}
    data: list[float] | None = None


class Inferred(msgspec.Struct):
    """The answer of infer."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Output]


class Tensor(msgspec.Struct):
    """What a tensor looks like; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model: its versions and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ServerMetadata(msgspec.Struct):
    """The server, and what it can do beyond the protocol."""

    name: str
    version: str
    extensions: list[str]


class Ready(msgspec.Struct, omit_defaults=True):
    """Whether a model answers."""

    ready: bool
    name: str = ""


class Live(msgspec.Struct):
    """Whether the server lives."""

    live: bool


# About ----------------------------------------------------------------------------------------------------


async def server(request: Request) -> Response:
    """What the server is."""
    return json(ServerMetadata("tightrope", request.state.version, ["binary_tensor_data"]))


async def live(request: Request) -> Response:
    """The server lives."""
    return json(Live(live=True))


async def ready(request: Request) -> Response:
    """Whether models answer rightly: really asked, remembered for a second."""
    found = await request.thread(request.state.catalogue.ready)
    if not found.ready:
        raise Failure("unavailable", found.reason or "The server is not ready.", retry_after_s=1.0)
    return json(Ready(ready=True))


async def metadata(request: Request) -> Response:
    """A model, its versions and tensors."""
    about = await _about(request)
    taken, given = _tensors(about)
    assert about.source is not None
    engine = about.source.content.models[0].artefacts[0].engine
    versions = [item.version for item in about.versions if item.state in ANSWERING]
    return json(ModelMetadata(about.name, versions, f"tightrope_{engine}", [taken], [given]))


async def model_ready(request: Request) -> Response:
    """Whether a model, or one version of it, answers."""
    about = await _about(request)
    return json(Ready(ready=True, name=about.name))


async def _about(request: Request) -> ModelState:
    """The model that is meant. Raises `RefusedError` or `Failure` if it, or its version, does not answer."""
    about = await request.thread(request.state.catalogue.about, request.params["model"])
    version = request.params.get("version")
    states = {item.version: item.state for item in about.versions}
    if version is not None and version not in states:
        there = ", ".join(states)
        raise Failure("unknown_model", f"There is no version {version!a:.60} of {about.name}. There is: {there}.")
    state = states.get(version or about.current or "", "missing")
    if state not in ANSWERING or about.source is None:
        raise Failure("unavailable", f"{about.name} is {state}.", retry_after_s=1.0)
    return about


def _tensors(about: ModelState) -> tuple[Tensor, Tensor]:
    """What goes in and what comes out."""
    assert about.source is not None
    task = about.source.content.task
    if task["name"] == "scoring":
        return Tensor("text", "BYTES", [-1, 2]), Tensor("scores", "FP32", [-1, task["width"]])
    return Tensor("text", "BYTES", [-1]), Tensor("embedding", "FP32", [-1, task["width"]])


# Inference ------------------------------------------------------------------------------------------------


async def infer(request: Request) -> Response:
    """What a model makes of texts, or of pairs of them."""
    asked, binary = await _read(request)
    about = await _about(request)
    taken, given = _tensors(about)
    options = _options(asked)
    whole = _whole(asked, given)
    inputs = tensors.texts(_only(asked, taken), binary, pairs=len(taken.shape) == 2)
    version = request.params.get("version")
    model = about.name if version is None else f"{about.name}@{version}"
    try:
        async with asyncio.timeout(options.pop("seconds", None)):
            served = await vectors.ask(request, model, inputs, **options)
    except TimeoutError as error:
        raise Failure("deadline", "There was no answer within the request's timeout.") from error
    return _answer(served, asked, given, whole)


async def _read(request: Request) -> tuple[Infer, bytes]:
    """The request, and the binary tensors after it."""
    data, depth = await request.body(), request.state.limits.json_depth
    told = request.header(JSON_LENGTH)
    length = len(data)
    if told is not None:
        if not (told.isascii() and told.isdecimal() and len(told) < 12 and int(told) <= length):
            raise Failure("malformed", f"Inference-Header-Content-Length is {told!a:.40}; the body has {length} bytes.")
        length = int(told)
    head = data[:length]
    if length > AT_ONCE_BYTES:
        return await request.thread(lambda: body.decode(head, Infer, depth=depth)), data[length:]
    return body.decode(head, Infer, depth=depth), data[length:]


def _options(asked: Infer) -> dict[str, Any]:
    """What the parameters say. Raises `Failure` for those that are not known here."""
    given = asked.parameters
    if unknown := [name for name in given if name not in _KNOWN]:
        raise Failure("unsupported", f"There is no parameter {unknown[0]!a:.60}. There is: {', '.join(_KNOWN)}.")
    prompt, normalize, timeout = given.get("prompt"), given.get("normalize", True), given.get("timeout")
    wrong = {
        "prompt": prompt is not None and not isinstance(prompt, str),
        "normalize": not isinstance(normalize, bool),
        "timeout": timeout is not None and (isinstance(timeout, bool | str) or not 0 <= timeout < 1e12),
        "binary_data_output": not isinstance(given.get("binary_data_output", False), bool),
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise Failure("invalid", f"The parameter {name} cannot be {given[name]!a:.60}.", param=name)
    options: dict[str, Any] = {"prompt": prompt, "normalize": normalize}
    return options | ({"seconds": timeout / 1e6} if isinstance(timeout, int | float) and timeout else {})


def _whole(asked: Infer, given: Tensor) -> bool:
    """Whether the output goes out as bytes. Raises `Failure` for outputs that there are not."""
    binary = asked.parameters.get("binary_data_output", False)
    for output in asked.outputs:
        if output.name != given.name:
            raise Failure(
                "invalid", f"There is no output {output.name!a:.60}. There is: {given.name}.", param="outputs"
            )
        if set(output.parameters) - {"binary_data"}:
            raise Failure("unsupported", "An output's only parameter here is binary_data.", param="outputs")
        binary = output.parameters.get("binary_data", binary)
    return bool(binary)


def _only(asked: Infer, taken: Tensor) -> Input:
    """The one input. Raises `Failure` (invalid) if it is another."""
    names = [item.name for item in asked.inputs]
    if names != [taken.name]:
        listed = ", ".join(names)
        raise Failure("invalid", f"The inputs are {listed!a:.60}. The model takes one: {taken.name}.", param="inputs")
    found = asked.inputs[0]
    if found.datatype != taken.datatype:
        detail = f"{found.name} is {found.datatype!a:.20}; the model takes {taken.datatype}."
        raise Failure("invalid", detail, param="inputs")
    return found


def _answer(served: Served, asked: Infer, given: Tensor, binary: bool) -> Response:
    rows = served.answer.rows
    output = Output(given.name, "FP32", list(rows.shape))
    found = Inferred(served.name, served.version, asked.id, [output])
    if not binary:
        head = msgspec.json.encode(found).removesuffix(_END)
        return vectors.listed(head + b',"data":[', rows, _numbers, b"]" + _END, ())
    data = rows.astype("<f4", copy=False).tobytes()
    output.parameters = {"binary_data_size": len(data)}
    head = msgspec.json.encode(found)
    length = (JSON_LENGTH.encode(), str(len(head)).encode())
    return Response(head + data, content_type=b"application/octet-stream", headers=(length,))


def _numbers(_: int, row: Floats) -> bytes:
    return msgspec.json.encode(row.tolist())[1:-1]


_MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
ROUTES = (
    Route("GET", "/v2", server, api="v2"),
    Route("GET", "/v2/health/live", live, api="v2"),
    Route("GET", "/v2/health/ready", ready, api="v2"),
    *(Route("GET", path, metadata, api="v2") for path in _MODEL),
    *(Route("GET", f"{path}/ready", model_ready, api="v2") for path in _MODEL),
    *(Route("POST", f"{path}/infer", infer, api="v2") for path in _MODEL),
)
MESSAGES: dict[Any, tuple[Any, Any]] = {
    server: (None, ServerMetadata),
    live: (None, Live),
    ready: (None, Ready),
    metadata: (None, ModelMetadata),
    model_ready: (None, Ready),
    infer: (Infer, Inferred),
}
