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


@click.group()
def key() -> None:
    """Make, list and revoke the keys of a server.

    \b
    tightrope key new phone --key-file keys --rate 10
    tightrope serve minilm.bundle --host 0.0.0.0 --key-file keys
    """


@key.command()
@click.argument("name")
@_FILE
@click.option("--rate", default=0.0, help="Requests a second; 0 for any number.")
@click.option("--in-flight", default=0, help="Requests at once; 0 for any number.")
def new(name: str, key_file: Path, rate: float, in_flight: int) -> None:
    """Add a key called NAME, and say it this once: the file holds its hash only."""
    click.echo(keys.new(key_file, name, rate=rate, in_flight=in_flight))


@key.command(name="list")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="For programs.")
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
def revoke(name: str, key_file: Path) -> None:
    """Take a key away. A running server refuses it within a second."""
    keys.revoke(key_file, name)
    click.echo(f"{name} is revoked.")
