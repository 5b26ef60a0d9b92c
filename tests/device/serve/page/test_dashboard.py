"""The page as it leaves the server: its policy names its own style and script, and nothing is asked of anybody."""

import base64
import hashlib
import json
import re

import pytest

from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.page.dashboard import dashboard, headers, log_in
from tightrope.device.serve.page.status import PERIOD_S, POINTS, History, document


def hashed(text: str) -> str:
    """As a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize("name", ["dashboard", "log_in"])
def test_the_policy_names_what_is_in_the_page(name: str) -> None:
    page = (dashboard({"models": []}) if name == "dashboard" else log_in("no")).decode()
    policy = headers(name)["content-security-policy"]
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert f"style-src {hashed(style)};" in policy
    assert [hashed(script) in policy for script in scripts] == ([True] if name == "dashboard" else [])
    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
    assert not re.search(r'(?:src|href)="(?!data:|/|#)', page)
    assert " style=" not in page and not re.search(r"\son\w+=", page)


def test_no_word_of_the_state_ends_its_element() -> None:
    state = {"name": "</script><script>attack()</script><!--"}
    page = dashboard(state).decode()
    [inner] = re.findall(r'id="state">(.*?)</script>', page, re.DOTALL)
    assert json.loads(inner) == state
    assert "attack()</script>" not in page
    assert "&lt;b&gt;" in log_in("<b>").decode()


def test_history_is_as_long_as_it_says_and_knows_each_interval() -> None:
    metrics = Metrics()
    history = History(metrics)
    assert len(history.points) == POINTS
    assert history.points[0] == {
        "id": "-150",
        **dict.fromkeys(("rate", "refused", "p50", "p95", "p99", "queue", "memory")),
    }
    for seconds in (0.1, 0.2, 0.3):
        metrics.request_seconds.observe(seconds, api="tei")
        metrics.request_seconds.observe(9.0, api="health")
    metrics.refused.add(4, reason="overloaded")
    history.sample(2.0)
    metrics.request_seconds.observe(0.05, api="openai")
    history.sample(2.0)
    history.sample(2.0)
    first, second, third = history.points[-3:]
    assert (first["rate"], first["refused"], first["p50"], first["p99"]) == (1.5, 2, 0.2, 0.3)
    assert (second["rate"], second["p50"], second["refused"]) == (0.5, 0.05, 0)
    assert (third["rate"], third["p50"]) == (0, None)
    assert len({point["id"] for point in history.points}) == len(history.points) == POINTS


def test_the_document_is_plain() -> None:
    metrics = Metrics()
    found = document(metrics, History(metrics), server={"version": "1"}, models=[], indexes=[])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["server"]["period_s"] == PERIOD_S
