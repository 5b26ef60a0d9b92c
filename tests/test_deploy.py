"""The files for running it: what can be checked without a board is checked, above all that their commands exist."""

import configparser
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tightrope.cli.main import cli
from tightrope.device.serve.http.app import ROUTES
from tightrope.device.serve.limits import Limits

DEPLOY = Path(__file__).parents[1] / "deploy"
SERVE = cli.get_command(click.Context(cli), "serve")


def options(words):
    """The options that a command line gives, parsed by the command itself but for the files, which are not here."""
    known = {name: option for option in SERVE.params for name in option.opts}
    given = [word for word in words if word.startswith("--")]
    assert given and set(given) <= set(known), words
    return dict(zip(given, (words[words.index(name) + 1] for name in given), strict=True))


def unit():
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read_string((DEPLOY / "tightrope.service").read_text())
    return parser


def test_the_units_command_exists_and_stops_in_time():
    service = unit()["Service"]
    program, command, path, *rest = shlex.split(service["ExecStart"])
    assert program.endswith("/tightrope") and command == "serve" and path.startswith("/var/lib/")
    given = options(rest)
    assert given["--key-file"] and given["--host"] == "0.0.0.0"
    assert float(service["TimeoutStopSec"]) > Limits().drain_s
    assert int(service["MemoryMax"].rstrip("M")) * 2**20 > int(given["--memory"].removesuffix("MB")) * 1e6


def test_the_image_starts_the_same_command():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert entry == 'ENTRYPOINT ["tightrope", "serve"]'
    words = [
        word.strip(' "')
        for word in next(line for line in lines if line.startswith("CMD")).split("[")[1].rstrip("]").split(",")
    ]
    assert options(words[1:])["--key-file"] == "/keys"


def test_the_manifests_probes_are_routes_that_need_no_key():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")
    deployment, service = yaml.safe_load_all((DEPLOY / "k3s.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert options(container["args"][1:])["--memory"] == "300MB"
    open_paths = {route.path for route in ROUTES if route.open}
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert all(probe["path"] in open_paths and probe["port"] == 8080 for probe in probes)
    assert pod["terminationGracePeriodSeconds"] > Limits().drain_s
    assert service["spec"]["ports"] == [{"port": 8080}]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/models", "/var/lib/tightrope", "/secret"} == mounted


def test_every_option_of_serve_is_explained():
    done = subprocess.run(
        [sys.executable, "-m", "tightrope", "serve", "--help"], capture_output=True, text=True, check=True
    )
    assert all(option.help for option in SERVE.params if isinstance(option, click.Option))
    assert "--memory" in done.stdout and "dashboard" in done.stdout
