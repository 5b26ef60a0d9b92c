"""What the tests of the converters share: the native tokenizer."""

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wordpiece(tmp_path_factory):
    """The native tokenizer: `encode(packed, text, max_length)`, `encode_pair`, `vocabulary`, and `error`."""
    native = runpy.run_path(str(Path(__file__).with_name("_native.py")))["Native"]
    return native(tmp_path_factory.mktemp("wordpiece"))
