"""`tightrope serve`, `key` and `completion` on the command line: what they say, to people and to programs."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tightrope.cli.main import COMMANDS, cli
from tightrope.device.serve.limits import Limits

SERVING = ("serve", "key", "model", "index")


def run(*words: str) -> Any:
    """What a command says."""
    return CliRunner().invoke(cli, words)


def test_limits_are_listed_without_anything_to_serve() -> None:
    found = dict(line.split("=") for line in run("serve", "--limit", "list").output.splitlines())
    assert {name: float(value) for name, value in found.items()} == asdict(Limits())
    assert found["cache_bytes"].isdecimal()  # as it may be written, not 4e+06


def test_without_a_path_it_says_what_is_missing() -> None:
    done = run("serve")
    assert done.exit_code == 2 and "PATH is missing" in done.output


def test_a_share_is_a_share(tmp_path: Path) -> None:
    done = run("serve", str(tmp_path), "--otlp", "http://127.0.0.1:4318", "--otlp-share", "many")
    assert done.exit_code == 2 and "--otlp-share" in done.output


@pytest.mark.engine
def test_a_program_is_told_where_the_server_is(native_bundle: Any, tmp_path: Path) -> None:
    bundle = native_bundle(tmp_path / "tiny.bundle")
    options = ("--port", "0", "--threads", "1", "--state", str(tmp_path / "state"), "--json")
    command = [sys.executable, "-m", "tightrope", "serve", str(bundle.path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert said["url"].startswith("http://127.0.0.1:") and said["budget_bytes"] is None
    assert [model["name"] for model in said["models"]] == ["tiny"]


def test_keys_are_told_to_programs_too(tmp_path: Path) -> None:
    file = ("--key-file", str(tmp_path / "keys"), "--json")
    made = json.loads(run("key", "new", "phone", *file).output)
    assert made["name"] == "phone" and len(made["key"]) > 40
    [listed] = json.loads(run("key", "list", *file).output)
    assert listed["name"] == "phone" and made["key"] not in str(listed)
    assert json.loads(run("key", "revoke", "phone", *file).output) == {"revoked": "phone"}


@pytest.mark.parametrize("name", SERVING)
def test_every_option_is_explained_and_whatever_prints_prints_json(name: str) -> None:
    module = cli.get_command(None, name)  # type: ignore[arg-type]
    for command in getattr(module, "commands", {name: module}).values():
        options = {option.name: option for option in command.params if option.param_type_name == "option"}
        assert [one for one, option in options.items() if not option.help] == [], command.name
        assert "as_json" in options, command.name
        assert command.help and command.help.strip(), command.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    assert "_TIGHTROPE_COMPLETE" in run("completion", shell).output


def test_commands_and_options_are_completed() -> None:
    from click.shell_completion import ShellComplete

    def completed(*words: str) -> set[str]:
        *before, last = words
        found = ShellComplete(cli, {}, "tightrope", "_TIGHTROPE_COMPLETE").get_completions(list(before), last)
        return {item.value for item in found}

    assert completed("") == set(COMMANDS)
    assert completed("serve", "--ot") == {"--otlp", "--otlp-share"}
    assert completed("model", "d") == {"deploy"}
