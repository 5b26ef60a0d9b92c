"""The run as one self-contained page: it asks the network for nothing, and its policy forbids that it could.

Tables are plain HTML and need no script. The charts are drawn by Chart.js (MIT), which lies inside the page, with
its licences, so that the page can be kept and mailed. Only the scripts and the style of this module may run: the
page's policy names them by their hash, and every word from a model or a user is escaped.
"""

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from tightrope.bundle import cannot_write, write_atomic
from tightrope.errors import MissingExtraError
from tightrope.workshop.report import figures, sections
from tightrope.workshop.report.charts import chart_data
from tightrope.workshop.report.markup import Markup, inline_json, join, tag, trusted
from tightrope.workshop.report.run_file import plain
from tightrope.workshop.search.trial import Run

CHARTS = "django/static/chartkick/Chart.bundle.js"
LICENCES = ("chart.js", "kurkle-color", "chartjs-adapter-date-fns", "date-fns")


def write_page(run: Run, path: Path) -> None:
    """Write the page, at once or not at all. Raises `OutputError`, or `MissingExtraError` without chartkick."""
    data = page(run).encode()
    try:
        write_atomic(path, data)
    except OSError as error:
        raise cannot_write(path, error) from error


def page(run: Run) -> str:
    """The whole page as text."""
    library, script = _library(CHARTS), own_file("page.js")
    return document(
        f"{run.model}: {figures.headline(run)}",
        sections.header(run),
        tag("main", *sections.all_sections(run)),
        sections.footer(_licences()),
        _data("run", json.dumps(plain(run), allow_nan=False)),
        _data("charts", json.dumps(chart_data(run), allow_nan=False)),
        scripts=(library, script),
    )


def document(title: str, *content: Markup, scripts: tuple[str, ...] = ()) -> str:
    """A page that asks for nothing: the content, and these scripts after it, in this package's style."""
    style = own_file("page.css")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, scripts)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", trusted(style)),
    )
    body = tag("body", *content, *(tag("script", trusted(script)) for script in scripts))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _policy(style: str, scripts: tuple[str, ...]) -> str:
    """Nothing from anywhere, but this style and these scripts."""
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {allowed}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(name: str, text: str) -> Markup:
    return tag("script", inline_json(text), type="application/json", id=name)


def own_file(name: str) -> str:
    """A text file beside this module."""
    return (files("tightrope.workshop.report") / name).read_text(encoding="utf-8")


@cache
def _library(name: str) -> str:
    """A text file of chartkick, which is fetched as data: the package itself is not run."""
    try:
        text = (files("chartkick") / name).read_text(encoding="utf-8")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "The report page needs chartkick, which is not installed.", hint="pip install 'tightrope[fit]'"
        ) from error
    assert "</script" not in text.lower() and "<!--" not in text
    return text


def _licences() -> Markup:
    texts = (_library(f"licenses/LICENSE-{name}.txt") for name in LICENCES)
    return join(
        *(join(tag("h3", name), tag("pre", text)) for name, text in zip(LICENCES, texts, strict=True)),
    )
