"""A session by itself, opened on request: no bundle, no tokenizer, no task around it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tightrope import plugins
from tightrope.device.meter.protocol import Message, take
from tightrope.device.session import Session
from tightrope.ports import Capabilities, Port


def wanted(engine: str, files: Mapping[str, Path], settings: Mapping[str, Any], threads: int) -> Message:
    """What `load` is asked."""
    paths = {role: str(path.resolve()) for role, path in files.items()}
    return {"engine": engine, "files": paths, "settings": dict(settings), "threads": threads}


def load(request: Mapping[str, Any]) -> tuple[Session, Message]:
    """Open what is `wanted`, and tell what it takes and gives. Raises as a runtime's `open_artefact` does."""
    files = {str(role): Path(str(path)) for role, path in take(request, "files", dict).items()}
    runtime = plugins.load("runtimes", take(request, "engine", str))
    session: Session = runtime.open_artefact(
        files, take(request, "settings", dict), threads=take(request, "threads", int)
    )
    told = {
        "inputs": [asdict(port) for port in session.inputs],
        "outputs": [asdict(port) for port in session.outputs],
        "capabilities": asdict(session.capabilities),
    }
    return session, told


def ports(told: Message, side: str) -> tuple[Port, ...]:
    """The inputs or outputs that `load` told."""
    return tuple(Port(str(item["name"]), str(item["dtype"]), tuple(item["shape"])) for item in take(told, side, list))


def capabilities(told: Message) -> Capabilities:
    """The capabilities that `load` told."""
    return Capabilities(**take(told, "capabilities", dict))
