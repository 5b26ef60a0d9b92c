"""Where a server keeps what it must not forget, and the socket that its owner talks to."""

import os
from collections.abc import Mapping
from pathlib import Path


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The state folder: as `TIGHTROPE_STATE` says, else systemd's, else the user's own.

    >>> folder({"HOME": "/home/me"}).as_posix()
    '/home/me/.local/state/tightrope'
    >>> folder({"STATE_DIRECTORY": "/var/lib/tightrope"}).as_posix()
    '/var/lib/tightrope'
    """
    named = environment.get("TIGHTROPE_STATE") or environment.get("STATE_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named)
    above = environment.get("XDG_STATE_HOME")
    home = Path(environment["HOME"]) if "HOME" in environment else Path.home()
    return (Path(above) if above else home / ".local" / "state") / "tightrope"


def socket(environment: Mapping[str, str] = os.environ) -> Path:
    """The Unix socket of the admin interface, unless another one is named."""
    return folder(environment) / "admin.sock"
