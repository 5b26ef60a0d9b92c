"""The page is whole, asks for nothing, says everything, and lets no word of a model or a user become HTML."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tightrope.errors import OutputError
from tightrope.workshop.report.charts import chart_data
from tightrope.workshop.report.page import page, write_page
from tightrope.workshop.search.trial import Run, Trial

Make = Callable[..., Run]
ATTACK = "</script><script>window.attacked=1</script><img src=x onerror=window.attacked=1>'\"\u2028<!--\ud800\x1b[2J"


class Reader(HTMLParser):
    """Collects what a browser would see: elements, their attributes, the texts of scripts and the visible words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and self.cdata_elem:
            self.raw.append((self.elements[-1][1], data))
        else:
            self.words += data

    def data(self, name: str) -> Any:
        return json.loads("".join(text for attributes, text in self.raw if attributes.get("id") == name))


def test_the_page_asks_for_nothing(make_run: Make) -> None:
    for name, attributes in Reader(page(make_run())).elements:
        assert name not in ("link", "iframe", "object", "embed", "base", "form", "img")
        assert not {"src", "href", "action", "style", "srcset"} & attributes.keys()
        assert not any(key.startswith("on") for key in attributes)


def test_the_policy_names_exactly_the_scripts_and_the_style_inside(make_run: Make) -> None:
    text = page(make_run())
    policy = next(a["content"] for n, a in Reader(text).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    found = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", text, re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in found}
    assert len(found) == 3
    assert set(re.findall(r"'sha256-[^']+'", policy)) == hashes


def test_every_candidate_is_there_with_its_reason(make_run: Make) -> None:
    run = make_run()
    words = Reader(page(run)).words
    for trial in run.trials:
        assert trial.recipe in words
        assert (trial.reason or "") in words
        assert all(breach in words for breach in trial.breaches)


def test_the_figures_that_people_ask_for_are_there(make_run: Make) -> None:
    words = Reader(page(make_run())).words.replace("\xa0", " ")
    for said in (
        "4.4x smaller, 2.3x faster, loses 0.24 % [0.13, 0.37].",
        "Fits the budget",
        "A Processor with 2 Cores",
        "openvino 2026.4.1",
        "1 thread, pinned",
        "2.31x [2.24, 2.38]",
        "not measured",  # energy
        "3 texts were longer than the model's limit",
        "int8 98.1 %",
        "2 layers: 1 in int8, 1 in fp32",
        "encoder.layer.0.output.dense",
        "tightrope fit all-MiniLM-L6-v2 --budget",
        "53aa" * 16,
        "tools.openvino",
        "avx512-vnni 1.00000, avx2 0.99987",
        "Permission is hereby granted",
    ):
        assert said in words, said


def test_the_whole_run_lies_inside_as_data(make_run: Make) -> None:
    run = make_run()
    assert Reader(page(run)).data("run") == json.loads(json.dumps(run.to_json()))


def test_no_success_says_so_and_why(make_run: Make) -> None:
    run = make_run(chosen=None, nearest=make_run().trials[7].recipe, breaches=("speedup is 1.21x, too slow",))
    words = Reader(page(run)).words
    assert "Nothing fits the budget" in words
    assert "Fits the budget" not in words
    assert "speedup is 1.21x, too slow" in words
    assert "missed" in words
    assert "unknown: the engine does not tell" in words


def test_a_run_that_found_nothing_still_has_a_page(make_run: Make) -> None:
    run = make_run()
    bare = replace(run.baseline, measurement=None, quality=None, parity=None, size_bytes=None)
    empty = make_run(
        baseline=bare,
        trials=(),
        frontier=(),
        chosen=None,
        report=None,
        report_parity=None,
        sensitivity={},
        budget=("??",),
    )
    words = Reader(page(empty)).words
    assert "No candidate came far enough" in words
    assert "not judged" in words
    assert "Sensitivity" not in words


def test_no_word_from_outside_becomes_html(make_run: Make) -> None:
    run = make_run()
    trial = replace(run.trials[0], recipe=ATTACK, reason=ATTACK, breaches=(ATTACK,), floats={ATTACK: ATTACK})
    attacked = make_run(
        model=ATTACK,
        command=ATTACK,
        origin=ATTACK,
        target=ATTACK,
        started=ATTACK,
        bundle=ATTACK,
        budget=(ATTACK,),
        breaches=(ATTACK,),
        trials=(trial, *run.trials[1:]),
        chosen=ATTACK,
        frontier=(ATTACK,),
        sensitivity={ATTACK: 0.5},
        lineage={ATTACK: {ATTACK: [ATTACK]}},
    )
    calm, found = Reader(page(run)), Reader(page(attacked))
    page(attacked).encode()  # a lone surrogate would not encode
    names = [name for name, _ in found.elements]
    assert names.count("script") == [name for name, _ in calm.elements].count("script")
    assert "img" not in names
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert found.data("run")["model"] == ATTACK
    assert "\x1b" not in found.words


def test_nan_and_missing_figures_reach_no_chart(make_run: Make) -> None:
    run = make_run()
    parity = replace(run.trials[0].parity, cosine_min=float("nan"))  # type: ignore[type-var]
    data = chart_data(make_run(trials=(replace(run.trials[0], parity=parity), *run.trials[1:])))
    json.dumps(data, allow_nan=False)
    assert "cosine_min" not in data["points"][0]["values"]
    assert [axis["name"] for axis in data["axes"]].count("latency32") == 1


def test_an_engine_that_does_not_tell_its_layers_has_no_list_of_them(make_run: Make) -> None:
    assert " layers: " not in Reader(page(make_run(chosen=make_run().trials[2].recipe))).words


def test_a_distribution_is_drawn_where_it_is_known(make_run: Make) -> None:
    run = make_run()
    assert 'id="chart-distribution"' in page(run)
    latencies = chart_data(run)["latency"]
    assert {(item["name"], item["tokens"], len(item["quantiles"])) for item in latencies} == {
        (name, tokens, 101) for name in ("original", "chosen") for tokens in (12, 32, 128)
    }


def test_a_run_of_an_older_version_has_no_distribution(make_run: Make) -> None:
    def older(trial: Trial) -> Trial:
        found = trial.measurement
        assert found is not None
        bare = tuple(replace(item, quantiles_s=()) for item in found.latencies)
        return replace(trial, measurement=replace(found, latencies=bare))

    run = make_run()
    chosen = older(run.trial(run.chosen or ""))
    aged = replace(run, baseline=older(run.baseline), trials=(chosen, *run.trials[1:]))
    assert 'id="chart-distribution"' not in page(aged)
    data = aged.to_json()
    for trial in (data["baseline"], data["trials"][0]):
        for latency in trial["measurement"]["latencies"]:
            del latency["quantiles_s"]
    assert Run.from_json(data) == aged


def test_the_page_is_written_whole_or_not_at_all(make_run: Make, tmp_path: Path) -> None:
    write_page(make_run(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(make_run())
    with pytest.raises(OutputError):
        write_page(make_run(), tmp_path / "nowhere" / "report.html")
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]
