"""What the routes of text-embeddings-inference share: options, the model that is meant, its answer."""

from typing import Any, Literal

import msgspec
import numpy as np

from tightrope.device.model import Floats
from tightrope.device.serve.catalogue import Catalogue, ModelState, Served
from tightrope.device.serve.http import vectors
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.http.routes import Request

Side = Literal["right", "Right", "left", "Left"]


class Options(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What most bodies have: whether texts that are too long may be cut, and the prompt before them."""

    truncate: bool | None = None
    truncation_direction: Side | None = None
    prompt_name: str | None = None


async def about_model(request: Request, task: str | None = None) -> ModelState:
    """The model that is meant. Raises `Failure` (unsupported) if it has another task."""
    catalogue: Catalogue = request.state.catalogue
    about = await request.thread(catalogue.about, vectors.named(request.query.get("model"))[0])
    if about.source is None:
        raise Failure("unavailable", f"{about.name} cannot be read just now.", retry_after_s=5.0)
    has = about.source.content.task["name"]
    if task is not None and has != task:
        does = "has no embeddings: it scores pairs" if has == "scoring" else "gives embeddings and scores nothing"
        raise Failure("unsupported", f"{about.name} {does}.")
    return about


async def served(request: Request, inputs: Any, options: Any, **named: Any) -> Served:
    """What the model answers.

    Raises `Failure`: unsupported for cutting at the left, too_large for texts that may not be cut.
    """
    if (options.truncation_direction or "right").lower() == "left":
        raise Failure("unsupported", "Texts are cut at their end only.", param="truncation_direction")
    found = await vectors.ask(request, request.query.get("model"), inputs, **named)
    if options.truncate is False and found.answer.truncated:
        raise Failure("too_large", f"{found.answer.truncated} texts are longer than the model reads.", param="inputs")
    return found


def cosines(rows: Floats) -> Floats:
    """Of the first row, at unit length, and each other."""
    found: Floats = np.clip(rows[1:] @ rows[0], -1, 1)
    return found
