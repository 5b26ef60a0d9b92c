"""Commands for the models of a running server. They talk to its admin socket, and need nothing but the base install."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from tightrope import units
from tightrope.device.serve import state
from tightrope.errors import DataError, ServeError

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
ADMIN = click.option(
    "--admin",
    type=click.Path(path_type=Path),
    help="The server's admin socket. Left out, that of `tightrope serve` without --admin and --state.",
)
NAME = click.argument("name")
SECONDS = 600.0
"""How long a command waits: a deployment reads and verifies a whole bundle."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@click.group()
def model() -> None:
    """List, deploy, promote, roll back and unload the models of a running server.

    \b
    tightrope model deploy minilm new.bundle --shadow --canary 10%
    tightrope model list

    The commands talk to a Unix socket on the server's machine, which only the server's own user may open.
    """


@model.command("list")
@ADMIN
@JSON
def list_models(admin: Path | None, as_json: bool) -> None:
    """Show the models, their versions, and what is known of those on trial."""
    found = ask(admin, "GET", "/admin/models")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if found.get("damage"):
        click.echo(f"The journal was damaged: {found['damage']}.", err=True)
    click.echo("\n".join(table([row for item in found["models"] for row in rows(item)])))


@model.command()
@NAME
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--canary",
    metavar="SHARE",
    default="0%",
    help="The share of requests that it answers while it is on trial, such as 10%.",
)
@click.option(
    "--shadow", is_flag=True, help="First let it answer beside the current version, without using its answers."
)
@click.option(
    "--version",
    "version_name",
    metavar="NAME",
    help="What to call this version; by default the file's name or its digest.",
)
@click.option("--force", is_flag=True, help="Take it although its digest was rolled back before.")
@ADMIN
@JSON
def deploy(name: str, path: Path, canary: str, version_name: str | None, **options: Any) -> None:
    """Put BUNDLE beside the current version of NAME, verify it, and try it or switch to it.

    Without --shadow or --canary it becomes current as soon as it is verified. With them the server goes on by itself:
    it promotes the new version, or takes it back if it agrees less, is slower, fails, or takes too much memory.
    """
    try:
        share = units.parse(canary, "fraction")
    except ValueError as error:
        raise DataError(f"--canary cannot be read: {error}.", hint="Give a share such as 10%.") from error
    body = {"path": str(path.absolute()), "canary": share, "version": version_name}
    body |= {"shadow": options["shadow"], "force": options["force"]}
    _change(options["admin"], name, "deploy", body, as_json=options["as_json"])


@model.command()
@NAME
@ADMIN
@JSON
def promote(name: str, admin: Path | None, as_json: bool) -> None:
    """Make the version of NAME that is on trial the current one, now."""
    _change(admin, name, "promote", {}, as_json=as_json)


@model.command()
@NAME
@ADMIN
@JSON
def rollback(name: str, admin: Path | None, as_json: bool) -> None:
    """Take the version of NAME that is on trial back; if there is none, go back to the version before the current one.

    Its digest is remembered and refused from then on.
    """
    _change(admin, name, "rollback", {}, as_json=as_json)


@model.command()
@NAME
@ADMIN
@JSON
def unload(name: str, admin: Path | None, as_json: bool) -> None:
    """Give the memory of NAME back; it is loaded again when somebody asks for it."""
    _change(admin, name, "unload", {}, as_json=as_json)


def _change(admin: Path | None, name: str, verb: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    found = ask(admin, "POST", f"/admin/models/{quote(name, safe='')}/{verb}", body)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(table(list(rows(found["model"])))))


def ask(admin: Path | None, method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
    """What the server says to one request. Raises `ServeError` if none runs, or with the two lines of its refusal."""
    path = admin or state.socket()
    connection = _Connection(path)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, target, json.dumps(body) if body is not None else None, headers)
        reply = connection.getresponse()
        status, data = reply.status, reply.read()
    except TimeoutError as error:
        raise ServeError(f"The server at {path} did not answer in {SECONDS:.0f} s.", hint="See its log.") from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(path, error) from error
    finally:
        connection.close()
    try:
        found = json.loads(data)
        if status < 400:
            return found
        wrong = found["error"]
        raise ServeError(str(wrong["message"]), hint=str(wrong["hint"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ServeError(
            f"What answers at {path} is no tightrope server (status {status}).", hint="Name its socket with --admin."
        ) from error


def _unreachable(path: Path, error: Exception) -> ServeError:
    if isinstance(error, PermissionError):
        return ServeError(f"{path} may not be used by this user.", hint="Use the account that the server runs under.")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return ServeError(
            f"No server listens at {path}.",
            hint="Start one with `tightrope serve BUNDLE`, or name its socket with --admin PATH.",
        )
    reason = getattr(error, "strerror", None) or str(error) or "it ended"
    return ServeError(f"The server at {path} cannot be asked: {reason}.", hint="See whether it runs, and its log.")


HEAD = ("MODEL", "VERSION", "STATE", "MEMORY", "DIGEST", "")


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row a version: the current one first, those that were taken back last."""
    order = {"current": 0, "idle": 0, "canary": 1, "shadow": 1, "verifying": 1, "rolled_back": 3}
    for item in sorted(found["versions"], key=lambda item: order.get(item["state"], 2)):
        memory = units.show(item["loaded_bytes"], "bytes") if item["loaded_bytes"] else "-"
        yield found["name"], item["version"], item["state"], memory, item["digest"][:12], told(item)


def told(version: Mapping[str, Any]) -> str:
    """What is known of a version, in words."""
    seen = version.get("evidence")
    if version.get("reason"):
        return str(version["reason"])
    if not seen:
        return ""
    parts = [f"{seen['pairs']} pairs"]
    if version.get("canary"):
        parts.append(f"answered {seen['answered']} at {units.show(version['canary'], 'fraction')}")
    if seen["agreement"] is not None:
        parts.append(f"agreement {seen['agreement']:.4f} (expected {seen['expected_agreement']:.4f})")
    elif seen["expected_agreement"] is None:
        parts.append("not comparable: promote it yourself")
    if seen["latency_ratio"] is not None:
        parts.append(f"{seen['latency_ratio']:.2f}x the time")
    if seen["failures"]:
        parts.append(f"{seen['failures']} failed")
    return ", ".join(parts)


def table(lines: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their widest entry.

    >>> print("\\n".join(table([("minilm", "2", "current", "18 MB", "18894b90f4cc", "")])))
    MODEL   VERSION  STATE    MEMORY  DIGEST
    minilm  2        current  18 MB   18894b90f4cc
    """
    widths = [max(map(len, column)) for column in zip(HEAD, *lines, strict=True)]
    for line in (HEAD, *lines):
        yield "  ".join(entry.ljust(width) for entry, width in zip(line, widths, strict=True)).rstrip()
