"""The question that every candidate is asked: which samples the search sees, which the report quotes, and how to judge.

Without data these are the two halves of the built-in texts in the languages that the model knows. With a file it is
cut in two, or a second file is given to quote. Calibration texts come from the seen half alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightrope.errors import DataError
from tightrope.measurement import Quality
from tightrope.samples import Texts
from tightrope.workshop import languages
from tightrope.workshop.data import AnySamples, read, split
from tightrope.workshop.model import Model
from tightrope.workshop.texts import default_texts
from tightrope.workshop.verify.answers import Answers, Embeds, Scores, answers_of, pairs_of
from tightrope.workshop.verify.judges import Judge, figures, judge_by, load_judge
from tightrope.workshop.verify.quality import judge
from tightrope.workshop.verify.ranks import Doubles

CALIBRATION = 256
"""Texts (or pairs) at most that a model is calibrated on, evenly spread."""

PROVING = 16
"""Texts (or pairs) whose answers are recorded in the bundle."""

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

    def ask(self, model: Embeds | Scores, part: Part) -> Given:
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
        """Texts for an embedding model, pairs for a scoring one, from the seen half."""
        inputs = pairs_of(self.seen.samples) if model.task.name == "scoring" else list(self.seen.samples.texts)
        return spread(inputs, CALIBRATION)

    def proof(self, model: Model) -> list[Any]:
        """Inputs of many lengths for the bundle's own proof: built-in texts, never the user's data."""
        chosen = spread(sorted(default_texts(languages.guess(model.senses.tokenizer), "report"), key=len), PROVING)
        return spread(pairs_of(Texts(tuple(chosen))), PROVING) if model.task.name == "scoring" else chosen


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many items, evenly spread, in order."""
    if len(items) <= most:
        return list(items)
    return [items[position * len(items) // most] for position in range(most)]


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
