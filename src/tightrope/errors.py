"""What can go wrong, as one family; every message says what is wrong and the way out.

    TightropeError
    ├── BudgetError         a budget that cannot be read, or that nothing could meet
    ├── RecipeError         a recipe that cannot be read, or whose steps contradict each other
    ├── UnknownNameError    there is no such pass, engine, target, recipe …
    ├── MissingExtraError   an optional dependency is not installed
    ├── SourceError         a model that cannot be found, read or trusted
    ├── UnsupportedError    a model that is understood, but cannot be handled
    ├── DataError           texts or labels that cannot be used
    ├── BundleError         a bundle that is broken, changed or not for this version
    ├── EngineError         an engine that refused or failed
    ├── BenchError          a bench that crashed, hung or spoke nonsense
    ├── SearchError         an index that is broken, in use, or made for another model
    ├── ServeError          a server that cannot start, or cannot do what its owner asks
    │   └── RefusedError    a request that is not taken: overload, deadline, memory …
    └── OutputError         a result that cannot be written

A budget that a model fails to meet is not an error: it is a `Verdict`.
"""


class TightropeError(Exception):
    """An error for people: `message` says what is wrong with the value in it, `hint` the way out."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}"


class BudgetError(TightropeError):
    """A budget that cannot be read, or that nothing could meet."""


class RecipeError(TightropeError):
    """A recipe that cannot be read, or whose steps contradict each other."""


class UnknownNameError(TightropeError):
    """A name that no file, alias or entry point bears."""


class MissingExtraError(TightropeError):
    """An optional dependency is not installed; the hint is the exact command."""


class SourceError(TightropeError):
    """A model that cannot be found, read or trusted."""


class UnsupportedError(TightropeError):
    """A model that is understood, but that this step cannot handle."""


class DataError(TightropeError):
    """Texts or labels that cannot be used."""


class BundleError(TightropeError):
    """A bundle that is broken, changed, or made for another version or machine."""


class EngineError(TightropeError):
    """An engine that refused or failed."""


class BenchError(TightropeError):
    """A bench that crashed, hung or spoke nonsense."""


class SearchError(TightropeError):
    """An index that is broken, in use by another, or made for another model."""


class ServeError(TightropeError):
    """A server that cannot start, or that cannot do what its owner asks of it."""


class RefusedError(ServeError):
    """A request that is not taken, or not finished. `reason` is one of `REFUSALS`.

    `retry_after_s` says when another try makes sense, in seconds; `None` if it never will.
    """

    REFUSALS = ("overloaded", "deadline", "memory", "unavailable", "too_large", "unknown_model", "cancelled", "failed")

    def __init__(self, message: str, *, hint: str, reason: str = "failed", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        assert reason in self.REFUSALS
        self.reason = reason
        self.retry_after_s = retry_after_s


class OutputError(TightropeError):
    """A result that cannot be written where it was asked for."""


def named(kind: str, message: str, hint: str) -> TightropeError:
    """Rebuild an error that crossed a process border by its class name; an unknown one is a `BenchError`."""
    cls = globals().get(kind)
    if not (isinstance(cls, type) and issubclass(cls, TightropeError)):
        cls = BenchError
    return cls(message, hint=hint)
