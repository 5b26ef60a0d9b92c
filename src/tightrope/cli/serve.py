"""`tightrope serve`: bundles behind HTTP."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from tightrope.device.serve.limits import Limits
from tightrope.errors import DataError
from tightrope.units import parse, show


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """An amount of memory, such as 100MB."""
    try:
        return None if value is None else int(parse(value, "bytes"))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A share, such as 5%."""
    try:
        return parse(value, "fraction")
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--memory",
    callback=_bytes,
    metavar="BYTES",
    help="The budget of the whole process, such as 100MB; no limit otherwise.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Another than this machine's own needs --key-file."
)
@click.option("--port", default=8080, show_default=True, help="0 takes any free one.")
@click.option("--key-file", type=click.Path(path_type=Path), help="Who may ask: see `tightrope key`.")
@click.option(
    "--index", multiple=True, type=click.Path(exists=True, path_type=Path), help="An index to search; repeatable."
)
@click.option("--threads", type=click.IntRange(1, 256), help="On one batch; measured otherwise.")
@click.option("--workers", type=click.IntRange(1, 256), help="Batches at once; measured otherwise.")
@click.option("--limit", multiple=True, metavar="NAME=VALUE", help="Change a limit; `--limit list` shows them.")
@click.option(
    "--admin", type=click.Path(path_type=Path), help="The socket for `tightrope model`; in --state otherwise."
)
@click.option(
    "--state", type=click.Path(path_type=Path), help="Where versions and what was found wrong are remembered."
)
@click.option("--tls-cert", type=click.Path(exists=True, path_type=Path), help="A certificate (PEM).")
@click.option("--tls-key", type=click.Path(exists=True, path_type=Path), help="Its key (PEM).")
@click.option("--otlp", metavar="URL", help="Send traces to this collector (OTLP over HTTP); none are sent otherwise.")
@click.option(
    "--otlp-share",
    default="100%",
    show_default=True,
    callback=_share,
    help="The share of the requests that begin a trace.",
)
@click.option(
    "--log-level",
    type=click.Choice(["info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Events of this kind and graver ones go to standard error, one JSON line each.",
)
def serve(path: Path, **given: Any) -> None:
    """Serve PATH: a bundle, or a folder of NAME/VERSION.bundle.

    \b
    tightrope serve minilm.bundle --memory 100MB
    curl localhost:8080/v1/embeddings -d '{"input": "a sentence"}' -H 'Content-Type: application/json'

    The dashboard is at /. Ctrl-C lets requests finish, and ends.
    """
    limits = _limits(given["limit"])
    if limits is None:
        return
    if given["tls_cert"] is None:
        _spare_ssl(client=(given["otlp"] or "").startswith("http:"))
    from tightrope.device.serve import logs, state
    from tightrope.device.serve.server import Options, Server

    logs.write_to(logs.Log(level=given["log_level"]))
    folder = given["state"] or state.folder()
    options = Options(
        path=path,
        memory_bytes=given["memory"],
        host=given["host"],
        port=given["port"],
        key_file=given["key_file"],
        indexes={item.stem: item for item in given["index"]},
        threads=given["threads"],
        workers=given["workers"],
        limits=limits,
        admin=given["admin"] or folder / state.socket().name,
        state=folder,
        certificate=given["tls_cert"],
        private_key=given["tls_key"],
        otlp=given["otlp"],
        otlp_share=given["otlp_share"],
    )
    Server(options).run(_say)


def _spare_ssl(*, client: bool) -> None:
    """Load asyncio, and a client if one is needed, as where Python has no ssl: that would be 4 MB for nothing."""
    sys.modules["ssl"] = None  # type: ignore[assignment]
    import asyncio

    assert asyncio
    if client:
        import http.client

        assert http.client
    del sys.modules["ssl"]


def _say(server: Any) -> None:
    """One line when requests are answered."""
    found = server.app.state
    budget = found.ledger.budget_bytes
    memory = show(sum(found.ledger.usage().values()), "bytes") + (f" of {show(budget, 'bytes')}" if budget else "")
    names = ", ".join(model.name for model in found.catalogue.models())
    click.echo(f"{server.url}  {names}  {memory}  {'; '.join(found.reasons)}")


def _limits(changes: tuple[str, ...]) -> Limits | None:
    """The limits with the changes made; `None` after they were shown."""
    limits = Limits()
    known = {item.name: type(getattr(limits, item.name)) for item in fields(Limits)}
    if "list" in changes:
        for name in known:
            click.echo(f"{name}={getattr(limits, name):g}")
        return None
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if name not in known or not equals:
            raise DataError(f"{change!a:.60} changes no limit.", hint="`--limit list` shows them.")
        try:
            values[name] = known[name](value)
        except ValueError as error:
            raise DataError(f"{name} is {value!a:.40}, which is no number.", hint=f"Give one: {name}=10") from error
        if not 0 <= values[name] < float("inf"):
            raise DataError(f"{name} is {value!a:.40}.", hint="Give zero or more.")
    return replace(limits, **values)
