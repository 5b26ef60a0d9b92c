"""`tightrope export` as a user calls it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tightrope.bundle import Bundle
from tightrope.cli.main import cli
from tightrope.errors import BundleError


def called(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_without_a_kind_it_says_which_there_are(native_bundle: Callable[..., Bundle], tmp_path: Path):
    made = native_bundle(tmp_path / "tiny.bundle")
    done = called(made.path)
    assert done.exit_code == 2
    assert "--android OUT, --ios OUT, --tensorrt OUT" in done.output


@pytest.mark.parametrize(("kind", "engine"), [("android", "litert"), ("ios", "coreml"), ("tensorrt", "tensorrt")])
def test_a_bundle_for_another_engine_is_refused(native_bundle, tmp_path: Path, kind: str, engine: str):
    made = native_bundle(tmp_path / "tiny.bundle")
    done = called(made.path, f"--{kind}", tmp_path / "out")
    assert isinstance(done.exception, BundleError)
    assert f"holds nothing for {engine}; it has: native" in done.exception.message
    assert not (tmp_path / "out").exists()
