"""Images to classes, and `tightrope.open`: a bundle of any task, with its senses and its task around it.

model = tightrope.open("resnet.bundle")
model.classify(["cat.jpg"])                 # float32 [n, classes]
model.top(["cat.jpg"], 3)                   # [[("tabby", 0.71), …]]
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tightrope import bundle
from tightrope.bundle import Artefact, Bundle
from tightrope.device.model import Embedder, Floats, Scorer, open_bundle, open_first, runtime_of
from tightrope.device.senses.image import Image, ImageSenses
from tightrope.device.session import Opener, Session
from tightrope.errors import BundleError, DataError


class Classifier:
    """An open bundle that tells images apart. A context manager; closing gives the memory back.

    Images are answered one at a time: none has a say in another's answer, and memory is that of one.
    """

    truncated = 0
    """Images are never cut off; texts are, and whoever counts them asks any model."""

    def __init__(self, source: Bundle, session: Session, artefact: Artefact) -> None:
        task = source.content.task
        self.bundle = source
        self.engine = artefact.engine
        self.senses = ImageSenses.from_json(source.content.senses)
        self.width: int = task["width"]
        """Numbers in an answer."""
        self.labels: tuple[str, ...] = tuple(task["labels"])
        """What each number is about."""
        if len(self.labels) != self.width:
            raise BundleError(f"{source.path} names {len(self.labels)} of {self.width} classes.", hint="Make it anew.")
        shape = session.inputs[0].shape
        if all(isinstance(size, int) for size in shape) and tuple(shape) != self.senses.shape:
            raise BundleError(
                f"{source.path} prepares images as {self.senses.shape}; its model takes {shape}.", hint="Make it anew."
            )
        self._session = session
        self._port, self._output = session.inputs[0].name, session.outputs[0].name
        self._turn: AbstractContextManager[object] = nullcontext() if session.capabilities.parallel else Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the engine's memory back."""
        self._session.close()

    def classify(self, images: Sequence[Image], *, softmax: bool | None = None) -> Floats:
        """Scores of the images, float32 [n, classes]: paths, bytes of files, or pixels uint8 [height, width, 3] (RGB).

        `softmax` makes probabilities of the model's logits; by default what the original gave. Raises `DataError` for
        anything that is no image.
        """
        logits = self.logits(images)
        wanted = self.bundle.content.task["activation"] == "softmax" if softmax is None else softmax
        return probabilities(logits) if wanted else logits

    def top(self, images: Sequence[Image], count: int = 5) -> list[list[tuple[str, float]]]:
        """The likeliest classes of each image, the likeliest first, with their probabilities."""
        if count < 1:
            raise DataError(f"The first {count} classes were asked for.", hint="Ask for one or more.")
        rows = probabilities(self.logits(images))
        order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
        return [
            [(self.labels[place], float(row[place])) for place in places]
            for row, places in zip(rows, order, strict=True)
        ]

    def logits(self, images: Sequence[Image]) -> Floats:
        """What the model gives before any softmax, float32 [n, classes]."""
        if isinstance(images, str | bytes | Path) or getattr(images, "ndim", 4) < 4:
            raise DataError("classify takes a list of images, not one image.", hint="Write classify([image]).")
        rows = np.empty((len(images), self.width), np.float32)
        for place, image in enumerate(images):
            rows[place] = self._answer(image)
        return rows

    def feeds(self, image: Image) -> dict[str, NDArray[Any]]:
        """The array that the session takes for one image."""
        return {self._port: self.senses.prepare(image)}

    def _answer(self, image: Image) -> NDArray[Any]:
        feeds = self.feeds(image)
        with self._turn:
            found = self._session.run(feeds)[self._output]
        if found.shape != (1, self.width):
            raise BundleError(
                f"{self.bundle.path} tells {self.width} classes apart; its model gives {found.shape}.",
                hint="Make the bundle anew.",
            )
        row: NDArray[Any] = found[0]
        return row


def probabilities(logits: Floats) -> Floats:
    """Softmax of each row, the largest taken away first so that nothing overflows."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def open_any(
    path: Path | str | Bundle,
    *,
    threads: int = 1,
    engine: str | None = None,
    verify: bool = True,
    runtime: Callable[[str], Opener] = runtime_of,
) -> Embedder | Scorer | Classifier:
    """Open a bundle for use, whatever its task: a folder, whose digests are verified first, or a `Bundle`.

    `engine` picks one of the bundle's artefacts; otherwise the first that this machine can run is taken. Raises
    `BundleError` for a broken bundle or one with nothing for this machine, `MissingExtraError` if an engine is missing.
    """
    source = path if isinstance(path, Bundle) else bundle.read(path, verify=verify)
    if source.content.task["name"] != "classification":
        return open_bundle(source, threads=threads, engine=engine, verify=verify, runtime=runtime)
    artefact, session = open_first(source, engine, threads, runtime)
    try:
        return Classifier(source, session, artefact)
    except BaseException:
        session.close()
        raise
