"""Stand-ins for tests, ours and yours: a session without an engine, a clock that only moves when told."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tightrope.ports import Capabilities, Port

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FakeSession:
    """A session that answers with a function of its feeds; it remembers the feeds it was given."""

    def __init__(
        self,
        answer: "Callable[[Mapping[str, NDArray[np.generic]]], dict[str, NDArray[np.float32]]]",
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        *,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.capabilities = capabilities or Capabilities()
        self.seen: list[Mapping[str, NDArray[np.generic]]] = []
        self.closed = False
        self._answer = answer

    def run(self, feeds: "Mapping[str, NDArray[np.generic]]") -> "dict[str, NDArray[np.float32]]":
        """Remember the feeds and answer them."""
        self.seen.append(feeds)
        return self._answer(feeds)

    def close(self) -> None:
        """Note that the session was closed."""
        self.closed = True


class FakeClock:
    """A clock in seconds that stands still until `advance` is called.

    >>> clock = FakeClock()
    >>> clock.advance(1.5)
    >>> clock()
    1.5
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds
