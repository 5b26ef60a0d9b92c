import sys
from pathlib import Path

import pytest

from tightrope import plugins
from tightrope.errors import MissingExtraError, UnknownNameError


@pytest.mark.parametrize("room", plugins.ROOMS)
def test_every_file_of_a_room_is_found_by_a_name_of_its_own(room: str) -> None:
    folder = Path(plugins.__file__).parent.joinpath(*plugins.ROOMS[room].split(".")[1:])
    files = [path.stem for path in folder.rglob("*.py") if not path.stem.startswith("_")]
    assert sorted(plugins.names(room)) == sorted(files)
    assert len(set(files)) == len(files)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no 'int9'[\s\S]*int8"):
        plugins.load("passes", "int9")


def test_a_missing_engine_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise ModuleNotFoundError("No module named 'openvino'", name="openvino")

    monkeypatch.setattr(plugins, "import_module", absent)
    with pytest.raises(MissingExtraError) as caught:
        plugins.load("runtimes", "openvino")
    assert caught.value.hint == "pip install 'tightrope[openvino]'"


def test_a_fault_of_our_own_is_not_disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise ModuleNotFoundError("No module named 'tightrope.typo'", name="tightrope.typo")

    monkeypatch.setattr(plugins, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="typo"):
        plugins.load("runtimes", "openvino")


def test_an_interrupt_waits_until_a_module_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_load.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nloaded = True\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        plugins.import_optional("slow_to_load", wanted_by="a test")
    assert sys.modules["slow_to_load"].loaded
