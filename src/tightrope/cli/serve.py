"""`tightrope serve`: bundles behind HTTP."""

import json
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
@click.argument("path", metavar="PATH", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--memory",
    callback=_bytes,
    metavar="AMOUNT",
    help="What the whole process may use, such as 100MB. Left out, there is no limit.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; any but this machine's own needs --key-file.",
)
@click.option("--port", default=8080, show_default=True, help="The port to listen on; 0 takes any free one.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="The keys of who may ask (`tightrope key new`). Left out, programs on this machine may, without a key.",
)
@click.option(
    "--index",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="An index to search (`tightrope index build`). May be given several times.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of one batch. Left out, they are measured.")
@click.option("--workers", type=click.IntRange(1, 256), help="Batches at the same time. Left out, they are measured.")
@click.option(
    "--limit", multiple=True, metavar="NAME=VALUE", help="Change a limit; `tightrope serve --limit list` shows all."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The folder of deployed versions and of what was found of them. Left out, ~/.local/state/tightrope.",
)
@click.option(
    "--admin",
    type=click.Path(path_type=Path),
    help="The Unix socket that `tightrope model` talks to. Left out, admin.sock in the state folder.",
)
@click.option("--tls-cert", type=click.Path(exists=True, path_type=Path), help="A certificate (PEM), for https.")
@click.option("--tls-key", type=click.Path(exists=True, path_type=Path), help="The certificate's key (PEM).")
@click.option("--otlp", metavar="URL", help="Send traces to this collector (OTLP over HTTP). Left out, none are sent.")
@click.option(
    "--otlp-share",
    metavar="SHARE",
    default="100%",
    show_default=True,
    callback=_share,
    help="How many of the requests begin a trace.",
)
@click.option(
    "--log-level",
    type=click.Choice(["info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Events of this kind and graver ones go to standard error, one JSON line each.",
)
@click.option("--json", "as_json", is_flag=True, help="Say as JSON that the server is ready, and where.")
def serve(path: Path | None, **given: Any) -> None:
    """Serve PATH over HTTP: a bundle, or a folder of NAME/VERSION.bundle.

    \b
    tightrope serve minilm.bundle --memory 100MB
    curl localhost:8080/v1/embeddings -d '{"input": "a sentence"}' -H 'Content-Type: application/json'

    One line says when requests are answered, and where; the dashboard is at that address. Ctrl-C lets requests finish,
    and ends; a second Ctrl-C does not wait for them.
    """
    limits = _limits(given["limit"])
    if limits is None:
        return
    if path is None:
        raise click.UsageError("PATH is missing: a bundle, or a folder of NAME/VERSION.bundle.")
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
    Server(options).run(_say_json if given["as_json"] else _say)


def _spare_ssl(*, client: bool) -> None:
    """Load what asks for OpenSSL, and a client if one is needed, as where Python has none: 8 MB for nothing.

    Python's own SHA-256 takes its place: a bundle of 23 MB is verified in 75 ms instead of 20.
    """
    names = ("ssl", "_hashlib")
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    import asyncio
    import hashlib
    import hmac

    assert asyncio and hashlib and hmac
    if client:
        import http.client

        assert http.client
    for name in names:
        del sys.modules[name]


def _say(server: Any) -> None:
    """One line when requests are answered."""
    found = server.app.state
    budget = found.ledger.budget_bytes
    memory = show(sum(found.ledger.usage().values()), "bytes") + (f" of {show(budget, 'bytes')}" if budget else "")
    names = ", ".join(model.name for model in found.catalogue.models())
    click.echo(f"{server.url}  {f'serves {names}' if names else 'has no model: tightrope model deploy'}  {memory}")


def _say_json(server: Any) -> None:
    """The same for programs."""
    found = server.app.state
    said = {
        "url": server.url,
        "models": [{"name": model.name, "version": model.current} for model in found.catalogue.models()],
        "reserved_bytes": sum(found.ledger.usage().values()),
        "budget_bytes": found.ledger.budget_bytes,
        "reasons": list(found.reasons),
    }
    click.echo(json.dumps(said))


def _limits(changes: tuple[str, ...]) -> Limits | None:
    """The limits with the changes made; `None` after they were shown."""
    limits = Limits()
    known = {item.name: type(getattr(limits, item.name)) for item in fields(Limits)}
    if "list" in changes:
        for name in known:
            value = getattr(limits, name)
            click.echo(f"{name}={value if isinstance(value, int) else format(value, 'g')}")
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
