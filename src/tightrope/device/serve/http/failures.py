"""What can go wrong with a request: one table, and the envelope that each API's clients expect.

OpenAI's clients read `{"error": {message, type, param, code}}`, text-embeddings-inference's `{error, error_type}`,
those of the Open Inference Protocol `{"error": "…"}`; everything else is told by RFC 9457. `code`, `title` and `type`
are stable, the words are for people.
"""

import math
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import msgspec

from tightrope.errors import BundleError, DataError, OutputError, RefusedError, TightropeError, UnknownNameError

Headers = tuple[tuple[bytes, bytes], ...]
JSON = b"application/json"
PROBLEM = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to fail: its status, and the words of OpenAI and text-embeddings-inference for it."""

    status: int
    openai: str
    tei: str


KINDS = {
    "malformed": Kind(400, "invalid_request_error", "validation"),
    "unauthorized": Kind(401, "authentication_error", "unauthorized"),
    "forbidden": Kind(403, "permission_error", "forbidden"),
    "not_found": Kind(404, "invalid_request_error", "not_found"),
    "unknown_model": Kind(404, "invalid_request_error", "not_found"),
    "wrong_method": Kind(405, "invalid_request_error", "validation"),
    "too_slow": Kind(408, "invalid_request_error", "validation"),
    "too_large": Kind(413, "invalid_request_error", "validation"),
    "wrong_type": Kind(415, "invalid_request_error", "validation"),
    "misdirected": Kind(421, "permission_error", "forbidden"),
    "invalid": Kind(422, "invalid_request_error", "validation"),
    "unsupported": Kind(422, "invalid_request_error", "backend"),
    "limited": Kind(429, "rate_limit_error", "overloaded"),
    "cancelled": Kind(499, "server_error", "overloaded"),
    "failed": Kind(500, "server_error", "backend"),
    "overloaded": Kind(503, "server_error", "overloaded"),
    "memory": Kind(503, "server_error", "overloaded"),
    "unavailable": Kind(503, "server_error", "unhealthy"),
    "deadline": Kind(504, "server_error", "overloaded"),
}
"""Every kind of failure that a client can see. The reasons of `RefusedError` are among them."""

TEI_STATUS = {"failed": 424, "overloaded": 429}
"""Where text-embeddings-inference has a status of its own."""


class Failure(Exception):
    """A request ends here. `param` is the field that is to blame, `headers` what the answer bears besides."""

    def __init__(
        self, kind: str, detail: str, *, param: str = "", retry_after_s: float | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(detail)
        assert kind in KINDS, kind
        self.kind = kind
        self.detail = detail
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers


def of(error: BaseException) -> Failure | None:
    """What an error means to a client; `None` for one that it has no part in: a mistake of ours."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, RefusedError):
        return Failure(error.reason, f"{error.message} {error.hint}", retry_after_s=error.retry_after_s)
    if isinstance(error, UnknownNameError):
        return Failure("not_found", f"{error.message} {error.hint}")
    if isinstance(error, DataError | BundleError | OutputError):
        return Failure("invalid", f"{error.message} {error.hint}")
    if isinstance(error, TightropeError):
        return Failure("failed", f"{error.message} {error.hint}")
    return None


def envelope(failure: Failure, api: str, request_id: str) -> tuple[int, bytes, bytes, Headers]:
    """Status, content type, body and headers of a failure as the API's clients read it."""
    kind = KINDS[failure.kind]
    status = TEI_STATUS.get(failure.kind, kind.status) if api == "tei" else kind.status
    content_type, said = JSON, failure.detail
    body: dict[str, object]
    if api == "openai":
        param = failure.param or None
        body = {"error": {"message": said, "type": kind.openai, "param": param, "code": failure.kind}}
    elif api == "tei":
        body = {"error": said, "error_type": kind.tei, "code": failure.kind}
    elif api == "v2":
        body = {"error": said}
    else:
        content_type = PROBLEM
        body = _problem(status, said) | {"code": failure.kind, "request_id": request_id}
        body |= {"param": failure.param} if failure.param else {}
    return status, content_type, msgspec.json.encode(body), (*retry_after(failure.retry_after_s), *failure.headers)


def bare(status: int, detail: str, retry_after_s: float | None) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Body and headers of a refusal before anybody knows what was asked for."""
    body = msgspec.json.encode(_problem(status, detail))
    length = str(len(body)).encode()
    return body, [(b"content-type", PROBLEM), (b"content-length", length), *retry_after(retry_after_s)]


def retry_after(seconds: float | None) -> Headers:
    """When to come back: whole seconds for everybody (RFC 9110, 10.2.3), milliseconds for who can read them."""
    if seconds is None:
        return ()
    milliseconds = max(1, math.ceil(seconds * 1000))
    return (
        (b"retry-after", str(math.ceil(milliseconds / 1000)).encode()),
        (b"retry-after-ms", str(milliseconds).encode()),
    )


def unquoted(raw: bytes) -> str:
    """A path as people write it; what is no UTF-8 becomes U+FFFD, which no route and no model has in its name."""
    return unquote_to_bytes(raw).decode("utf-8", "replace") if b"%" in raw else raw.decode("ascii", "replace")


def _problem(status: int, detail: str) -> dict[str, object]:
    try:
        title = HTTPStatus(status).phrase
    except ValueError:  # 499 is nginx's
        title = "Client Closed Request"
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}
