"""The tables of the serving guide, made of the stored run of `python -m benchmarks.serve`.

python -m benchmarks.serve_table --write    # write them between their markers
python -m benchmarks.serve_table --check    # fail if the page says anything else
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.documents import RESULTS, ROOT, command, read_stored, update
from tightrope.units import show

STORED = RESULTS / "serve.json"
PAGE = ROOT / "docs" / "guide" / "serving.md"
BEGIN, END = "<!-- serve:begin -->", "<!-- serve:end -->"
NOT_YET = "Not measured yet: `make bench-serve`."


def block(found: Mapping[str, Any]) -> str:
    """What belongs between the markers, with them; a part that was not measured says so."""
    return "\n".join([BEGIN, *_alone(found), "", *_beside(found.get("peers")), END])


def _alone(found: Mapping[str, Any]) -> list[str]:
    rows = ["| measure | value | wanted |", "|---|---:|---:|"]
    rows += [f"| {name} | {value} | {wanted} |" for name, value, wanted in _measures(found)]
    return rows if len(rows) > 2 else [NOT_YET]


def _measures(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    if starts := found.get("starts"):
        rows.append((f"exec to ready, median of {starts['n']}", show(starts["ready_s"], "seconds"), "≤ 1 s"))
        rows.append(("resident when ready, one model", show(starts["resident_bytes"], "bytes"), ""))
    if empty := found.get("empty"):
        if "never_loaded_bytes" in empty:
            rows.append(("resident, without a model", show(empty["never_loaded_bytes"], "bytes"), "≤ 35 MB"))
        rows.append(("resident, its model unloaded", show(empty["resident_bytes"], "bytes"), ""))
    if soak := found.get("soak"):
        requests = sum(soak["statuses"].values())
        name = f"peak over {soak['minutes']:g} minutes of mixed load, {requests:,} requests"
        rows.append((name, show(soak["peak_bytes"], "bytes"), "≤ 75 MB"))
        if soak.get("deployed"):
            name = f"the same while {soak['deployed']} new versions take its place"
            rows.append((name, show(soak["peak_deploying_bytes"], "bytes"), ""))
        rows.append(("slope over its second half", f"{soak['slope_bytes_per_hour'] / 1e6:+.2f} MB/h", "≈ 0"))
    if share := found.get("share"):
        name = f"{share['clients']} clients on one core, of the bare session"
        rows.append((name, show(share["share"], "fraction"), "≥ 80 %"))
    return rows + _strained(found)


def _strained(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What was measured against an engine of a known time."""
    rows = []
    if outside := found.get("outside"):
        times = f"{show(outside['p50_s'], 'seconds')}, {show(outside['p99_s'], 'seconds')}"
        rows.append((f"a request outside the session: p50, p99 of {outside['n']:,}", times, "≤ 0.5 ms, 3 ms"))
    if burst := found.get("burst"):
        usual, crowd = burst["usual"]["p99_s"], burst["burst"]
        rows.append(
            ("p99 of the admitted at ten times what the engine can do", f"{crowd['p99_s'] / usual:.2f}×", "≤ 2×")
        )
        told = "" if crowd["all_told"] else ", some without `Retry-After`"
        rows.append(
            (
                f"p99 of {crowd['not_answered']:,} refusals then",
                show(crowd["refused_p99_s"], "seconds") + told,
                "≤ 5 ms",
            )
        )
    if cuts := found.get("cuts"):
        rows.append(
            (
                f"from a disconnect to the next one's answer, the most of {cuts['n']}",
                show(cuts["most_s"], "seconds"),
                "≤ 200 ms",
            )
        )
    return rows


def _beside(peers: Mapping[str, Any] | None) -> list[str]:
    if peers is None:
        return []
    one, many = (str(clients) for clients in peers["clients"])
    lines = [
        f"| | requests/s, 1 client | p50 | p99 | requests/s, {many} clients | p50 | p99 | memory, peak | cold start |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for item in sorted(peers["servers"].values(), key=lambda item: -item["load"][many]["per_s"]):
        cells = [item["label"]]
        for clients in (one, many):
            load = item["load"][clients]
            cells += [f"{load['per_s']:.0f}", show(load["p50_s"], "seconds"), show(load["p99_s"], "seconds")]
        cells += [show(item["peak_bytes"], "bytes"), show(item["ready_s"], "seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{peers['processor']}, {peers['date']}: each server on one core, the load from another one, "
        f"{peers['rounds']} rounds of {peers['seconds']:g} s in turns, medians. Short built-in texts, one a request; "
        "all serve all-MiniLM-L6-v2, the peers in fp32 as their guides have it.",
    ]
    return lines


def write(page: Path = PAGE, stored: Path = STORED, *, check: bool = False) -> bool:
    """Whether the page said the same already. It is written unless only a check was asked for."""
    return update(page, block(read_stored(stored, "make bench-serve")), check=check)


def main() -> int:
    """Write, or check."""
    return command("the serving guide's tables", write)


if __name__ == "__main__":
    sys.exit(main())
