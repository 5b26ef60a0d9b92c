"""Models of the hub: a real huggingface_hub against a small hub on loopback."""

import os
import subprocess
import sys

import pytest

from tightrope.errors import SourceError
from tightrope.workshop.sources import folder, hub

CLOSED = "http://127.0.0.1:9"
"""Nobody listens to the discard port."""


@pytest.fixture
def get(hub, tmp_path):
    """`get(name)`: fetch from the hub on loopback into a cache of its own."""
    from tightrope.workshop.sources import hub as source

    def fetch(name, *, cached_only=False, endpoint=hub.url):
        return source.fetch(name, cached_only=cached_only, cache=tmp_path / "hub", endpoint=endpoint)

    return fetch


def test_a_model_is_fetched_and_only_its_data(hub, get, bert_folder):
    (bert_folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (bert_folder / "modeling.py").write_text("raise SystemExit")
    (bert_folder / "onnx").mkdir()
    (bert_folder / "onnx" / "config.json").write_text("{}")
    hub.models["org/model"] = bert_folder
    place = get("org/model")
    found = {str(item.relative_to(place)) for item in place.rglob("*") if item.is_file()}
    assert found == {"config.json", "modules.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}
    assert folder.load(place).digest == folder.load(bert_folder).digest
    assert not any(".bin" in line or ".py" in line for line in hub.seen)


def test_what_is_cached_is_asked_for_no_more(hub, get, bert_folder):
    hub.models["org/model"] = bert_folder
    place = get("org/model")
    hub.seen.clear()
    assert get("org/model") == place == get("org/model", cached_only=True)
    assert get("org/model", endpoint=CLOSED) == place
    assert hub.seen == []


def test_a_cache_with_a_hole_is_filled(hub, get, bert_folder):
    hub.models["org/model"] = bert_folder
    place = get("org/model")
    (place / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="not in the hub's cache"):
        get("org/model", cached_only=True)
    assert (get("org/model") / "model.safetensors").is_file()


def test_a_revision_is_honoured(hub, get, bert_folder):
    hub.models["org/model"] = bert_folder
    assert get("org/model@v1").name == get("org/model").name
    assert any("/revision/v1" in line for line in hub.seen)


@pytest.mark.parametrize(
    ("name", "endpoint", "said", "way_out"),
    [
        ("org/other", None, "no model org/other on the hub", "HF_TOKEN"),
        ("org/model@v9", None, "no revision 'v9'", "revision"),
        ("org/model", CLOSED, "could not be fetched", "network"),
        ("org/../../etc", None, "not a name", "hf:org/name"),
        ("a/b/c", None, "not a name", "hf:org/name"),
        ("org/model@", None, "not a name", "hf:org/name"),
        ("", None, "not a name", "hf:org/name"),
    ],
)
def test_what_cannot_be_had_is_said_in_two_lines(hub, get, bert_folder, two_lines, name, endpoint, said, way_out):
    hub.models["org/model"] = bert_folder
    with pytest.raises(SourceError) as raised:
        get(name, endpoint=endpoint or hub.url)
    first, second = two_lines(raised)
    assert said in first and way_out in second


def test_cached_only_never_asks(hub, get, bert_folder, two_lines):
    hub.models["org/model"] = bert_folder
    with pytest.raises(SourceError, match="not in the hub's cache") as raised:
        get("org/model", cached_only=True)
    assert "hf:org/model" in two_lines(raised)[1]
    assert hub.seen == []


@pytest.mark.slow
def test_the_hubs_own_settings_hold(hub, bert_folder, tmp_path):
    """HF_ENDPOINT and HF_HOME are read when huggingface_hub is imported; so this needs a process of its own."""
    hub.models["org/model"] = bert_folder
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    code = "import sys; from tightrope.workshop.load import load; print(load(sys.argv[1]).digest)"

    def run(source, **more):
        environment = os.environ | settings | more
        command = [sys.executable, "-c", code, source]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    first = run("hf:org/model")
    assert first.stdout.strip() == folder.load(bert_folder).digest, first.stderr
    offline = run("hf-cache:org/model", HF_ENDPOINT=CLOSED, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stderr


def test_only_data_files_are_allowed():
    assert set(hub.ALLOWED) == {"*.safetensors", "*.json", "*.txt"}


@pytest.mark.parametrize("name", ["../../evil.json", "/evil.json", "a/../../../evil.json"])
def test_a_hub_that_names_paths_outside_is_not_followed(hub, get, bert_folder, tmp_path, two_lines, name):
    hub.models["org/model"] = bert_folder
    hub.extra.append(name)
    (bert_folder.parent / "evil.json").write_text("{}")
    try:
        get("org/model")
    except SourceError as error:
        assert len(str(error).splitlines()) == 2
    escaped = [item for item in tmp_path.rglob("evil.json") if item != bert_folder.parent / "evil.json"]
    assert all(item.is_relative_to(tmp_path / "hub") for item in escaped)
