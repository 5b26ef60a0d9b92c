"""The files for running it: what can be checked without a board is checked, above all that their commands exist."""

import configparser
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tightrope.cli.main import cli
from tightrope.device.serve.http.app import ROUTES
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.logs import RATE_PER_S

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


def test_the_log_that_goes_to_a_file_is_rotated_without_a_restart():
    text = (DEPLOY / "tightrope.logrotate").read_text()
    head, _, rest = text.partition("{")
    assert head.splitlines()[-1].split()[0] == "/var/log/tightrope/*.log"
    words = [line.split("#")[0].strip() for line in rest.partition("}")[0].splitlines()]
    assert {"copytruncate", "compress", "missingok", "rotate 7", "maxsize 10M"} <= set(words)


def test_logrotate_takes_the_file(tmp_path):
    """A log that a process holds open goes on in the same file, and the old lines are beside it."""
    program = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("needs logrotate: apt-get install logrotate")
    config = (DEPLOY / "tightrope.logrotate").read_text().replace("/var/log/tightrope", str(tmp_path))
    (tmp_path / "config").write_text(config)
    with (tmp_path / "server.log").open("a") as held:
        held.write('{"event":"before"}\n')
        held.flush()
        subprocess.run([program, "--force", "--state", tmp_path / "state", tmp_path / "config"], check=True)
        held.write('{"event":"after"}\n')
    assert (tmp_path / "server.log.1").read_text() == '{"event":"before"}\n'
    assert (tmp_path / "server.log").read_text() == '{"event":"after"}\n'


def test_the_journal_is_bounded():
    parser = configparser.RawConfigParser()
    parser.optionxform = str
    parser.read_string((DEPLOY / "journald.conf").read_text())
    assert parser["Journal"]["SystemMaxUse"] == "50M"
    per_s = int(parser["Journal"]["RateLimitBurst"]) / float(parser["Journal"]["RateLimitIntervalSec"].rstrip("s"))
    assert per_s > RATE_PER_S, "the server's own log is thinned before the journal thins it"
