"""The table of every candidate, rejected and failed ones with their reason; sortable and searchable with a script."""

import math

from tightrope import units
from tightrope.measurement import IMAGE
from tightrope.workshop.report import figures
from tightrope.workshop.report.markup import Markup, join, tag
from tightrope.workshop.search.trial import Run, Trial

COLUMNS = (
    ("recipe", "Candidate"),
    ("state", "State"),
    ("loss", "Loss"),
    ("latency", "Latency"),
    ("speedup", "Speedup"),
    ("memory", "Memory"),
    ("size", "Size"),
    ("cosine", "Worst cosine"),
)


def candidates(run: Run) -> Markup:
    """The section with the table; its order without a script is the most useful first."""
    rows = [_row(run, trial, place) for place, trial in enumerate((*figures.ordered(run), run.baseline))]
    heads = (
        tag("th", label, scope="col", class_="n" if place > 1 else None, data_key=key)
        for place, (key, label) in enumerate(COLUMNS)
    )
    table = tag(
        "table",
        tag("caption", "Every candidate, its state, and why it is not the answer", class_="unseen"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *rows),
        class_="cards",
        id="trials",
    )
    counts = "; ".join(
        f"{count} {state}"
        for state in ("timed", "judged", "rejected", "failed")
        if (count := sum(trial.state == state for trial in run.trials))
    )
    return tag(
        "section",
        tag("h2", "Every candidate", id="candidates-title"),
        tag("p", f"{len(run.trials)} tried: {counts}. {_length(run)}", class_="muted"),
        _controls(run),
        tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Every candidate"),
        tag("p", "", id="matches", class_="muted", aria_live="polite"),
        id="candidates",
        aria_labelledby="candidates-title",
    )


def _length(run: Run) -> str:
    latency = figures.middle(run.baseline.measurement)
    if latency is None:
        return ""
    what = "one image" if latency.tokens == IMAGE else f"one text of {latency.tokens} tokens"
    return f"Latency is p50 of {what}."


def _controls(run: Run) -> Markup:
    states = [state for state in ("timed", "judged", "rejected", "failed") if any(t.state == state for t in run.trials)]
    options = (tag("option", label, value=key) for key, label in COLUMNS)
    return tag(
        "div",
        tag("label", "Find ", tag("input", type="search", id="find", autocomplete="off")),
        tag(
            "fieldset",
            tag("legend", "Show", class_="unseen"),
            *(
                tag("label", tag("input", type="checkbox", checked=True, value=state, name="state"), f" {state}")
                for state in states
            ),
        ),
        tag("label", "Sort by ", tag("select", tag("option", "usefulness", value=""), *options, id="sort")),
        class_="controls",
        hidden=True,
    )


def _row(run: Run, trial: Trial, place: int) -> Markup:
    latency, faster = figures.middle(trial.measurement), figures.speedup(trial)
    memory = trial.measurement.memory_peak_bytes if trial.measurement else None
    kind, label = _standing(run, trial)
    cells = (
        ("loss", trial.quality.loss.value if trial.quality else None, "fraction"),
        ("latency", latency.p50_s if latency else None, "seconds"),
        ("speedup", faster.value if faster else None, "ratio"),
        ("memory", memory, "bytes"),
        ("size", trial.size_bytes, "bytes"),
    )
    labels = dict(COLUMNS)
    return tag(
        "tr",
        tag("th", tag("code", trial.recipe), _notes(trial), scope="row", data_value=trial.recipe),
        tag("td", tag("span", label, class_=f"badge {kind}"), data_label="State", data_value=label),
        *(_figure(labels[name], value, _text(value, dimension)) for name, value, dimension in cells),
        _figure("Worst cosine", _cosine(trial), f"{_cosine(trial):.4f}" if trial.parity else None),
        data_state=trial.state if trial is not run.baseline else "original",
        data_place=place,
        class_="chosen" if trial.recipe == run.chosen else None,
    )


def _standing(run: Run, trial: Trial) -> tuple[str, str]:
    """The badge's colour and word."""
    if trial is run.baseline:
        return "plain", "original"
    if trial.recipe == run.chosen:
        return "good" if figures.succeeded(run) else "warn", "chosen"
    if trial.recipe == run.nearest and run.chosen is None:
        return "warn", "nearest"
    if trial.recipe in run.frontier:
        return "accent", "frontier"
    return {"rejected": "bad", "failed": "bad"}.get(trial.state, "plain"), trial.state


def _notes(trial: Trial) -> Markup | None:
    notes = [figures.reason(trial)]
    if trial.floats:
        count = len(trial.floats)
        notes.append(f"{count} layer{'s run' if count > 1 else ' runs'} in float: {next(iter(trial.floats.values()))}")
    if trial.reused:
        notes.append("taken from an earlier run")
    shown = [tag("p", note, class_="note") for note in notes if note]
    return join(*shown) if shown else None


def _text(value: float | None, dimension: str) -> str | None:
    return None if value is None else units.show(value, dimension)


def _cosine(trial: Trial) -> float:
    return trial.parity.cosine_min if trial.parity else math.nan


def _figure(label: str, value: float | None, shown: str | None) -> Markup:
    known = shown is not None and value is not None and math.isfinite(value)
    return tag("td", shown or "–", class_="n", data_label=label, data_value=value if known else None)
