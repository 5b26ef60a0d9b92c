"""The question that every candidate is asked: which samples the search sees, which the report quotes, and how to judge.

Without data these are the two halves of the built-in texts in the languages that the model knows. With a file it is
cut in two, or a second file is given to quote. Calibration texts come from the seen half alone. A folder of images is
cut in three, for images that a model was calibrated on are easier for it than others.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightrope.device.senses.image import ImageSenses, packed
from tightrope.errors import DataError
from tightrope.measurement import Quality
from tightrope.samples import LabelledImages, Texts
from tightrope.workshop import languages
from tightrope.workshop.data import AnySamples, read, read_images, split, split_images
from tightrope.workshop.model import Model, text_senses
from tightrope.workshop.pictures import pictures
from tightrope.workshop.texts import default_texts
from tightrope.workshop.verify.answers import Answers, Asked, answers_of, pairs_of
from tightrope.workshop.verify.judges import Judge, figures, judge_by, load_judge
from tightrope.workshop.verify.quality import judge
from tightrope.workshop.verify.ranks import Doubles

CALIBRATION = 256
"""Texts (or pairs) at most that a model is calibrated on, evenly spread."""

PROVING = 16
"""Texts (or pairs) whose answers are recorded in the bundle."""

PICTURES, LEAST_PICTURES, PICTURE_BYTES = 8, 3, 400_000
"""The same of pictures: so many at most and at least, and between the two no more than so many bytes of a bundle."""

Given = Answers | Doubles
"""What a model gave: answers to samples, or the figures of a user's judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One half of the question."""

    samples: AnySamples
    name: str
    part: str = "whole"
    """Whether these are all samples of their source, or which half: what `rebuild` has to take again."""

    @property
    def digest(self) -> str:
        """Identifies the samples."""
        return hashlib.sha256(repr(self.samples).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Both halves, and the user's own judge if there is one."""

    seen: Part
    report: Part
    judge_name: str | None = None
    judge: Judge | None = None
    calibrating: LabelledImages | None = None
    """Of images, those that a model is calibrated on; of texts they come from the seen half."""

    def ask(self, model: Asked, part: Part) -> Given:
        """What a model gives for one half."""
        if self.judge is not None:
            return figures(self.judge, model, name=self.judge_name or "judge")
        return answers_of(model, part.samples)

    def compare(self, given: Given, original: Given, part: Part) -> Quality:
        """How well a candidate does beside the original."""
        if isinstance(given, Answers) and isinstance(original, Answers):
            return judge(part.samples, given, original, name=part.name)
        assert not isinstance(given, Answers) and not isinstance(original, Answers)
        return judge_by(given, original, name=self.judge_name or "judge")

    def calibration(self, model: Model) -> list[Any]:
        """Texts for an embedding model, pairs for a scoring one, from the seen half; images as bytes."""
        if self.calibrating is not None:
            return list(self.calibrating.images)
        inputs = pairs_of(self.seen.samples) if model.task.name == "scoring" else list(self.seen.samples.texts)
        return spread(inputs, CALIBRATION)

    def proof(self, model: Model) -> list[Any]:
        """Inputs of many lengths for the bundle's own proof: built-in texts or pictures, never the user's data."""
        if isinstance(model.senses, ImageSenses):
            size = (model.senses.height, model.senses.width, model.senses.channels)
            count = max(LEAST_PICTURES, min(PICTURES, PICTURE_BYTES // math.prod(size)))
            return [packed(pixels) for pixels in pictures(*size, count)]
        tokenizer = text_senses(model).tokenizer
        chosen = spread(sorted(default_texts(languages.guess(tokenizer), "report"), key=len), PROVING)
        return spread(pairs_of(Texts(tuple(chosen))), PROVING) if model.task.name == "scoring" else chosen


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many items, evenly spread, in order."""
    if len(items) <= most:
        return list(items)
    return [items[position * len(items) // most] for position in range(most)]


def ask(
    model: Model,
    spoken: Sequence[str],
    data: Path | str | None,
    report_data: Path | str | None = None,
    judge_name: str | None = None,
) -> Question:
    """The question for a model, be it of text or of images; `spoken`: the languages that it knows.

    Raises `DataError` for data that cannot be used.
    """
    if isinstance(model.senses, ImageSenses):
        return _about_images(model, data, report_data, judge_name)
    return ask_about(spoken, data, report_data, judge_name)


def _about_images(
    model: Model, data: Path | str | None, report_data: Path | str | None, judge_name: str | None
) -> Question:
    if data is None:
        raise DataError(
            "A model of images is calibrated and judged on images.", hint="Give a folder of them with --images."
        )
    calibrating, choosing, quoted = split_images(read_images(data, model.task.labels))
    name, report = Path(data).name, f"{Path(data).name}, the half for the report"
    if report_data is not None:
        quoted, report = read_images(report_data, model.task.labels), Path(report_data).name
        if both := set(quoted.digests) & {*calibrating.digests, *choosing.digests}:
            raise DataError(
                f"{len(both)} images are in {data} and in {report_data}.", hint="Quote others than those used before."
            )
    return Question(
        seen=Part(samples=choosing, name=f"{name}, a quarter for choosing", part="half"),
        report=Part(samples=quoted, name=report, part="half"),
        judge_name=judge_name,
        judge=load_judge(judge_name, Path.cwd()) if judge_name else None,
        calibrating=calibrating,
    )


def ask_about(
    spoken: Sequence[str], data: Path | str | None, report_data: Path | str | None, judge_name: str | None
) -> Question:
    """Put the question together. Raises `DataError` for data that cannot be used."""
    judged = load_judge(judge_name, Path.cwd()) if judge_name else None
    if data is None:
        known = " and ".join({"en": "English", "zh": "Chinese"}[code] for code in spoken)
        seen, report = (Texts(default_texts(spoken, half)) for half in ("seen", "report"))
        parts = (
            Part(samples=seen, name=f"built-in {known} texts, the half for searching"),
            Part(samples=report, name=f"built-in {known} texts, the half for the report"),
        )
    elif report_data is None:
        name, (first, second) = Path(data).name, split(read(data))
        parts = (
            Part(samples=first, name=f"{name}, the half for searching", part="half"),
            Part(samples=second, name=f"{name}, the half for the report", part="half"),
        )
    else:
        parts = (
            Part(samples=read(data), name=Path(data).name),
            Part(samples=read(report_data), name=Path(report_data).name),
        )
    if parts[0].digest == parts[1].digest:
        raise DataError(
            f"{data} and {report_data} hold the same samples.", hint="Quote others than those that are searched by."
        )
    return Question(seen=parts[0], report=parts[1], judge_name=judge_name, judge=judged)
