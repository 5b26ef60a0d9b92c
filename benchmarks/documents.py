"""Documents whose tables are made of stored measurements: between two markers, written anew or only checked.

A figure is never typed into a document. `make docs` writes all of them, and `make check` fails where one differs.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tightrope.bundle import write_atomic
from tightrope.errors import DataError, TightropeError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def read_stored(path: Path, way_out: str) -> Any:
    """What a stored run holds. Raises `DataError` with the `way_out` when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"There is no stored run: {path}.", hint=way_out) from error


def store(path: Path, found: Mapping[str, Any]) -> None:
    """Keep what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(found, indent=1) + "\n").encode())


def replaced(text: str, block: str) -> str:
    """The text with the block exchanged that begins and ends with the same lines.

    Raises `DataError` unless each of these markers is there once, in order.
    """
    first, last = block.splitlines()[0], block.splitlines()[-1]
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in after or last in before:
        raise DataError(
            f"The text has no single pair of {first} and {last}.", hint="Write both where the table belongs."
        )
    return before + block + after


def update(page: Path, block: str, *, check: bool) -> bool:
    """Whether the page had this block already. It is written unless only a check was asked for."""
    text = page.read_text(encoding="utf-8")
    wanted = replaced(text, block)
    if wanted != text and not check:
        write_atomic(page, wanted.encode())
    return wanted == text


def update_all(blocks: Mapping[Path, str], *, check: bool) -> bool:
    """The same for several pages; every one is looked at."""
    same = True
    for page, block in blocks.items():
        same &= update(page, block, check=check)
    return same


Write = Callable[..., bool]
"""`write(check=…)`: brings documents up to date and says whether they were."""


def command(what: str, write: Write, measure: Callable[[], None] | None = None) -> int:
    """The command line of a document: measure first if there is something to measure and no option was given.

    `--write` writes from what is stored, `--check` fails (1) where a document says anything else.
    """
    parser = argparse.ArgumentParser(description=f"Bring {what} up to date.")
    _add_options(parser)
    return _run(what, write, parser.parse_args(), measure)


def command_on_texts(
    what: str, write: Write, measure: Callable[[Path, int, int], Mapping[str, Any]], results: Path, *, threads: int
) -> int:
    """The same for what is measured on a file of texts: `measure(texts, count, threads)` gives the results."""
    parser = argparse.ArgumentParser(description=f"Bring {what} up to date.")
    parser.add_argument("texts", type=Path, nargs="?", help="UTF-8, a text a line; without it nothing is measured")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--threads", type=int, default=threads)
    _add_options(parser)
    given = parser.parse_args()
    if given.texts is None and not (given.write or given.check):
        parser.error("give TEXTS, --write or --check")

    def measure_and_store() -> None:
        store(results, measure(given.texts, given.count, given.threads))

    return _run(what, write, given, measure_and_store if given.texts else None)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", action="store_true", help="from what is stored")
    parser.add_argument("--check", action="store_true", help="fail if a document says anything else")


def _run(what: str, write: Write, given: argparse.Namespace, measure: Callable[[], None] | None) -> int:
    try:
        if measure and not (given.write or given.check):
            measure()
        same = write(check=given.check)
    except TightropeError as error:
        print(error, file=sys.stderr)
        return 1
    if given.check and not same:
        print(f"{what} differ from the stored measurements.\nWrite them: make docs", file=sys.stderr)
        return 1
    return 0
