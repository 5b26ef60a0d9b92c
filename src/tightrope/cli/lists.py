"""Commands that list what there is: targets, recipes, the cache, and completion for the shell."""

import inspect
import json
from dataclasses import asdict, fields
from typing import Any

import click

from tightrope import plugins, target, units
from tightrope.errors import MissingExtraError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def targets(as_json: bool) -> None:
    """List the devices that tightrope knows."""
    known = [target.load(name) for name in target.names()]
    if as_json:
        click.echo(json.dumps([asdict(item) for item in known], indent=2))
        return
    for item in known:
        click.echo(f"{item.name:<18} {item.description}")
        isa = ", ".join(item.isa)
        memory = units.show(item.memory_bytes, "bytes")
        click.echo(
            f"{'':<18} {item.architecture} ({isa}), {item.cores} cores, {memory}; runs {', '.join(item.engines)}"
        )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def recipes(as_json: bool) -> None:
    """List the named recipes, and the techniques that a recipe can be made of with their options."""
    from tightrope.workshop.recipes import named

    techniques: dict[str, dict[str, Any]] = {}
    for name in plugins.names("passes"):
        try:
            module = plugins.load("passes", name)
        except MissingExtraError as error:
            techniques[name] = {"about": error.message, "options": {}}
            continue
        about = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        techniques[name] = {"about": about, "options": {item.name: item.default for item in fields(module.Options)}}
    if as_json:
        click.echo(
            json.dumps({"recipes": {key: str(value) for key, value in named().items()}, "steps": techniques}, indent=2)
        )
        return
    click.echo("Named recipes")
    for name, recipe in named().items():
        click.echo(f"  {name:<22} {recipe}")
    click.echo("\nSteps")
    for name, item in techniques.items():
        options = ", ".join(f"{key}={value if value != '' else '…'}" for key, value in item["options"].items())
        click.echo(f"  {name:<12} {item['about']}")
        click.echo(f"  {'':<12} {options or 'no options'}")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """Show what earlier runs left behind to resume from; `cache prune` removes it."""
    if ctx.invoked_subcommand:
        return
    store = plugins.import_optional("tightrope.workshop.cache", wanted_by="tightrope cache")
    sizes: dict[str, list[int]] = {}
    for entry in store.entries():
        sizes.setdefault(entry.kind, []).append(entry.size_bytes)
    if as_json:
        kinds = {kind: {"entries": len(found), "bytes": sum(found)} for kind, found in sizes.items()}
        click.echo(json.dumps({"folder": str(store.cache_folder()), "kinds": kinds}, indent=2))
        return
    click.echo(store.cache_folder())
    for kind, found in sorted(sizes.items()):
        click.echo(f"  {kind:<14} {len(found):>5} entries  {units.show(sum(found), 'bytes'):>9}")
    total = [size for found in sizes.values() for size in found]
    click.echo(f"  {'in all':<14} {len(total):>5} entries  {units.show(sum(total), 'bytes'):>9}")


@cache.command()
@click.option("--keep", default="0B", show_default=True, help="How much to keep, the most recently used, as in 1GB.")
def prune(keep: str) -> None:
    """Remove what was not used for longest."""
    from tightrope.errors import DataError

    store = plugins.import_optional("tightrope.workshop.cache", wanted_by="tightrope cache")
    try:
        room = units.parse(keep, "bytes")
    except ValueError as error:
        raise DataError(f"--keep cannot be read: {error}.", hint="Give a size such as 1GB.") from error
    click.echo(f"freed {units.show(store.prune(int(max(room, 0))), 'bytes')}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    \b
    bash, in ~/.bashrc:   eval "$(tightrope completion bash)"
    zsh, in ~/.zshrc:     eval "$(tightrope completion zsh)"
    fish:                 tightrope completion fish > ~/.config/fish/completions/tightrope.fish
    """
    from click.shell_completion import get_completion_class

    from tightrope.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "tightrope", "_TIGHTROPE_COMPLETE").source())
