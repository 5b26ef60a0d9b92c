"""Commands for indexes: build one from documents, look at it, change it, search it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tightrope import units
from tightrope.errors import DataError, UnsupportedError

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_MODEL = click.option(
    "--model", "bundle", required=True, type=click.Path(path_type=Path), help="The bundle that makes the vectors."
)
_PATH = click.argument("path", type=click.Path(path_type=Path))
_THREADS = click.option("--threads", default=1, show_default=True, help="Threads of the model.")


@click.group()
def index() -> None:
    """Search documents on a device: build an index, change it, search it.

    \b
    tightrope index build docs/ --model minilm.bundle --out docs.index
    tightrope index search docs.index "how do I reset it" --model minilm.bundle
    """


def _embedder(bundle: Path, threads: int) -> Any:
    from tightrope.device.model import Embedder, open_bundle

    model = open_bundle(bundle, threads=threads)
    if not isinstance(model, Embedder):
        model.close()
        raise UnsupportedError(
            f"{bundle} scores pairs; an index needs vectors.", hint="Give a bundle that embeds texts."
        )
    return model


@index.command()
@click.argument("source", type=click.Path(path_type=Path))
@_MODEL
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder that the index will be.")
@click.option("--tokens", type=int, help="Tokens in a passage; left out, what the model reads, 256 at most.")
@click.option("--overlap", type=int, help="Tokens that a passage repeats; left out, an eighth.")
@click.option("--force", is_flag=True, help="Replace the index that is at --out.")
@_THREADS
@_JSON
def build(
    source: Path,
    bundle: Path,
    out: Path,
    tokens: int | None,
    overlap: int | None,
    force: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Make an index of SOURCE: a file or a folder of txt, md, html, csv, jsonl and pdf."""
    from tightrope.device.index import building

    show = _shown if sys.stderr.isatty() and not as_json else lambda _: None
    with _embedder(bundle, threads) as model:
        built = building.build(source, out, model, tokens=tokens, overlap=overlap, force=force, progress=show)
    if show is _shown:
        click.echo("\r\033[K", nl=False, err=True)
    _report(built, out, as_json)


def _shown(progress: Any) -> None:
    left = "" if progress.left_s is None else f", {units.show(progress.left_s, 's')} left"
    click.echo(f"\r\033[K{progress.share:4.0%}  {progress.passages} passages{left}", nl=False, err=True)


def _report(built: Any, out: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(built) | {"index": str(out)}, indent=2))
        return
    for name, why in built.skipped:
        click.echo(f"skipped {name}: {why}", err=True)
    click.echo(f"{out}: {built.documents} documents, {built.passages} passages")


@index.command()
@_PATH
@_JSON
def show(path: Path, as_json: bool) -> None:
    """Say what an index holds."""
    from tightrope.device.index.making import open_index

    with open_index(path, writing=False) as opened:
        about, size = opened.about, opened.size_bytes
    if as_json:
        click.echo(json.dumps(asdict(about) | {"memory_bytes": size}, indent=2))
        return
    click.echo(f"{path}: {about.documents} documents, {about.passages} passages of width {about.width}")
    click.echo(f"model     {about.digest}")
    click.echo(f"memory    {units.show(size, 'bytes')}")
    for name, value in sorted(about.settings.items()):
        click.echo(f"{name:<9} {value}")


@index.command()
@_PATH
@click.argument("source", type=click.Path(path_type=Path))
@_MODEL
@_THREADS
@_JSON
def add(path: Path, source: Path, bundle: Path, threads: int, as_json: bool) -> None:
    """Add the documents of SOURCE to an index; those that it has are replaced."""
    from tightrope.device.index import building
    from tightrope.device.index.making import open_index

    with _embedder(bundle, threads) as model, open_index(path, digest=model.bundle.digest) as opened:
        built = building.add(opened, source, model)
    _report(built, path, as_json)


@index.command()
@_PATH
@click.argument("keys", nargs=-1, required=True)
@_JSON
def delete(path: Path, keys: tuple[str, ...], as_json: bool) -> None:
    """Take documents out of an index by their keys."""
    from tightrope.device.index.making import open_index

    with open_index(path) as opened:
        count = opened.delete(keys)
    click.echo(json.dumps({"deleted": count}) if as_json else f"{count} of {len(keys)} deleted")


@index.command()
@_PATH
@click.argument("query")
@_MODEL
@click.option("-k", default=5, show_default=True, help="How many hits to show.")
@click.option("--where", help='A filter as JSON: \'{"year": {"gte": 2020}}\'.')
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "vector", "words"]),
    default="hybrid",
    show_default=True,
    help="By meaning, by words, or both.",
)
@_JSON
def search(path: Path, query: str, bundle: Path, k: int, where: str | None, mode: str, as_json: bool) -> None:
    """Search an index; also while a server has it open."""
    from tightrope.device.apps import semantic_search
    from tightrope.device.index.making import open_index

    wanted = None if where is None else _filter(where)
    with _embedder(bundle, 1) as model, open_index(path, writing=False, digest=model.bundle.digest) as opened:
        hits = semantic_search.search(opened, model, query, k, where=wanted, mode=semantic_search.Mode(mode))
    if as_json:
        click.echo(json.dumps([asdict(hit) for hit in hits], indent=2, ensure_ascii=False))
        return
    for hit in hits:
        click.echo(f"{hit.score:.3f}  {hit.key}" + (f"  {hit.title}" if hit.title else ""))
        click.echo(f"       {' '.join((hit.answer or hit.text).split())[:160]}")


def _filter(where: str) -> Any:
    try:
        return json.loads(where)
    except (ValueError, RecursionError) as error:
        raise DataError(f"--where is no JSON: {error}.", hint='Give an object: \'{"language": "en"}\'.') from error


@index.command()
@_PATH
@_JSON
def check(path: Path, as_json: bool) -> None:
    """Look at every byte of an index, and repair what can be repaired. Exit code 1 if it is damaged."""
    from tightrope.device.index.making import open_index

    with open_index(path) as opened:
        repaired, wrong = opened.repaired, opened.check()
    if as_json:
        click.echo(json.dumps({"repaired": repaired, "wrong": wrong}, indent=2))
    else:
        click.echo(
            "\n".join([*wrong, f"{repaired} rows repaired" if repaired else "whole" if not wrong else "damaged"])
        )
    sys.exit(1 if wrong else 0)


@index.command()
@_PATH
@click.option("--unanswerable", type=click.Path(path_type=Path), help="Questions that nothing answers, one a line.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="The index's bundle, to embed them.")
@click.option("--wrong", default=0.05, show_default=True, help="The share of such questions that may be answered.")
@_JSON
def calibrate(path: Path, unanswerable: Path | None, bundle: Path | None, wrong: float, as_json: bool) -> None:
    """Choose from which similarity on an entry answers a question: below it the answer is "I don't know"."""
    from tightrope.device.apps import faq_bot
    from tightrope.device.index.making import open_index
    from tightrope.device.index.model import for_questions

    vectors, digest = None, None
    if unanswerable is not None:
        if bundle is None:
            raise DataError("--unanswerable needs a model.", hint="Add --model BUNDLE.")
        lines = [line for line in unanswerable.read_text(encoding="utf-8").splitlines() if line.strip()]
        with _embedder(bundle, 1) as model:
            vectors, digest = model.embed(lines, prompt=for_questions(model)), model.bundle.digest
    with open_index(path, digest=digest) as opened:
        threshold = faq_bot.calibrate(opened, vectors, wrong=wrong)
    click.echo(json.dumps({"threshold": threshold}) if as_json else f"{path} answers from {threshold:.3f} on")


@index.command()
@_PATH
@_JSON
def approximate(path: Path, as_json: bool) -> None:
    """Make the graph by which a very large index is searched approximately (extra `ann`)."""
    from tightrope.device.index.making import open_index

    with open_index(path) as opened:
        opened.make_graph()
    click.echo(json.dumps({"index": str(path), "graph": True}) if as_json else f"{path}: made the graph")


@index.command()
@_PATH
@_MODEL
@_THREADS
@_JSON
def rebuild(path: Path, bundle: Path, threads: int, as_json: bool) -> None:
    """Make the vectors of an index anew for another model, and put the result in its place."""
    from tightrope.device.index import building
    from tightrope.device.index.making import open_index

    with _embedder(bundle, threads) as model, building.rebuild(open_index(path), model) as opened:
        about = opened.about
    if as_json:
        click.echo(json.dumps({"index": str(path), "documents": about.documents, "model": about.digest}))
        return
    click.echo(f"{path}: {about.documents} documents for {about.digest[:12]}…")
