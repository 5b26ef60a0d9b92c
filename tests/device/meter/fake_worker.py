"""A worker of the standard library alone, which speaks the protocol and misbehaves as its first argument says."""

import json
import os
import signal
import struct
import sys
import time

MISCHIEF = sys.argv[1] if len(sys.argv) > 1 else "none"
HELLO = {
    "tightrope_bench": 2 if MISCHIEF == "version" else 1,
    "tightrope": "0.0.1",
    "machine": {"processor": "Fake 1", "architecture": "fake64", "isa": ["abacus"], "cores": 1},
    "ready_monotonic_s": time.monotonic(),
    "since_start_s": 0.25,
}
OPEN = {"engine": "fake", "engine_version": "1", "import_s": 0.5, "open_s": 1.0, "cores": None, "max_length": 64}
MEMORY = {"now": {"peak_bytes": 50_000_000, "resident_bytes": 40_000_000}, "bare": {"peak_bytes": 10_000_000}}


def say(message, payload=b""):
    if payload:
        message = {**message, "payload": len(payload)}
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n" + payload)
    sys.stdout.buffer.flush()


def babble(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def misbehave():
    if MISCHIEF == "crash":
        sys.stderr.write("out of cheese\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    if MISCHIEF == "quit":
        sys.exit(3)
    if MISCHIEF == "hang":
        sys.stderr.write("thinking\n")
        sys.stderr.flush()
        if os.fork() == 0:  # a child that holds the pipes as well: the whole group has to go
            time.sleep(600)
        time.sleep(600)
    if MISCHIEF == "nonsense":
        babble("Segmentation of the corpus took 3 s")
        time.sleep(600)
    if MISCHIEF == "huge":
        while True:
            sys.stdout.write("x" * 1_000_000)
    if MISCHIEF == "shout":
        sys.stderr.write("y" * 3_000_000 + "\nlast line\n")
        sys.stderr.flush()
        sys.exit(1)
    if MISCHIEF == "short":
        sys.stdout.write('{"rows": 1, "columns": 4, "seconds": 0.1, "payload": 16}\n12')
        sys.stdout.flush()
        sys.exit(0)
    if MISCHIEF == "greedy":
        say({"rows": 1, "columns": 4, "seconds": 0.1, "payload": 10**15})
        time.sleep(600)
    if MISCHIEF == "error":
        return say({"error": {"kind": "EngineError", "message": "It refused.", "hint": "Ask nicely."}})
    if MISCHIEF == "odd":
        return say({"error": "so odd"})
    if MISCHIEF == "misshapen":
        return say({"rows": 7, "columns": 4, "seconds": 0.1}, bytes(16))
    return False


def main():
    if MISCHIEF == "banner":
        babble("Welcome to Fake OS\n\n{}")
    if MISCHIEF == "chatter":
        for _ in range(200):
            babble("blah")
    if MISCHIEF == "mute":
        sys.stderr.write("no tightrope here\n")
        sys.exit(127)

    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        sys.stdin.buffer.read(request.get("payload", 0))
        verb = request["verb"]
        if verb == "hello":
            say(HELLO)
        elif verb == "bye":
            say({"bye": True})
            break
        elif verb == "find":
            say({"path": request["path"]})
        elif verb == "open":
            say(OPEN)
        elif verb == "memory":
            say(MEMORY)
        elif verb == "compose":
            say({"input": "word " * request["tokens"] if request["tokens"] <= OPEN["max_length"] else None})
        elif verb == "time":
            say({"seconds": [0.002] * request["repeats"]})
        elif verb == "throughput":
            say({"seconds": [0.5, 0.25, 0.5]})
        elif verb == "energy":
            say({"joules": None, "calls": 0, "source": None})
        elif verb in ("embed", "score") and misbehave() is False:
            rows = request.get("texts") or request["pairs"]
            say({"rows": len(rows), "columns": 2, "seconds": 0.125}, struct.pack("<ff", 0.6, 0.8) * len(rows))


if __name__ == "__main__":
    main()
