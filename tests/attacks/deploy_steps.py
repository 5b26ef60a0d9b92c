"""Deploys again and again, each time in a child that is killed, or whose disk refuses, at another step; then looks.

    LD_PRELOAD=steps.so python deploy_steps.py FOLDER PLAN…

FOLDER holds `tiny.bundle` and `new.bundle`; a PLAN is SCENARIO:MODE:EVERY:OFFSET. Standard output has one JSON line a
run: what the child reported before its end, and what a fresh process finds afterwards, twice.
"""

import ctypes
import errno
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tightrope import bundle
from tightrope.device.serve import logs
from tightrope.device.serve.adapt import Choice
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.logs import Log
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.pace import Pace
from tightrope.device.serve.service import Service
from tightrope.errors import TightropeError

MODES = {"count": 0, "kill": 1, "torn": 2, "full": errno.ENOSPC, "readonly": errno.EROFS, "broken": errno.EIO}
SECONDS = 20
CHOICE = Choice(
    engine="native", batch_tokens=256, batch_texts=8, batch_bytes=0, parallel=True, pace=Pace(), tokens_per_s=1e5
)
"""How the model is run: measuring that takes a tenth of a second each time, and is not what is tried here."""

steps = ctypes.CDLL(None)
steps.steps_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int)
steps.steps_count.restype = ctypes.c_long


@contextmanager
def served(root: Path) -> Iterator[Catalogue]:
    ledger, metrics, limits = Ledger(None), Metrics(), Limits()
    with Service(ledger, metrics, limits, choose=lambda *_: CHOICE) as service:
        given = root / "tiny.bundle", service, ledger, metrics, limits
        with Catalogue.open(*given, state=root / "state") as catalogue:
            yield catalogue


def deployed(catalogue: Catalogue, root: Path) -> None:
    catalogue.deploy("tiny", root.parent / "new.bundle")


def tried_and_taken_back(catalogue: Catalogue, root: Path) -> None:
    catalogue.deploy("tiny", root.parent / "new.bundle", shadow=True)
    catalogue.rollback("tiny")


def gone_back(catalogue: Catalogue, root: Path) -> None:
    catalogue.deploy("tiny", root.parent / "new.bundle")
    catalogue.rollback("tiny")


SCENARIOS: dict[str, Callable[[Catalogue, Path], None]] = {
    "deploy": deployed,
    "trial": tried_and_taken_back,
    "back": gone_back,
}


def forked(act: Callable[[], Any]) -> tuple[int, Any]:
    """How a child ended that did this, and the JSON value that it gave."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            os.write(writer, json.dumps(act()).encode())
        except BaseException as error:
            os.write(writer, json.dumps({"crashed": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(said) if said else None


def attack(scenario: str, root: Path, step: int, mode: int) -> dict[str, Any]:
    """In the child: everything from the start of the server to its end, with one step that goes wrong."""
    steps.steps_arm(str(root).encode(), step, mode)
    said: dict[str, Any] = {"done": False}
    try:
        with served(root) as catalogue:
            try:
                SCENARIOS[scenario](catalogue, root)
                said["done"] = True
            except TightropeError as error:
                said["error"] = str(error)
            said["answers"] = len(catalogue.answer(None, ["the cat"]).result(SECONDS).answer.rows)
            said["digest"] = catalogue.about().digest
    except TightropeError as error:
        said["start"] = str(error)
    steps.steps_arm(str(root).encode(), -1, 0) if mode else None
    said["steps"] = steps.steps_count()
    return said


def look(root: Path) -> dict[str, Any]:
    """In a fresh child: does it open, to what, once a deployment that was cut short has gone on or not?"""
    with served(root) as catalogue:
        catalogue.answer(None, ["the cat"]).result(SECONDS)
        while any(item.state == "verifying" for item in catalogue.about().versions):
            time.sleep(0.002)
        store = catalogue._store
        known = {item.path for model in store.releases.models.values() for item in model.releases.values()}
        kept = {str(item) for item in (root / "state" / "models").glob("*/*")}
        return {
            "digest": catalogue.about().digest,
            "ready": catalogue.ready().ready,
            "damage": catalogue.damage,
            "rejected": sorted(store.releases.rejected),
            "left": sorted(kept - known),
            "torn": [item for item in sorted(kept) if not _whole(Path(item))],
        }


def _whole(path: Path) -> bool:
    try:
        bundle.read(path)
    except TightropeError:
        return False
    return True


def main() -> None:
    """Run the plans."""
    folder = Path(sys.argv[1])
    logs.write_to(Log(io.StringIO()))
    for plan in sys.argv[2:]:
        scenario, name, every, offset = plan.split(":")
        _, counted = run(folder, scenario, -1, 0)
        tell({"plan": plan, "steps": counted["steps"]})
        for step in range(int(offset), counted["steps"], int(every)):
            status, said = run(folder, scenario, step, MODES[name])
            found = [forked(lambda: look(folder / "root")) for _ in range(2)]
            tell({"scenario": scenario, "mode": name, "step": step, "status": status, "said": said, "found": found})


def tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def run(folder: Path, scenario: str, step: int, mode: int) -> tuple[int, Any]:
    """One run in a folder as it is before anything was served."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    shutil.copytree(folder / "tiny.bundle", root / "tiny.bundle")
    return forked(lambda: attack(scenario, root, step, mode))


if __name__ == "__main__":
    main()
