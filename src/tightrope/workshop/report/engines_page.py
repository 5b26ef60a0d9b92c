"""A comparison of engines as one self-contained page: no script runs on it, and it asks the network for nothing."""

import json
from pathlib import Path

from tightrope import units
from tightrope.bundle import cannot_write, write_atomic
from tightrope.measurement import length
from tightrope.workshop.comparison.outcome import Cell, Comparison, latency, lengths
from tightrope.workshop.report import engines
from tightrope.workshop.report.markup import Child, Markup, inline_json, join, tag, unbroken
from tightrope.workshop.report.page import document
from tightrope.workshop.report.run_file import plain
from tightrope.workshop.report.sections import section, table

BADGES = {"interpreted": "accent", "failed": "bad", "wrong": "bad", "refused": "warn", "not run": "warn"}
CHART_WIDTH, BAR_HEIGHT, NAMES_WIDTH = 720, 22, 210


def write_comparison_page(found: Comparison, path: Path) -> None:
    """Write the page, at once or not at all. Raises `OutputError`."""
    try:
        write_atomic(path, comparison_page(found).encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def comparison_page(found: Comparison) -> str:
    """The whole page as text."""
    parts = (_speed(found), _quality(found), _failures(found), _fallbacks(found), _facts(found), _again(found))
    data = inline_json(json.dumps(plain(found), allow_nan=False))
    return document(
        f"{found.model}: {engines.headline(found)}",
        _header(found),
        tag("main", *parts),
        tag("footer", tag("p", "Made by tightrope. This page holds all it needs and asks no network.")),
        tag("script", data, type="application/json", id="comparison"),
    )


def _header(found: Comparison) -> Markup:
    words = {
        state: len(found.in_state(state))
        for state in ("measured", "converted", "interpreted", "wrong", "failed", "not run")
    }
    kinds = {"measured": "good", "converted": "good"} | BADGES
    return tag(
        "header",
        tag(
            "p", tag("span", "tightrope", class_="brand"), " engines for ", tag("strong", found.model), class_="kicker"
        ),
        tag("h1", unbroken(engines.headline(found))),
        tag(
            "p",
            *(tag("span", f"{n} {state}", class_=f"badge {kinds[state]}") for state, n in words.items() if n),
            tag("span", "Interrupted", class_="badge warn") if found.interrupted else None,
            class_="verdict",
        ),
    )


def _speed(found: Comparison) -> Markup | None:
    timed = lengths(found.cells)
    if not timed:
        return None
    spoken = [f"{length(tokens)}: p50 / p95" for tokens in timed]
    head = ("engine", *spoken, "throughput", "peak memory", "cold start", "artefact")
    rows: list[tuple[Child, ...]] = []
    for cell in engines.ordered(found):
        calls = (_call(cell, tokens) for tokens in timed)
        rows.append((engines.title(found, cell), *calls, *engines.costs(cell)))
    return section(
        "speed",
        "Speed and cost",
        _bars(found),
        table(head, rows, "Latency, ratio, throughput, memory, start and size of each engine and precision"),
        tag("p", engines.measured_how(found), class_="muted"),
    )


def _call(cell: Cell, tokens: int) -> Markup:
    """Times, and beneath them how many times faster than the baseline."""
    return join(engines.times(cell, tokens), tag("p", engines.faster(cell, tokens), class_="note"))


def _bars(found: Comparison) -> Markup | None:
    """p50 at the middle length as bars, the shortest first."""
    tokens = engines.middle(found)
    assert tokens is not None
    seen = [(cell, item.p50_s) for cell in engines.ordered(found) if (item := latency(cell, tokens)) is not None]
    longest = max(value for _, value in seen)
    room = CHART_WIDTH - NAMES_WIDTH - 90
    rows = [
        _bar(engines.title(found, cell), value, room * value / longest, BAR_HEIGHT * number)
        for number, (cell, value) in enumerate(seen)
    ]
    label = f"p50 with {length(tokens)}, the fastest first"
    box = f"0 0 {CHART_WIDTH} {BAR_HEIGHT * len(seen)}"
    return tag("figure", tag("svg", *rows, viewBox=box, role="img", aria_label=label), tag("figcaption", label))


def _bar(name: str, seconds: float, width: float, top: int) -> Markup:
    words = {"dominant_baseline": "middle", "font_size": 13, "fill": "currentColor", "y": top + BAR_HEIGHT / 2}
    return tag(
        "g",
        tag("text", name, x=NAMES_WIDTH - 8, text_anchor="end", **words),  # type: ignore[arg-type]
        tag("rect", x=NAMES_WIDTH, y=top + 3, width=round(max(width, 1), 1), height=BAR_HEIGHT - 6, rx=3, class_="bar"),
        tag("text", units.show(seconds, "seconds"), x=round(NAMES_WIDTH + width + 8, 1), **words),  # type: ignore[arg-type]
    )


def _quality(found: Comparison) -> Markup | None:
    cells = [*engines.ordered(found), *found.in_state("interpreted")]
    if not cells:
        return None
    head = ("engine", "cosine: least / 1 % / mean", "largest difference", "score", "loss", "ran in")
    rows: list[tuple[Child, ...]] = [
        (
            join(engines.title(found, cell), tag("p", tag("code", cell.recipe or ""), class_="note")),
            engines.cosines(cell),
            engines.difference(cell),
            engines.score(cell),
            engines.loss(cell),
            engines.ran_in(cell),
        )
        for cell in cells
    ]
    caption = "How close the answers of each engine are to the original's, and what it ran in which precision"
    return section("quality", "Answers", table(head, rows, caption))


def _failures(found: Comparison) -> Markup | None:
    lost = engines.failures(found)
    if not lost:
        return None
    rows: list[tuple[Child, ...]] = [
        (name, tag("span", state, class_=f"badge {BADGES.get(state, '')}".strip()), _words(reason))
        for name, state, reason in lost
    ]
    return section(
        "failures", "What does not run here, and why", table(("engine", "", "reason"), rows, "Failures", words=3)
    )


def _fallbacks(found: Comparison) -> Markup | None:
    rows: list[tuple[Child, ...]] = []
    for cell in found.cells:
        for kind, layers in (("in float", cell.floats), ("by the engine's own rule", cell.approximations)):
            for reason, count in engines.counted(layers.values()):
                rows.append((engines.title(found, cell), str(count), kind, _words(reason), _names(cell, kind, reason)))
    if not rows:
        return None
    head = ("engine", "layers", "", "reason", "which")
    return section("fallbacks", "Layers that run otherwise than annotated", table(head, rows, "Fallbacks", words=5))


def _names(cell: Cell, kind: str, reason: str) -> Markup:
    layers = cell.floats if kind == "in float" else cell.approximations
    names = [name for name, why in layers.items() if why == reason]
    return tag("details", tag("summary", names[0]), tag("p", ", ".join(names))) if names[1:] else tag("code", names[0])


def _words(text: str) -> Markup:
    return tag("span", text, class_="words")


def _facts(found: Comparison) -> Markup:
    head = ("engine", "version", "on disk", "licence", "Python", "architectures")
    sources = [f"{item.title}: {item.source}." for item in found.engines if item.source]
    rows: list[tuple[Child, ...]] = [tuple(map(_words, row)) for row in engines.facts(found)]
    return section(
        "engines",
        "The engines",
        table(head, rows, "Version, size on disk, licence and wheels of each engine", words=6),
        tag("p", "On disk: the files of what its extra installs to run a bundle. ", *sources, class_="muted"),
    )


def _again(found: Comparison) -> Markup:
    took = f"Begun {found.started}, took {units.show(found.seconds, 'seconds')}. Model digest "
    return section(
        "again",
        "How to reproduce it",
        tag("pre", tag("code", found.command), tabindex="0"),
        tag("p", took, tag("code", found.origin), class_="muted"),
    )
