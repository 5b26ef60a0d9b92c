"""The owner's socket: `admin.answer` over HTTP on a Unix socket that the server's own user alone can use."""

import asyncio
import stat
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tightrope.device.serve import admin
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.http.guard import Guard, same_user
from tightrope.device.serve.http.protocol import Connection
from tightrope.device.serve.limits import Limits
from tightrope.errors import ServeError

BODY_BYTES = 65_536
CONNECTIONS = 16


async def listen(path: Path, catalogue: Catalogue, listening: AsyncExitStack) -> None:
    """Open the socket until `listening` ends. Raises `ServeError` if it cannot be, or if another server answers there.

    Who connects is asked for his user besides: the socket's mode is narrowed only after it is there.
    """
    guard = Guard(_application(catalogue), Limits(body_bytes=BODY_BYTES, connections=CONNECTIONS))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                await _refuse_if_served(path)
                path.unlink()
        server = await asyncio.get_running_loop().create_unix_server(lambda: _OwnersConnection(guard), path)
        listening.callback(path.unlink, missing_ok=True)
        listening.callback(server.close)
        path.chmod(0o600)
    except OSError as error:
        raise ServeError(
            f"{path} cannot be opened: {error.strerror or error}.", hint="Give another --admin or --state."
        ) from error


async def _refuse_if_served(path: Path) -> None:
    """Raise `ServeError` if somebody answers there: two servers must not share what they remember."""
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    writer.close()
    raise ServeError(f"Another server answers at {path}.", hint="Stop it, or give other --admin and --state.")


class _OwnersConnection(Connection):
    """A connection over the owner's socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit this user and root."""
        if same_user(transport):
            super().connection_made(transport)
        else:
            transport.close()


def _application(catalogue: Catalogue) -> Any:
    async def application(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] != "http.request" or not message.get("more_body") or len(body) > BODY_BYTES:
                break
        if len(body) > BODY_BYTES:
            status, value = 413, {"error": {"message": "The body is too large.", "hint": "Send less.", "reason": ""}}
        else:
            target = scope["raw_path"].decode("latin-1")
            ask = partial(admin.answer, catalogue, scope["method"], target, body)
            status, value = await asyncio.get_running_loop().run_in_executor(None, ask)
        data = msgspec.json.encode(value)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    return application
