"""Every limit of the server in one place. A limit that is not here does not exist, and nothing is without one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server takes, in base units. `tightrope serve --limit name=value` changes one."""

    queue_requests: int = 512
    queue_tokens: int = 131_072
    """Requests and tokens that wait; more are refused with a time to come back."""
    queue_s: float = 10.0
    """A request that would wait longer before it is begun is refused, whatever its deadline."""
    batch_tokens: int = 1024
    batch_wait_s: float = 0.002
    """How long a batch may wait for company; an idle server does not wait at all."""
    deadline_s: float = 30.0
    """For requests that name none."""
    cache_bytes: int = 4_000_000
    """Answers that are remembered, as long as nobody else wants the memory; 0 for none."""
    inputs: int = 2048
    """Texts or pairs in one request."""

    body_bytes: int = 2_000_000
    json_depth: int = 32
    header_bytes: int = 16_384
    header_s: float = 5.0
    """From a connection's first byte to the end of the request's headers."""
    body_s: float = 10.0
    body_bytes_per_s: float = 1_000.0
    """After the first `body_s` seconds a body must have come at this rate, or the connection is closed."""
    idle_s: float = 10.0
    """A connection that is open and asks nothing."""
    write_s: float = 10.0
    """A reader that takes nothing of its answer."""
    connections: int = 512
    connections_per_address: int = 256
    drain_s: float = 20.0
    """How long a server that is told to stop lets requests finish."""

    stream_messages: int = 64
    """Updates that wait for one slow reader of a stream; then it gets a snapshot instead."""
    streams: int = 64
