"""Commands that hold engines side by side: convert a model for several, and compare what becomes of it."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tightrope import bundle, units
from tightrope.cli.bundles import FORCE, THREADS, lengths_of
from tightrope.cli.fit import DATA
from tightrope.errors import DataError
from tightrope.plugins import import_optional

MODEL = click.argument("model")
REPORT_DATA = click.option(
    "--report-data", type=click.Path(path_type=Path), help="Data to quote; without it, half of --data is kept for it."
)
PRECISION = click.option(
    "--precision",
    default="fp32,int8",
    show_default=True,
    help="fp32, fp16, int8, int4 (each engine's own best recipe), or a recipe; several with commas between.",
)
TIME = click.option("--time", "seconds", default="15min", show_default=True, help="Time limit of the whole.")
LIMIT = click.option("--limit", default="5min", show_default=True, help="Time limit of one conversion.")
QUIET = click.option("--quiet", is_flag=True, help="No progress and no table.")


@click.command()
@MODEL
@click.option("--to", "engines", required=True, help="Engines, as in litert,coreml, or all.")
@PRECISION
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder for the bundles.")
@DATA
@TIME
@LIMIT
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@FORCE
@QUIET
@click.pass_context
def convert(ctx: click.Context, /, model: str, out: Path, as_json: bool, **options: Any) -> None:
    """Convert MODEL for several engines, each in a process of its own, and check the answers at once.

    Writes one bundle for each engine and precision, OUT/ENGINE-PRECISION.bundle: a bundle proves one set of answers,
    and engines differ in theirs. Exits 3 if an engine that is installed fails, refuses or answers wrong.
    """
    found = _run(model, out=out, measures=False, quiet=options.pop("quiet") or as_json, **options)
    if as_json:
        click.echo(json.dumps(_plain(found), indent=2))
    else:
        _print(found)
    if found.in_state("failed", "refused", "wrong", "skipped") or found.interrupted:
        ctx.exit(3)


@click.command()
@MODEL
@click.option("--engines", default="all", show_default=True, help="Engines, as in litert,onnxruntime, or all.")
@PRECISION
@click.option(
    "--report", type=click.Path(path_type=Path), help="The page to write; by default MODEL.engines.html here."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the whole comparison as JSON here too."
)
@click.option("--out", type=click.Path(path_type=Path), help="Keep the bundles in this folder.")
@DATA
@REPORT_DATA
@click.option("--lengths", default="12,32,128", show_default=True, help="Tokens of the texts to time.")
@THREADS
@TIME
@LIMIT
@FORCE
@QUIET
@click.pass_context
def compare(
    ctx: click.Context, /, model: str, report: Path | None, json_path: Path | None, lengths: str, **options: Any
) -> None:
    """Convert MODEL for several engines, check the answers, time them in turns, and say so on one page.

    What an engine does, crash, hang, end without a word or answer wrong, is what its place in the table says. Exits 3
    if no engine answers as the original does.
    """
    page = report or Path(f"{Path(model).name.partition('#')[0]}.engines.html")
    for path in (page, json_path):
        if path is not None and path.exists() and (path.is_dir() or not options["force"]):
            raise bundle.exists(path)
    quiet = options.pop("quiet")
    found = _run(model, quiet=quiet, lengths=lengths_of(lengths), **options)
    pages = import_optional("tightrope.workshop.report.engines_page", wanted_by="tightrope compare")
    page.parent.mkdir(parents=True, exist_ok=True)
    pages.write_comparison_page(found, page)
    if json_path is not None:
        run_file = import_optional("tightrope.workshop.report.run_file", wanted_by="tightrope compare")
        run_file.write_run(found, json_path)
    if not quiet:
        _print(found)
    click.echo(f"report  {page}" if not quiet else str(page))
    if not any(cell.succeeded for cell in found.cells):
        ctx.exit(3)


def _run(model: str, *, engines: str, precision: str, seconds: str, limit: str, quiet: bool, **options: Any) -> Any:
    room = import_optional("tightrope.workshop.comparison.compare", wanted_by="tightrope compare")
    precisions = import_optional("tightrope.workshop.search.precisions", wanted_by="tightrope compare")
    progress = import_optional("tightrope.workshop.report.progress", wanted_by="tightrope compare")
    settings = room.Settings(
        engines=tuple(name.strip() for name in engines.split(",") if name.strip()) or (room.ALL,),
        precisions=precisions.split(precision),
        seconds=_seconds("--time", seconds),
        limit_s=_seconds("--limit", limit),
        command=shlex.join(["tightrope", *sys.argv[1:]]),
        **options,
    )
    with progress.Progress(quiet=quiet) as watcher:
        return room.compare(model, watcher=watcher, settings=settings)


def _seconds(option: str, text: str) -> float:
    try:
        return units.parse(text, "seconds")
    except ValueError as error:
        raise DataError(f"{option} cannot be read: {error}.", hint="Give a time such as 90s or 5min.") from error


def _print(found: Any) -> None:
    table = import_optional("tightrope.workshop.report.engines_table", wanted_by="tightrope compare")
    table.print_comparison(found)


def _plain(found: Any) -> Any:
    return import_optional("tightrope.workshop.report.run_file", wanted_by="tightrope convert").plain(found)
