"""The two pages: the dashboard, and the form in front of it when the server has keys."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

SCRIPTS = ("figures.js", "live.js", "charts.js", "tryout.js", "dashboard.js")
CONTENT_TYPE = "text/html; charset=utf-8"


def dashboard(status: Mapping[str, Any]) -> bytes:
    """The page, with the state that it shows at first: it needs no second request to be complete."""
    state = json.dumps(status, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return _template("dashboard.html").replace("{{state}}", state).encode()


def log_in(message: str = "") -> bytes:
    """The form that asks for a key; `message` says why it is asked again."""
    import html  # half a megabyte of names of characters, for who logs in

    return _template("log_in.html").replace("{{message}}", html.escape(message)).encode()


@cache
def headers(page: str) -> dict[str, str]:
    """What goes with a page (`dashboard` or `log_in`): nothing from anywhere, but its own style, script and server."""
    scripts = _hash(_script()) if page == "dashboard" else "'none'"
    policy = (
        f"default-src 'none'; style-src {_hash(_own('dashboard.css'))}; script-src {scripts}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return {
        "content-type": CONTENT_TYPE,
        "content-security-policy": policy,
        "cache-control": "no-store",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }


@cache
def _template(name: str) -> str:
    page = _own(name).replace("{{style}}", _own("dashboard.css"))
    return page.replace("{{script}}", _script()) if "{{script}}" in page else page


@cache
def _script() -> str:
    """All scripts as one, which shares no name with anything else."""
    text = '"use strict";\n(() => {\n' + "\n".join(map(_own, SCRIPTS)) + "})();\n"
    assert "</script" not in text and "<!--" not in text
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _own(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
