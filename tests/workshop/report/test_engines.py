"""A comparison of engines in words, on a terminal, on a page and on disk: every state has its say."""

import html
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tightrope.errors import DataError
from tightrope.measurement import Conditions, Interval, Latency, Measurement, Parity, Quality
from tightrope.workshop.comparison.outcome import Cell, Comparison, Engine, State
from tightrope.workshop.report import engines
from tightrope.workshop.report.engines_page import comparison_page
from tightrope.workshop.report.engines_table import print_comparison
from tightrope.workshop.report.run_file import is_comparison, read_comparison, write_run

STATES: tuple[State, ...] = ("not run", "wrong", "refused", "missing", "failed", "skipped")


def measurement(engine: str, seconds: float) -> Measurement:
    """Times that grow with the length."""
    conditions = Conditions(
        target="this machine", processor="A Processor", architecture="x86_64", isa=("avx2",), engine=engine,
        engine_version="1", threads=1, pinned=True, baseline="onnxruntime",
    )  # fmt: skip
    faster = Interval(value=0.01 / seconds, low=0.009 / seconds, high=0.011 / seconds, n=20)
    latencies = tuple(
        Latency(tokens=n, n=20, p50_s=n * seconds, p95_s=2 * n * seconds, p99_s=3 * n * seconds, speedup=faster)
        for n in (12, 32, 128)
    )
    return Measurement(
        conditions=conditions, latencies=latencies, size_bytes=24_000_000, throughput_per_s=100.0,
        memory_peak_bytes=80_000_000, cold_start_s=0.2,
    )  # fmt: skip


def good(engine: str, precision: str, seconds: float) -> Cell:
    """A success that was timed."""
    return Cell(
        engine=engine,
        precision=precision,
        state="measured",
        recipe="int8 + embedding(bits=8)",
        size_bytes=24_000_000,
        artefact_bytes=23_000_000,
        converting_s=3.5,
        parity=Parity(n=9, cosine_min=0.9912, cosine_p1=0.9923, cosine_mean=0.9987, largest_difference=0.0123),
        quality=Quality(
            kind="fidelity", metric="rank_agreement", samples="some texts", n=9, original=1.0, score=0.998,
            loss=Interval(value=0.002, low=0.001, high=0.003, n=9),
        ),
        executed={"int8": 0.95, "fp32": 0.05},
        floats={"layer.0": "no kernel", "layer.1": "no kernel", "layer.2": "too narrow"},
        approximations={"layer.3": "by its own range"},
        measurement=measurement(engine, seconds),
    )  # fmt: skip


@pytest.fixture
def comparison() -> Comparison:
    """Three engines at two precisions that do well, one that is interpreted, and one for every other state."""
    names = ("native", "onnxruntime", "quick", "phone", *(state.replace(" ", "_") for state in STATES))
    cells = [good("native", "fp32", 0.004), good("native", "int8", 0.001), good("onnxruntime", "fp32", 0.01)]
    cells += [replace(good("onnxruntime", "int8", 0.002), state="converted", measurement=None, reason="No time.")]
    cells += [replace(good("phone", "fp32", 1), state="interpreted", reason="By a stand-in.", measurement=None)]
    for state in STATES:
        reason = f"Because of <{state}> & \x1b[31mmore"
        cells += [
            Cell(engine=state.replace(" ", "_"), precision=p, state=state, reason=reason) for p in ("fp32", "int8")
        ]
    return Comparison(
        model="mini<lm>",
        origin="0" * 64,
        command="tightrope compare 'mini<lm>' --engines all",
        started="2026-11-25T12:00:00+00:00",
        seconds=321.0,
        threads=1,
        engines=tuple(Engine(name=name, title=name.title(), version="1.2", install_bytes=5_000_000) for name in names),
        precisions=("fp32", "int8"),
        cells=tuple(cells),
        baseline="original -> onnxruntime",
        samples="some texts",
    )


def printed(found: Comparison, width: int = 100) -> str:
    """What the terminal shows."""
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=width, highlight=False, markup=False, emoji=False))
    return out.getvalue()


def test_the_headline_counts_successes_only(comparison: Comparison) -> None:
    said = engines.headline(comparison)
    assert said.startswith("2 of 10 engines run it, in 4 of 17 forms, 1 more is interpreted")
    assert said.endswith("the fastest with 32 tokens is Native int8: 32 ms")


def test_nothing_that_works_is_no_success(comparison: Comparison) -> None:
    lost = replace(comparison, cells=comparison.in_state(*STATES), baseline=None)
    assert engines.headline(lost) == "0 of 10 engines run it, in 0 of 12 forms"
    assert "Because of <failed>" in printed(lost)
    assert "Because of &lt;failed&gt;" in comparison_page(lost)


def test_the_terminal_says_every_state_with_its_reason(comparison: Comparison) -> None:
    said = printed(comparison)
    lines = [line.strip() for line in said.splitlines()]
    fastest = next(line for line in lines if line.startswith("native int8"))
    assert fastest.split()[2:8] == ["12", "ms", "32", "ms", "128", "ms"]
    for state in STATES:
        assert f"{state.replace(' ', '_').title()} fp32, int8: {state}. Because of <{state}> & \\x1b[31mmore" in said
    assert "\x1b" not in said
    assert "Native int8: 3 layers in float (2 x no kernel)" in said
    assert max(map(len, printed(comparison, 80).splitlines()[1:9])) <= 80


def test_the_page_runs_nothing_and_escapes_everything(comparison: Comparison) -> None:
    page = comparison_page(comparison)

    class Reader(HTMLParser):
        scripts: list[dict[str, str | None]] = []  # noqa: RUF012
        asked: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            if tag == "script":
                self.scripts.append(given)
            self.asked += [str(given[name]) for name in ("src", "href") if name in given]
            assert "style" not in given and not any(name.startswith("on") for name in given)

    Reader().feed(page)
    assert [item["type"] for item in Reader.scripts] == ["application/json"]
    assert Reader.asked == []
    assert "script-src 'none'" in html.unescape(page) and "default-src 'none'" in html.unescape(page)
    assert "mini<lm>" not in page and "\x1b" not in page
    assert page.count('class="bar"') == 3
    for words in (
        "0.9912 / 0.9923 / 0.9987",
        "0.2 % [0.1, 0.3]",
        "95 % int8, 5 % fp32",
        "By a stand-in.",
        "too narrow",
    ):
        assert words in page.replace("&nbsp;", " "), words


def test_a_comparison_survives_the_disk(comparison: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    write_run(comparison, path)
    assert read_comparison(path) == comparison
    assert is_comparison(path)


def test_what_is_not_finite_is_written_and_read_back(comparison: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    first = comparison.cells[0]
    assert first.parity is not None
    broken = replace(first, parity=replace(first.parity, largest_difference=math.nan))
    write_run(replace(comparison, cells=(broken,)), path)
    (found,) = read_comparison(path).cells
    assert found.parity is not None and math.isnan(found.parity.largest_difference)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("cells", 0, "state"), "splendid"),
        (("cells", 0, "parity", "n"), "nine"),
        (("cells", 1, "measurement", "latencies"), 5),
        (("engines", 0, "title"), None),
        (("precisions",), "fp32"),
    ],
)
def test_a_file_that_is_no_comparison_is_refused(comparison: Comparison, tmp_path: Path, where, value) -> None:
    data = json.loads(json.dumps(comparison.to_json()))
    place = data
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    path = tmp_path / "engines.json"
    path.write_text(json.dumps(data))
    with pytest.raises(DataError) as caught:
        read_comparison(path)
    assert len(str(caught.value).splitlines()) == 2
