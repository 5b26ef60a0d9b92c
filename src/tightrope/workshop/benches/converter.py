"""The converter's process: it loads one engine's tools, and turns models into artefacts on request.

It speaks the bench's protocol with two more verbs. Whatever the tools print goes to standard error, and if they end
the process, hang or crash, only this process is lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tightrope.device.meter.protocol import Message, take
from tightrope.device.meter.verbs import Reply, Worker
from tightrope.device.meter.worker import main
from tightrope.errors import EngineError


def describe(request: Mapping[str, Any]) -> Message:
    """An engine by its name: its version, and whether it takes models of known families only.

    Both of its halves are imported, so that what is missing or broken is found before anything is asked of it.
    """
    from tightrope import plugins

    engine = take(request, "engine", str)
    converter, runtime = plugins.load("converters", engine), plugins.load("runtimes", engine)
    return {"version": str(runtime.version()), "networks_only": hasattr(converter, "TAKES")}


def convert(request: Mapping[str, Any]) -> Message:
    """The parcel at `model` in one engine's form: the files lie in `folder` then, and the answer says what they are."""
    from tightrope.workshop import converted, parcel

    engine = take(request, "engine", str)
    made = converted.convert(parcel.read(Path(take(request, "model", str))), engine)
    if not isinstance(made, converted.Converted) or not any(data for _, data in made.files.values()):
        raise EngineError(f"The converter of {engine} gave no output.", hint="See what it says on standard error.")
    folder = Path(take(request, "folder", str))
    for role, (_, data) in made.files.items():
        (folder / role).write_bytes(data)
    return {
        "engine": made.engine,
        "engine_version": made.engine_version,
        "precision": made.precision,
        "files": {role: suffix for role, (suffix, _) in made.files.items()},
        "inputs": [asdict(port) for port in made.inputs],
        "outputs": [asdict(port) for port in made.outputs],
        "settings": dict(made.settings),
        "requires": asdict(made.requires),
        "floats": dict(made.floats),
        "approximations": dict(made.approximations),
        "tokenizer": made.tokenizer,
    }


VERBS: dict[str, Callable[[Mapping[str, Any]], Message]] = {"describe": describe, "convert": convert}


class Converting(Worker):
    """A worker that also knows the verbs of this process."""

    def answer(self, request: Mapping[str, Any], payload: bytes) -> Reply:
        """Do what one request asks. Raises whatever goes wrong."""
        verb = VERBS.get(take(request, "verb", str))
        return (verb(request), b"") if verb else super().answer(request, payload)


if __name__ == "__main__":
    raise SystemExit(main(Converting()))
