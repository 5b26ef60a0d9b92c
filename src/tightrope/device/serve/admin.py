"""What the owner of a server can ask of it, as values: the room for HTTP puts this on its admin socket.

    GET  /admin/models                         all models with their versions
    POST /admin/models/NAME/deploy             {"path", "version", "canary", "shadow", "force"}: only the path must be
    POST /admin/models/NAME/promote | rollback | unload

To let a server open a path is as much as to let one run it under other conditions: this never belongs on a port that
clients reach. `tightrope model` is the other side.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from tightrope.device.serve.catalogue import Catalogue, ModelState
from tightrope.errors import BundleError, DataError, OutputError, RefusedError, ServeError, TightropeError

Reply = tuple[int, dict[str, Any]]

FIELDS: Mapping[str, tuple[type, ...]] = {
    "path": (str,),
    "version": (str, type(None)),
    "canary": (float, int),
    "shadow": (bool,),
    "force": (bool,),
}
_ROUTE = ("admin", "models")


def answer(catalogue: Catalogue, method: str, target: str, body: bytes = b"") -> Reply:
    """Status and JSON value for one request; `target` is the path as it came. Never raises an error of ours.

    It may take as long as a deployment takes to verify a bundle.
    """
    parts = tuple(target.partition("?")[0].strip("/").split("/"))
    try:
        if parts == _ROUTE:
            if method != "GET":
                return _wrong(405, f"{method[:10]} is not for {target!a:.60}.", "Use GET.")
            damage = catalogue.damage or None
            return 200, {"models": [item.to_json() for item in catalogue.models()], "damage": damage}
        if len(parts) == 4 and parts[:2] == _ROUTE and parts[3] in _VERBS:
            if method != "POST":
                return _wrong(405, f"{method[:10]} is not for {target!a:.60}.", "Use POST.")
            name = unquote_to_bytes(parts[2]).decode("utf-8", "replace")
            return 200, {"model": _VERBS[parts[3]](catalogue, name, _read(body)).to_json()}
        return _wrong(404, f"There is no {target!a:.60}.", "See `tightrope model --help`.")
    except TightropeError as error:
        reason = error.reason if isinstance(error, RefusedError) else ""
        return _wrong(_status(error), error.message, error.hint, reason)


def _deploy(catalogue: Catalogue, name: str, given: Mapping[str, Any]) -> ModelState:
    for field, value in given.items():
        if field not in FIELDS:
            raise DataError(f"There is no field {field!a:.60}.", hint=f"Known: {', '.join(FIELDS)}.")
        fits = isinstance(value, FIELDS[field]) and (isinstance(value, bool) == (bool in FIELDS[field]))
        if not fits or (field == "canary" and not math.isfinite(value)):
            raise DataError(f"{field} is {value!a:.60}.", hint="Give a path, a version, a share, or true or false.")
    path = Path(given.get("path", ""))
    if not path.is_absolute() or "\0" in str(path):
        raise DataError(f"{str(path)!a:.60} is not an absolute path.", hint="Give the bundle's whole path.")
    return catalogue.deploy(name, path, **{key: value for key, value in given.items() if key != "path"})


def _promote(catalogue: Catalogue, name: str, _: Mapping[str, Any]) -> ModelState:
    return catalogue.promote(name)


def _rollback(catalogue: Catalogue, name: str, _: Mapping[str, Any]) -> ModelState:
    return catalogue.rollback(name)


def _unload(catalogue: Catalogue, name: str, _: Mapping[str, Any]) -> ModelState:
    return catalogue.unload(name)


_VERBS = {"deploy": _deploy, "promote": _promote, "rollback": _rollback, "unload": _unload}


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise DataError("The body is not JSON.", hint="Send a JSON object.") from error
    if not isinstance(found, dict):
        raise DataError("The body is not a JSON object.", hint="Send one.")
    return found


def _status(error: TightropeError) -> int:
    match error:
        case RefusedError(reason="unknown_model"):
            return 404
        case RefusedError():
            return 503
        case OutputError():
            return 507
        case BundleError() | DataError():
            return 422
        case ServeError():
            return 409
    return 422


def _wrong(status: int, message: str, hint: str, reason: str = "") -> Reply:
    return status, {"error": {"message": message, "hint": hint, "reason": reason}}
