"""How fast a model is, learnt from the batches that it ran, and how it wants them."""

from dataclasses import dataclass, field
from typing import Self

_MEMORY = 0.95
"""What each batch leaves of the weight of those before it: about the last 20 count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A batch takes a fixed time and so much a token: sums over past batches, the older the lighter, give the line.

    >>> pace = Pace().seen(10, 0.020).seen(100, 0.110)
    >>> round(pace.seconds(50), 3), round(pace.seconds(100, batches=2), 3)
    (0.06, 0.12)
    """

    batches: float = 0.0
    tokens: float = 0.0
    seconds_sum: float = 0.0
    tokens_squared: float = 0.0
    products: float = 0.0

    def seen(self, tokens: int, seconds: float) -> Self:
        """With one more batch."""
        return type(self)(
            batches=self.batches * _MEMORY + 1,
            tokens=self.tokens * _MEMORY + tokens,
            seconds_sum=self.seconds_sum * _MEMORY + seconds,
            tokens_squared=self.tokens_squared * _MEMORY + tokens * tokens,
            products=self.products * _MEMORY + tokens * seconds,
        )

    def seconds(self, tokens: float, *, batches: float = 1) -> float:
        """Seconds that so many tokens in so many batches will take; 0 before anything was seen."""
        fixed, per_token = self._line()
        return fixed * batches + per_token * tokens

    def _line(self) -> tuple[float, float]:
        """Seconds of a batch and of a token, neither negative: least squares.

        Batches of one size cannot tell the two apart: then all of it is put down to the tokens, which errs on the side
        of a longer wait.
        """
        spread = self.batches * self.tokens_squared - self.tokens * self.tokens
        if spread <= 1e-6 * self.batches * self.tokens_squared:
            return 0.0, self.seconds_sum / self.tokens if self.tokens else 0.0
        per_token = (self.batches * self.products - self.tokens * self.seconds_sum) / spread
        fixed = (self.seconds_sum - per_token * self.tokens) / self.batches
        if per_token < 0:
            return self.seconds_sum / self.batches, 0.0
        if fixed < 0:
            return 0.0, self.seconds_sum / self.tokens
        return fixed, per_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """How one model wants its batches: at most so many tokens and texts.

    `parallel`: several workers may run it at once. `pace`: what is known of its speed before the first batch.
    """

    batch_tokens: int
    batch_texts: int
    parallel: bool = True
    pace: Pace = field(default_factory=Pace)
