"""`python -m benchmarks.serve`: the server beside its peers and by itself; stores what it found, part by part.

About 27 minutes: peers 10, soak 10, the rest 7. `--only soak --hours 24` is the long soak; `--quick` only shows that
everything runs, and stores nothing.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.documents import RESULTS, ROOT, read_stored, store
from benchmarks.peers.results import processor
from benchmarks.serve import alone, beside, peers, soak, strain
from tightrope.errors import DataError, TightropeError
from tightrope.workshop.texts import kinds_and_texts

STORED = RESULTS / "serve.json"
PARTS = ("starts", "empty", "share", "outside", "burst", "cuts", "peers", "soak")


def main() -> int:
    """Measure what was asked for; 1 if something is missing."""
    given = _arguments()
    try:
        _measure(given)
    except TightropeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _measure(given: argparse.Namespace) -> None:
    bundle, work = given.bundle.resolve(), given.work.resolve()
    if not bundle.is_dir():
        raise DataError(f"There is no bundle {bundle}.", hint="make fit")
    texts = [text for _, text in kinds_and_texts("en")][:512]
    seconds, rounds = (1.0, 1) if given.quick else (10.0, 3)
    minutes = 0.3 if given.quick else 60 * given.hours if given.hours else 10.0
    setting = beside.Setting(work=work, bundle=bundle, texts=texts, seconds=seconds, rounds=min(rounds, 2))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "starts": lambda: alone.starts(bundle, work, 2 if given.quick else 10),
        "empty": lambda: alone.empty(bundle, work),
        "share": lambda: alone.share_of_session(bundle, work, texts, seconds=seconds, rounds=rounds),
        "outside": lambda: strain.outside(bundle, work, 200 if given.quick else 5000),
        "burst": lambda: strain.burst(bundle, work, seconds),
        "cuts": lambda: strain.cuts(bundle, work),
        "peers": lambda: beside.measure(setting, given.peer or [item.name for item in peers.contestants()], _say),
        "soak": lambda: soak.soak(bundle, work, texts, minutes=minutes, step_s=seconds / 2, say=_say),
    }
    for name in given.only or PARTS:
        _say(name)
        found = parts[name]() | {"date": time.strftime("%Y-%m-%d", time.gmtime()), "processor": processor()}
        if given.quick:
            _say(str({key: value for key, value in found.items() if key not in ("samples", "servers")}))
        else:
            _keep(name, found)


def _keep(part: str, found: dict[str, Any]) -> None:
    """Store one part beside the others: the long ones need not be measured together."""
    stored = read_stored(STORED, "make bench-serve") if STORED.is_file() else {}
    store(STORED, stored | {part: found})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "minilm.bundle")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="environments and models")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be repeated")
    parser.add_argument("--peer", action="append", help="only this server; may be repeated")
    parser.add_argument("--hours", type=float, help="how long the soak lasts; ten minutes otherwise")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; nothing is stored")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
