"""The README's table of peers, made of the stored run.

python -m benchmarks.table            # write it between its markers
python -m benchmarks.table --check    # fail if README says anything else
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tightrope.bundle import write_atomic
from tightrope.errors import DataError, TightropeError

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "results" / "peers.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"

HEAD = (
    "| | file | 12 tokens | 32 tokens | 128 tokens | 1,000 texts | beside {reference} | memory: one text / all "
    "| cold start | cosine: min / mean | of the int8 limit |"
)


def table(found: Mapping[str, Any]) -> str:
    """The candidates as a Markdown table, the fastest on the corpus first; ours in bold."""
    reference = found["candidates"].get(found["reference"], {}).get("label", found["reference"])
    head = HEAD.format(reference=reference)
    rule = "|---" + "|---:" * (head.count("|") - 2) + "|"
    rows = sorted(found["candidates"].values(), key=lambda item: -_texts_per_s(found, item))
    return "\n".join([head, rule, *(_row(found, item) for item in rows)])


def summary(found: Mapping[str, Any]) -> str:
    """What a reader must know of the run, in a few sentences; a run that does not count says so first."""
    about, limit, validity = found["conditions"], found["limit"], found["validity"]
    rate = limit["macs_per_s"]
    lines = [
        f"{about['model']}, {about['processor']} ({limit['instructions']}), {about['threads']} thread"
        f"{' on a pinned core' if about['pinned'] else ''}, {about['date']}. All candidates interleaved: "
        f"{about['rounds']} rounds of latency, {about['corpus_rounds']} of the corpus "
        f"({about['texts']:,} texts, {about['tokens']:,} tokens), each at its best batching; {about['seconds']}, p50. "
        "Speed beside the reference is that on the corpus, with its 95 % interval over the rounds; "
        "cosines are against fp32 torch. "
        f"The limit is int8 multiply-adds from registers alone, {max(rate.values()) / 1e9:.0f} billion a second."
    ]
    if validity["valid"] is False:
        lines.insert(0, "**This run does not count:** " + "; ".join(validity["reasons"]) + ".")
    elif validity["valid"] is None:
        lines.append("No ratios are expected of the peers on this processor, so whether the run counts was not judged.")
    return "\n\n".join(lines)


def block(found: Mapping[str, Any]) -> str:
    """What belongs between the markers, with them: the table, or why the stored run gives none."""
    validity = found["validity"]
    if validity["valid"] is False:
        reasons = "; ".join(validity["reasons"])
        return (
            f"{BEGIN}\nThe stored run does not count, so its table is not shown: {reasons}. Its numbers are in "
            f"benchmarks/results/peers.json; `make bench` makes another run.\n{END}"
        )
    return f"{BEGIN}\n{table(found)}\n\n{summary(found)}\n{END}"


def replaced(text: str, new: str) -> str:
    """The text with the block exchanged that begins and ends as `new` does.

    Raises `DataError` unless each marker is there once, in order.
    """
    first, last = new.splitlines()[0], new.splitlines()[-1]
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in after or last in before:
        raise DataError(
            f"The text has no single pair of {first} and {last}.", hint="Write both where the table belongs."
        )
    return before + new + after


def write(readme: Path = README, peers: Path = PEERS, *, check: bool = False) -> bool:
    """Whether the README said the same already. It is written unless only a check was asked for.

    Raises `DataError` when there is no stored run.
    """
    try:
        found = json.loads(peers.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"There is no stored run: {peers}.", hint="make bench makes one.") from error
    text = readme.read_text(encoding="utf-8")
    wanted = replaced(text, block(found))
    if wanted != text and not check:
        write_atomic(readme, wanted.encode())
    return wanted == text


def _row(found: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    quantities, memory, cosine = item["quantities"], item["memory"], item["cosine"]
    label = f"**{item['label']}**" if item["ours"] else item["label"]
    shares = " / ".join(f"{100 * quantities[name]['limit_share']['value']:.0f}" for name in quantities)
    cells = [
        label,
        f"{item['file_bytes'] / 1e6:.1f} MB",
        *(f"{1e3 * quantities[name]['p50_s']:.2f} ms" for name in ("12", "32", "128")),
        f"{_texts_per_s(found, item):.0f}/s",
        _ratio(quantities["corpus"]["speed_ratio"]),
        f"{memory['one_text_bytes'] / 1e6:.0f} / {memory['corpus_bytes'] / 1e6:.0f} MB",
        f"{item['cold_start']['wall_s']:.2f} s",
        f"{cosine['min']:.4f} / {cosine['mean']:.4f}",
        f"{shares} %",
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return "–"
    if ratio["n"] == 1:  # one round has no spread
        return f"{ratio['value']:.2f}×"
    return f"{ratio['value']:.2f}× ({ratio['low']:.2f} – {ratio['high']:.2f})"


def _texts_per_s(found: Mapping[str, Any], item: Mapping[str, Any]) -> float:
    return float(found["conditions"]["texts"] / item["quantities"]["corpus"]["p50_s"])


def main() -> int:
    """Write, or check."""
    check = "--check" in sys.argv[1:]
    try:
        same = write(check=check)
    except TightropeError as error:
        print(error, file=sys.stderr)
        return 1
    if check and not same:
        print(
            "README's table of peers is not that of the stored run.\nWrite it: python -m benchmarks.table",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
