"""What tests share: what they need and may lack, and the real model."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from tightrope.errors import SourceError
from tightrope.workshop.load import load
from tightrope.workshop.network import Network

INSTALL = {
    "torch": "pip install torch==2.13.0 && pip install 'tightrope[torch]'",
    "openvino": "pip install 'tightrope[openvino]'",
    "browser": "install Chromium (Debian: apt-get install chromium)",
    "data": "set TIGHTROPE_DATA to the folder of evaluation data",
    "index": "allow pip to reach a package index",
}


def lacking(what: str) -> NoReturn:
    """Skip, saying what to install; or fail, if TIGHTROPE_REQUIRE says that it must be here."""
    message = f"needs {what}: {INSTALL[what]}"
    if what in os.environ.get("TIGHTROPE_REQUIRE", "").split(","):
        pytest.fail(message)
    pytest.skip(message)


def need(*modules: str) -> None:
    """Go on only if these modules can be imported."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            lacking("torch" if name == "transformers" else name)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    return found or lacking("browser")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of evaluation data, which is not part of the project."""
    folder = Path(os.environ.get("TIGHTROPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return folder if folder.is_dir() else lacking("data")


@pytest.fixture(scope="session")
def minilm() -> Network:
    """The real all-MiniLM-L6-v2."""
    try:
        model = load("all-MiniLM-L6-v2")
    except SourceError:
        lacking("index")
    assert isinstance(model, Network)
    return model
