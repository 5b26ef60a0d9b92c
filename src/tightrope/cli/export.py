"""The command that writes a project around a bundle's model, for tools that build apps and engines."""

from pathlib import Path

import click

from tightrope import bundle
from tightrope.cli.bundles import BUNDLE
from tightrope.plugins import import_optional

KINDS = ("android", "ios", "tensorrt")


@click.command()
@BUNDLE
@click.option(
    "--android", type=click.Path(path_type=Path), help="A Gradle project; the bundle must hold LiteRT's form."
)
@click.option("--ios", type=click.Path(path_type=Path), help="A Swift package; the bundle must hold Core ML's form.")
@click.option("--tensorrt", type=click.Path(path_type=Path), help="What trtexec builds an engine from.")
def export(path: Path, **wanted: Path | None) -> None:
    """Write a project around the model of BUNDLE, which the app's own tools build.

    Each folder is new. The projects hold the model, a tokenizer in their own language, and tests with the answers that
    the bundle records; their README says what was run where they were written, and what was not.
    """
    folders = {kind: folder for kind, folder in wanted.items() if folder is not None}
    if not folders:
        raise click.UsageError(f"Say what to export: {', '.join(f'--{kind} OUT' for kind in KINDS)}.")
    source = bundle.read(path)
    for kind, folder in folders.items():
        module = import_optional(f"tightrope.workshop.exports.{kind}", wanted_by=f"tightrope export --{kind}")
        click.echo(f"{module.export(source, folder)}: see its {'build.sh' if kind == 'tensorrt' else 'README.md'}")
