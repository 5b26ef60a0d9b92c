"""`tightrope key`: who may ask a server."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from tightrope.device.serve import keys

_FILE = click.option(
    "--key-file",
    required=True,
    type=click.Path(path_type=Path),
    help="The file that `tightrope serve --key-file` reads.",
)

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group()
def key() -> None:
    """Make, list and revoke the keys of a server.

    \b
    tightrope key new phone --key-file keys --rate 10
    tightrope serve minilm.bundle --key-file keys
    curl localhost:8080/v1/models -H "Authorization: Bearer KEY"
    """


@key.command()
@click.argument("name")
@_FILE
@click.option("--rate", default=0.0, help="Requests a second that it may make. Left out or 0, any number.")
@click.option("--in-flight", default=0, help="Requests that it may have under way. Left out or 0, any number.")
@_JSON
def new(name: str, key_file: Path, rate: float, in_flight: int, as_json: bool) -> None:
    """Make a key called NAME, and print it this once.

    The file holds its hash only; it is made if it is not there, and a running server takes the key within a second.
    """
    secret = keys.new(key_file, name, rate=rate, in_flight=in_flight)
    click.echo(json.dumps({"name": name, "key": secret}) if as_json else secret)


@key.command(name="list")
@_FILE
@_JSON
def listed(key_file: Path, as_json: bool) -> None:
    """List the keys by name, with their limits."""
    found = keys.read(key_file)
    if as_json:
        shown = [{name: value for name, value in asdict(item).items() if name != "sha256"} for item in found]
        click.echo(json.dumps(shown, indent=2))
        return
    for item in found:
        rate = f"{item.rate:g} a second" if item.rate else "any rate"
        flight = f"{item.in_flight} at once" if item.in_flight else "any number at once"
        click.echo(f"{item.name:24} {item.created:12} {rate}, {flight}")


@key.command()
@click.argument("name")
@_FILE
@_JSON
def revoke(name: str, key_file: Path, as_json: bool) -> None:
    """Take the key called NAME away. A running server refuses it within a second."""
    keys.revoke(key_file, name)
    click.echo(json.dumps({"revoked": name}) if as_json else f"{name} is revoked.")
