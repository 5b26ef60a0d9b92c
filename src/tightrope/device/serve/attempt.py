"""One batch through a model, so that only the texts that are to blame fail: what fails is tried again in halves."""

import numpy as np
from numpy.typing import NDArray

from tightrope.device.model import Embedder, Floats, Scorer
from tightrope.device.senses.text import Encoded, batches
from tightrope.errors import EngineError, RefusedError

Model = Embedder | Scorer
Errors = dict[int, Exception]


def attempt(model: Model, encoded: Encoded, batch_tokens: int) -> tuple[Floats, Errors]:
    """Rows [n, width] for one batch, and for the texts that have none, by their position, why.

    Texts that need padding are answered in parts of similar length, of `batch_tokens` at most with it.
    An answer that is not finite is a failure of its text. Raises `RefusedError` as the model does: then no text is to
    blame, and another try now would be refused as well.
    """
    rows, errors = np.empty((len(encoded), model.width), np.float32), Errors()
    if model.ragged or len(encoded) == 1:
        _try(model, encoded, np.arange(len(encoded)), rows, errors)
        return rows, errors
    for some in batches(encoded.ids.lengths, batch_tokens):  # of similar length, so that padding is cheap
        _try(model, encoded.take(some), some, rows, errors)
    return rows, errors


def _try(model: Model, part: Encoded, places: NDArray[np.int64], rows: Floats, errors: Errors) -> None:
    """Answer a part of the batch, whose texts belong at those places."""
    try:
        found = model.answer(part)
    except RefusedError:
        raise
    except Exception as error:  # whatever an engine throws
        if len(part) == 1:
            errors[int(places[0])] = error
            return
        middle = len(part) // 2
        _try(model, part.slice(0, middle), places[:middle], rows, errors)
        _try(model, part.slice(middle, len(part)), places[middle:], rows, errors)
        return
    rows[places] = found
    for place in places[~np.isfinite(found).all(axis=1)]:
        errors[int(place)] = EngineError(
            "The model's answer is not a number.", hint="Check the bundle with `tightrope verify`."
        )
