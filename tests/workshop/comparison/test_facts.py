"""What is known of engines: the table has every engine of ours, and says of its package what the package says."""

from importlib import metadata

import pytest

from tightrope import plugins
from tightrope.workshop.comparison import facts


def test_every_engine_of_ours_is_in_the_table_and_nothing_else_is() -> None:
    own = set(plugins._files("converters")) & set(plugins._files("runtimes"))
    assert own <= set(facts._table())
    assert list(facts.names())[:3] == ["native", "onnxruntime", "openvino"]


@pytest.mark.parametrize("name", sorted(facts._table()))
def test_an_entry_is_complete(name: str) -> None:
    entry = facts._table()[name]
    assert set(entry) == {"title", "license", "python", "architectures", "distributions", "source"}
    assert all(entry[key] for key in ("title", "license", "python", "architectures", "source"))


@pytest.mark.parametrize("name", [name for name in sorted(facts._table()) if name != "native"])
def test_the_licence_is_the_packages_own(name: str) -> None:
    try:
        about = metadata.metadata(facts._table()[name]["distributions"][0])
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs {name}: pip install 'tightrope[{name}]'")
    told = f"{about.get('License-Expression')} {about.get('License')} {about.get_all('Classifier')}".lower()
    first = facts._table()[name]["license"].partition("-")[0].lower()
    assert first in told


def test_sizes_are_those_of_the_files_here() -> None:
    native, runtime = facts.known("native", "1"), facts.known("onnxruntime", "1")
    assert native.version == "1" and native.install_bytes and 100_000 < native.install_bytes < 5_000_000
    assert runtime.install_bytes and 10_000_000 < runtime.install_bytes < 500_000_000
    assert facts.installed_bytes(["no-such-distribution", "onnxruntime"]) is None
    assert facts.installed_bytes([]) is None


def test_an_unknown_engine_is_only_a_name() -> None:
    assert facts.known("unheard-of").license is None
