"""The page on clients: what it shows runs, against a real server with a small model of that name."""

import re
from pathlib import Path

import numpy as np
import pytest

import tightrope

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "clients.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MODULES = ["openai", "huggingface_hub", "tritonclient.http", "urllib.request"]
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def url(native_bundle, tmp_path_factory):
    bundle = native_bundle(tmp_path_factory.mktemp("page") / "minilm.bundle")
    with tightrope.serve(bundle.path, threads=1) as server:
        yield server.url


@pytest.mark.parametrize(("block", "module"), list(zip(BLOCKS, MODULES, strict=True)), ids=MODULES)
def test_what_the_page_shows_runs(block, module, url, capsys):
    pytest.importorskip(module)
    found: dict[str, object] = {"url": url}
    exec(compile(block, "clients.md", "exec"), found)
    first = capsys.readouterr().out.split()[0]
    assert first == "32" if module == "urllib.request" else first == "2" or first.startswith("(2")
    assert all(np.isfinite(found[name]).all() for name in ("rows", "scores") if name in found)


def test_every_route_that_the_page_names_is_there():
    from tightrope.device.serve.http import health, oip, openai, tei

    known = {route.path for module in (health, oip, openai, tei) for route in module.ROUTES}
    named = set(re.findall(r"`(?:GET )?(/[\w/]*)`", PAGE)) - {"/openapi.json"}
    assert {path.replace("NAME", "{model}") for path in named} <= known | {"/v2/models/{model}/versions/VERSION"}
