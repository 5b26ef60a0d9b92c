"""The parts of the page, from top to bottom; each is a function of the run, and empty where there is nothing to say."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tightrope import units
from tightrope.measurement import Measurement, Quality
from tightrope.workshop.report import figures
from tightrope.workshop.report.candidates import candidates
from tightrope.workshop.report.charts import worst_layers
from tightrope.workshop.report.markup import Child, Markup, tag, unbroken
from tightrope.workshop.search.trial import Run, Trial


def all_sections(run: Run) -> tuple[Markup | None, ...]:
    """Every section in the order of the page."""
    return (
        _budget(run),
        _before_and_after(run),
        _trade_offs(run),
        candidates(run),
        _latency(run),
        _quality(run),
        _precision(run),
        _sensitivity(run),
        _again(run),
    )


def header(run: Run) -> Markup:
    """The answer in one sentence, whether it is a success, and why not."""
    trial = figures.subject(run)
    good = figures.succeeded(run)
    verdict = "Fits the budget" if good else "Nothing fits the budget" if run.chosen is None else "Not a success"
    return tag(
        "header",
        tag("p", tag("span", "tightrope", class_="brand"), " fit of ", tag("strong", run.model), class_="kicker"),
        tag("h1", unbroken(figures.headline(run))),
        tag(
            "p",
            tag("span", verdict, class_=f"badge {'good' if good else 'bad'}"),
            tag("span", "Interrupted: the best so far", class_="badge warn") if run.interrupted else None,
            tag("code", trial.recipe, class_="recipe") if trial else None,
            class_="verdict",
        ),
        tag("ul", *(tag("li", breach) for breach in run.breaches), class_="reasons") if run.breaches else None,
    )


def section(name: str, title: str, *children: Child) -> Markup:
    """A section with a heading that can be linked to."""
    return tag("section", tag("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def table(head: tuple[str, ...], rows: list[tuple[Child, ...]], caption: str, *, words: int = 1) -> Markup:
    """A table in a box that scrolls by itself. The first `words` columns and every last one are words, not numbers."""
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell, class_="n") for cell in row[1:])) for row in rows
    ]
    heads = (tag("th", name, scope="col", class_="n" if place >= words else None) for place, name in enumerate(head))
    whole = tag("table", tag("caption", caption, class_="unseen"), tag("thead", tag("tr", *heads)), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def chart(name: str, label: str, size: str = "") -> Markup:
    """A place for a chart, hidden until the script draws it."""
    canvas = tag("canvas", id=f"chart-{name}", role="img", aria_label=label)
    return tag("div", canvas, class_=f"chart {size}".strip(), hidden=True)


def _budget(run: Run) -> Markup | None:
    if not run.budget:
        return None
    words = {True: ("good", "kept"), False: ("bad", "missed"), None: ("warn", "not judged")}
    items = (
        tag(
            "li",
            tag("span", words[item.kept][1], class_=f"badge {words[item.kept][0]}"),
            tag("span", item.measured, class_="figure"),
            tag("span", item.limit, class_="muted"),
        )
        for item in figures.limits(run)
    )
    return section("budget", "Budget", tag("ul", *items, class_="tiles"))


def _before_and_after(run: Run) -> Markup:
    name = "chosen" if run.chosen else "nearest"
    rows: list[tuple[Child, ...]] = [
        (row.name, row.original, row.candidate, _change(row)) for row in figures.before_and_after(run)
    ]
    return section(
        "change",
        "Before and after",
        table(("", "original", name, "change"), rows, "Costs and quality of the original and the candidate"),
        _conditions(run),
    )


def _change(row: figures.Row) -> Child:
    kind = {True: "better", False: "worse", None: None}[row.better]
    return tag("span", row.change, class_=kind) if row.change else None


def _conditions(run: Run) -> Markup | None:
    trial = figures.subject(run)
    found = (trial.measurement if trial else None) or run.baseline.measurement
    if found is None:
        return None
    calls = sorted({latency.n for latency in found.latencies})
    spread = f" {'–'.join(map(str, calls))} calls for each length after warm-up." if calls else ""
    text = f"{figures.conditions(found.conditions)}.{spread}"
    note = " In brackets: the 95 % interval. Speed is the original's time over the candidate's, taken in turns."
    return tag("p", text, note, class_="muted")


def _trade_offs(run: Run) -> Markup:
    controls = (
        tag("label", text, " ", tag("select", id=f"axis-{name}"))
        for name, text in (("x", "Across"), ("y", "Up"), ("r", "Point size"))
    )
    return section(
        "trade-offs",
        "Trade-offs",
        tag("p", "Every candidate that has both figures. Whiskers are 95 % intervals.", class_="muted"),
        tag("div", *controls, class_="controls", hidden=True),
        chart(
            "frontier", "Candidates by quality loss and latency; the table of candidates has the same figures", "tall"
        ),
        tag("noscript", tag("p", "Charts need JavaScript; the tables below hold the same figures.")),
    )


def _latency(run: Run) -> Markup | None:
    trial = figures.subject(run)
    named: list[tuple[str, Measurement | None]] = [("original", run.baseline.measurement)]
    if trial:
        named.append(("chosen" if run.chosen else "nearest", trial.measurement))
    rows: list[tuple[Child, ...]] = [
        (
            f"{latency.tokens}, {name}",
            *(units.show(value, "seconds") for value in (latency.p50_s, latency.p95_s, latency.p99_s)),
            str(latency.n),
        )
        for name, found in named
        if found
        for latency in found.latencies
    ]
    if not rows:
        return None
    head = ("tokens", "p50", "p95", "p99", "calls")
    spread = any(latency.quantiles_s for _, found in named if found for latency in found.latencies)
    said = "Which share of the calls took no longer than so long, for the original and the candidate by length of text"
    return section(
        "latency",
        "Latency",
        chart("latency", "Latency of the original and the candidate by length of text; the table has the same figures"),
        chart("distribution", said, "tall") if spread else None,
        table(head, sorted(rows, key=lambda row: int(str(row[0]).partition(",")[0])), "Latency by length of text"),
    )


def _quality(run: Run) -> Markup | None:
    found = figures.quality(run)
    trial = figures.subject(run)
    if found is None or trial is None:
        return None
    parity = run.report_parity or trial.parity
    facts: list[tuple[str, Child]] = [
        ("Samples", f"{found.samples}, n = {found.n}{'' if run.report else ' (the search saw them)'}"),
        (found.metric, f"{found.score:.4f}, original {found.original:.4f}"),
        ("Loss", figures.show_interval(found.loss, "fraction")),
        *((name, f"{value:.4f}") for name, value in found.beside.items()),
        ("Truncated", _truncated(found)),
    ]
    if parity:
        facts += [
            (
                "Cosine with the original",
                f"mean {parity.cosine_mean:.4f}, worst 1 % {parity.cosine_p1:.4f}, "
                f"worst {parity.cosine_min:.4f}, n = {parity.n}",
            ),
            ("Largest difference of a number", f"{parity.largest_difference:.4g}"),
            ("First layer that diverges", parity.diverges_at),
        ]
    if run.agreement:
        sets = ", ".join(f"{isa} {least:.5f}" for isa, least in run.agreement.items())
        facts.append(("Least cosine by instruction set", sets))
    return section("quality", "Quality", facts_list(facts))


def _truncated(found: Quality) -> str:
    if not found.truncated:
        return "no text was longer than the model's limit"
    verb = "text was" if found.truncated == 1 else "texts were"
    return f"{found.truncated} {verb} longer than the model's limit, and cut"


def _precision(run: Run) -> Markup | None:
    trial = figures.subject(run)
    if trial is None:
        return None
    shares = trial.executed
    said = (
        ", ".join(
            f"{name} {units.show(share, 'fraction')}" for name, share in sorted(shares.items(), key=lambda i: -i[1])
        )
        if shares
        else "unknown: the engine does not tell"
    )
    rows: list[tuple[Child, ...]] = [(name, why) for name, why in trial.floats.items()]
    fallback = table(("layer", "why it runs in float"), rows, "Layers that run in float", words=2) if rows else None
    return section(
        "precision", "What really ran", facts_list([("Multiply-adds by precision", said)]), fallback, _layers(trial)
    )


def _layers(trial: Trial) -> Markup | None:
    """Each layer's precision, folded away; its summary counts them."""
    if not trial.layers:
        return None
    counts = ", ".join(f"{count} in {name}" for name, count in Counter(trial.layers.values()).most_common())
    rows: list[tuple[Child, ...]] = list(trial.layers.items())
    found = table(("layer, as the engine names it", "precision"), rows, "Precision of each layer", words=2)
    return tag("details", tag("summary", f"{len(trial.layers)} layers: {counts}"), found)


def _sensitivity(run: Run) -> Markup | None:
    layers = worst_layers(run)
    if not layers:
        return None
    rows: list[tuple[Child, ...]] = [(name, f"{value:.5f}") for name, value in layers]
    note = "How far the answers move (1 − mean cosine) when one layer alone is reduced to 4 bits, worst first."
    return section(
        "sensitivity",
        "Sensitivity by layer",
        tag("p", note, class_="muted"),
        chart("sensitivity", "Sensitivity of each layer, worst first; the table has the same figures", "long"),
        tag("details", tag("summary", "As a table"), table(("layer", "1 − cosine"), rows, "Sensitivity by layer")),
    )


def _again(run: Run) -> Markup:
    first = run.first_feasible_s
    trial = figures.subject(run)
    facts: list[tuple[str, Child]] = [
        ("Started", run.started),
        ("Took", f"{units.show(run.seconds, 'seconds')} for {len(run.trials)} candidates"),
        ("First that fits after", units.show(first, "seconds") if first is not None else None),
        ("Memory of the fit", figures.show(run.peak_memory_bytes, "bytes")),
        ("Target", f"{run.target}, {run.threads} thread{'' if run.threads == 1 else 's'}"),
        ("Model digest", tag("code", run.origin)),
        ("Bundle", tag("code", run.bundle) if run.bundle else None),
        ("Bundle digest", tag("code", trial.digest) if trial and trial.digest else None),
        *((name, tag("code", text)) for name, text in _flat(run.lineage)),
    ]
    command = tag("pre", tag("code", run.command), tabindex="0")
    return section("again", "How to reproduce it", command, facts_list(facts))


def _flat(data: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested lineage as dotted names and texts."""
    lines: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{above}{key}.")
        else:
            lines.append(
                (f"{above}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
            )
    return lines


def facts_list(facts: list[tuple[str, Child]]) -> Markup:
    """Names and what there is to say; those with nothing to say are left out."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value))


def footer(licences: Markup) -> Markup:
    """Whose work the charts are."""
    note = "Made by tightrope. Charts by Chart.js, MIT licence. This page holds all it needs and asks no network."
    return tag("footer", tag("p", note), tag("details", tag("summary", "Licences of the chart library"), licences))
