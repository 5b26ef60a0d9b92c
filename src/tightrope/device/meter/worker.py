"""The bench worker: a process that opens one bundle, answers with it and times it, on request.

It speaks the protocol of `protocol.py` on standard input and output, so that any command that reaches a machine can
be a bench. Whatever an engine prints goes to standard error.
"""

import os
import select
import signal
import sys
import threading
import time
from typing import IO

from tightrope.device.meter import protocol
from tightrope.device.meter.verbs import Worker
from tightrope.errors import BenchError

ORPHAN_S = 60.0
"""How long a request may still run after the bench has gone."""


def serve(stdin: protocol.Source, stdout: protocol.Sink, worker: Worker | None = None) -> int:
    """Answer requests until `bye` or the end of input; returns the exit code. An error is an answer, not the end.

    Only what is no request at all ends the conversation: after that nobody can tell where the next one begins.
    """
    worker = worker or Worker()
    while True:
        try:
            received = protocol.read(stdin)
        except BenchError as error:
            protocol.write(stdout, protocol.failure(error))
            return 2
        if received is None:
            return 0
        request, payload = received
        try:
            answer, data = worker.answer(request, payload)
        except Exception as error:  # whatever an engine throws belongs to the bench
            answer, data = protocol.failure(error), b""
        protocol.write(stdout, answer, data)
        if request.get("verb") == "bye":
            return 0


def main(worker: Worker | None = None) -> int:
    """Serve on this process's own standard input and output."""
    worker = worker or Worker()
    if sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write("bench-worker speaks a protocol with `tightrope --bench`; Ctrl-D ends it.\n")
    stdin, stdout = _take_over()
    _end_when_orphaned(stdin.fileno())
    try:
        return serve(stdin, stdout, worker)
    except BrokenPipeError:
        return 0


def _take_over() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for the protocol alone: what an engine prints goes to standard error instead."""
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return stdin, stdout


def _end_when_orphaned(stdin: int) -> None:
    """A bench that was killed cannot kill its worker; an engine that hangs would then hold a core for ever."""
    if not hasattr(select, "poll"):
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(stdin, 0)  # reports nothing but a hang-up
        poll.poll()
        time.sleep(ORPHAN_S)
        os._exit(128 + signal.SIGHUP)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(main())
