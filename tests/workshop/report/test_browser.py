"""The page in a real browser: charts are drawn, nothing scrolls sideways, tables sort, attacks stay words."""

import json
import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightrope.workshop.report.page import write_page
from tightrope.workshop.search.trial import Run

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Make = Callable[..., Run]

QUESTIONS = """<!doctype html>
<iframe id="frame" src="report.html" width="WIDTH" height="3000"></iframe><pre id="answer"></pre>
<script>
frame.addEventListener("load", () => setTimeout(() => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const inked = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v);
  const first = () => page.querySelector("#trials tbody tr:not([hidden]) code").textContent;
  const found = {
    attacked: view.attacked ?? null,
    charts: [...page.querySelectorAll("canvas")].map((one) => [one.id, !one.parentElement.hidden && inked(one)]),
    sideways: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    background: view.getComputedStyle(page.body).backgroundColor,
    ink: view.getComputedStyle(page.body).color,
    font: view.getComputedStyle(page.body).fontSize,
    first: first(),
  };
  const sort = page.getElementById("sort");
  sort.value = "size"; sort.dispatchEvent(new view.Event("change"));
  found.smallest = first();
  const axis = page.getElementById("axis-x");
  axis.value = "size"; axis.dispatchEvent(new view.Event("change"));
  found.redrawn = inked(page.getElementById("chart-frontier"));
  const find = page.getElementById("find");
  find.value = "signal 11"; find.dispatchEvent(new view.Event("input"));
  found.matches = page.getElementById("matches").textContent;
  answer.textContent = JSON.stringify(found);
}, 400));
</script>"""


def _chromium(program: str, folder: Path, *options: str) -> str:
    """Run headless Chromium on a profile of its own, and give back what it printed."""
    fixed = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=5000"),
        f"--user-data-dir={folder / 'profile'}",
    )
    done = subprocess.run([program, *fixed, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line]
    assert not complaints  # an error of the script, or a breach of the page's policy
    return done.stdout


def _ask(program: str, folder: Path, run: Run, width: int, scheme: str) -> dict[str, Any]:
    write_page(run, folder / "report.html")
    (folder / "ask.html").write_text(QUESTIONS.replace("WIDTH", str(width)))
    preferred = f"--blink-settings=preferredColorScheme={'0' if scheme == 'dark' else '1'}"
    said = _chromium(program, folder, preferred, "--window-size=1400,3200", "--dump-dom", f"file://{folder}/ask.html")
    answer = re.search(r'<pre id="answer">(.+?)</pre>', said)
    assert answer is not None, said[-500:]
    found: dict[str, Any] = json.loads(answer[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    return found


def _brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_works(make_run: Make, chromium: str, tmp_path: Path, width: int, scheme: str) -> None:
    run = make_run()
    found = _ask(chromium, tmp_path, run, width, scheme)
    names = ("frontier", "latency", "distribution", "sensitivity")
    assert found["charts"] == [[f"chart-{name}", True] for name in names]
    assert found["sideways"] == 0
    assert found["redrawn"] is True
    assert found["first"] == run.chosen
    assert found["smallest"].startswith("int4(block=128")
    assert found["matches"] == f"1 of {len(run.trials) + 1} shown."
    paper, ink = _brightness(found["background"]), _brightness(found["ink"])
    assert (paper > 0.9 and ink < 0.2) if scheme == "light" else (paper < 0.1 and ink > 0.8)


def test_words_from_outside_do_nothing_and_do_not_widen_the_page(make_run: Make, chromium: str, tmp_path: Path) -> None:
    run = make_run()
    attack = "</script><script>window.attacked=1</script><img src=x onerror='window.attacked=1'>" + "x" * 300
    trial = replace(run.trials[0], recipe=attack, reason=attack)
    attacked = make_run(
        model=attack,
        command=attack,
        chosen=attack,
        trials=(trial, *run.trials[1:]),
        sensitivity={attack: 0.5, "b": 0.1},
    )
    found = _ask(chromium, tmp_path, attacked, 390, "light")
    assert found["attacked"] is None
    assert found["first"] == attack
    assert found["sideways"] == 0
    assert all(drawn for _, drawn in found["charts"])


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (500, "light")])
def test_a_screenshot_can_be_taken(make_run: Make, chromium: str, tmp_path: Path, width: int, theme: str) -> None:
    write_page(make_run(), tmp_path / "report.html")
    shot = tmp_path / "shot.png"
    address = f"file://{tmp_path}/report.html?theme={theme}"
    _chromium(chromium, tmp_path, f"--screenshot={shot}", f"--window-size={width},2400", address)
    data = shot.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, 2400)
    assert len(data) > 40_000  # an empty page of this size compresses to a fraction of that
