"""The README's table of peers, made of the stored run.

python -m benchmarks.table            # write it between its markers
python -m benchmarks.table --check    # fail if README says anything else
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.documents import README, RESULTS, command, read_stored, update
from benchmarks.peers.candidates import LEAN, WITHOUT_VNNI

PEERS = RESULTS / "peers.json"
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"

LENGTHS = ("12", "32", "128")
YARDSTICKS = {
    "expected": "Each peer kept at least 85 % of its ratio to the others that was measured with each alone.",
    "alone": (
        "No ratios are expected of the peers on this processor; instead each was measured alone before the rounds, and "
        "in them none was more than 15 % slower, beside the median of all, than alone."
    ),
    None: "Too few peers took part to tell whether the run counts.",
}
"""What a run that counts was held against."""


def table(found: Mapping[str, Any]) -> str:
    """The candidates as Markdown tables, the fastest on the corpus first, ours in bold: costs, then ratios."""
    limits = _limits(found)
    costs = ["", "file", *_quantities(), "memory: one text / all", "cold start", "cosine: min / mean"]
    costs += [f"of {name}" for name in limits]
    tables = [_table(costs, (_costs(found, item, limits) for item in _ranked(found)))]
    for reference in found["references"]:
        label = found["candidates"][reference]["label"]
        head = [f"times as fast as {label}", *_quantities()]
        tables.append(_table(head, (_ratios(item, reference) for item in _ranked(found))))
    return "\n\n".join(tables)


def summary(found: Mapping[str, Any]) -> str:
    """What a reader must know of the run, in a few sentences; a run that does not count says so first."""
    about, limit, validity = found["conditions"], found["limit"], found["validity"]
    lines = [
        f"{about['model']}, {about['processor']} ({limit['instructions']}), {about['threads']} thread"
        f"{' on a pinned core' if about['pinned'] else ''}, {about['date']}. All candidates interleaved: "
        f"{about['rounds']} rounds of latency, {about['corpus_rounds']} of the corpus "
        f"({about['texts']:,} texts, {about['tokens']:,} tokens), each at its best batching; {about['seconds']}, p50. "
        "Ratios with their 95 % intervals are over the rounds; cosines are against fp32 torch. "
        f"The limits are int8 multiply-adds from registers alone: {_rates(found)} billion a second. Shares of them "
        "at 12, 32 and 128 tokens and on the corpus are without the tokenizer; those in brackets are of the whole call."
    ]
    lines += _without_vnni(found)
    if validity["valid"] is False:
        lines.insert(0, "**This run does not count:** " + "; ".join(validity["reasons"]) + ".")
    else:
        lines.append(YARDSTICKS[validity["yardstick"]])
    return "\n\n".join(lines)


def _without_vnni(found: Mapping[str, Any]) -> list[str]:
    """How ours stands on processors of an older kind, beside the leanest peer, if both were measured."""
    ours, lean = (found["candidates"].get(name) for name in (f"tightrope_native_avx2_{WITHOUT_VNNI}", LEAN))
    if ours is None or lean is None:
        return []
    ratios = ", ".join(_ratio(quantity["speed_ratio"][LEAN]) for quantity in ours["quantities"].values())
    return [f"Both forced to AVX2, ours is {ratios} times as fast as {lean['label']} ({', '.join(_quantities())})."]


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


def write(readme: Path = README, peers: Path = PEERS, *, check: bool = False) -> bool:
    """Whether the README said the same already. It is written unless only a check was asked for.

    Raises `DataError` when there is no stored run.
    """
    return update(readme, block(read_stored(peers, "make bench makes one.")), check=check)


def _quantities() -> list[str]:
    return [*(f"{tokens} tokens" for tokens in LENGTHS), "1,000 texts"]


def _limits(found: Mapping[str, Any]) -> list[str]:
    """The names of the limits, the higher first."""
    rates = found["limit"]["macs_per_s"]
    return sorted(rates, key=lambda name: -max(rates[name].values()))


def _rates(found: Mapping[str, Any]) -> str:
    rates = found["limit"]["macs_per_s"]
    return ", ".join(f"{name} {max(rates[name].values()) / 1e9:,.0f}" for name in _limits(found))


def _ranked(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(found["candidates"].values(), key=lambda item: -_texts_per_s(found, item))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = "|---" + "|---:" * (len(head) - 1) + "|"
    return "\n".join([_line(head), rule, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _label(item: Mapping[str, Any]) -> str:
    return f"**{item['label']}**" if item["ours"] else str(item["label"])


def _costs(found: Mapping[str, Any], item: Mapping[str, Any], limits: Sequence[str]) -> list[str]:
    quantities, memory, cosine = item["quantities"], item["memory"], item["cosine"]
    return [
        _label(item),
        f"{item['file_bytes'] / 1e6:.1f} MB",
        *(f"{1e3 * quantities[name]['p50_s']:.2f} ms" for name in LENGTHS),
        f"{_texts_per_s(found, item):.0f}/s",
        f"{memory['one_text_bytes'] / 1e6:.0f} / {memory['corpus_bytes'] / 1e6:.0f} MB",
        f"{item['cold_start']['wall_s']:.2f} s",
        f"{cosine['min']:.4f} / {cosine['mean']:.4f}",
        *(" / ".join(_share(quantity, name) for quantity in quantities.values()) + " %" for name in limits),
    ]


def _share(quantity: Mapping[str, Any], limit: str) -> str:
    """Of the engine alone if that is known; in brackets that of the whole call. Of the corpus there is one only."""
    engine = quantity["engine_limit_share"]
    if engine:
        return f"{100 * engine[limit]['value']:.0f}"
    return f"({100 * quantity['limit_share'][limit]['value']:.0f})"


def _ratios(item: Mapping[str, Any], reference: str) -> list[str]:
    return [_label(item), *(_ratio(quantity["speed_ratio"][reference]) for quantity in item["quantities"].values())]


def _ratio(ratio: Mapping[str, Any]) -> str:
    if ratio["n"] == 1:  # one round has no spread
        return f"{ratio['value']:.2f}×"
    return f"{ratio['value']:.2f}× ({ratio['low']:.2f} – {ratio['high']:.2f})"


def _texts_per_s(found: Mapping[str, Any], item: Mapping[str, Any]) -> float:
    return float(found["conditions"]["texts"] / item["quantities"]["corpus"]["p50_s"])


def main() -> int:
    """Write, or check."""
    return command("README's tables of peers", write)


if __name__ == "__main__":
    sys.exit(main())
