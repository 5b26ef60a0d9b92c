"""Judges: the user's own measure of quality, a Python function that gets the model and gives a figure.

`tightrope fit … --judge my_metric:score` calls `score` in `my_metric.py` of the current folder. It is the user's own
code, named by the user; nothing that comes with a model or a bundle is ever called.
"""

import sys
from collections.abc import Callable
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.errors import DataError
from tightrope.measurement import Interval, Quality
from tightrope.workshop.verify.answers import Asked, Classifies, Scores
from tightrope.workshop.verify.quality import RESAMPLES
from tightrope.workshop.verify.ranks import Doubles

Judge = Callable[[Callable[..., Any]], Any]
"""Takes `embed` (list of texts → float32 [n, width]) or `score` (list of pairs → [n]), or `logits` (list of
images → [n, classes]); gives one figure, or one for
each sample; higher is better."""

EXAMPLE = "Write def judge(embed): … return 0.93 in my_metric.py, and name it my_metric:judge."


def load_judge(name: str, folder: Path) -> Judge:
    """The function that `module:function` names, in `folder` or among the installed packages.

    Raises `DataError` if there is no such module or function, or if the module cannot be imported.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise DataError(f"{name!r} is not module:function.", hint=EXAMPLE)
    sys.path.insert(0, str(folder.resolve()))
    try:
        invalidate_caches()
        module = import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise DataError(f"{module_name} cannot be imported: {error!r}.", hint=EXAMPLE) from error
    finally:
        sys.path.remove(str(folder.resolve()))
    function = getattr(module, function_name, None)
    if not callable(function):
        raise DataError(f"{module_name} has no function {function_name!r}.", hint=EXAMPLE)
    judge: Judge = function
    return judge


def figures(judge: Judge, model: Asked, *, name: str) -> Doubles:
    """What a judge gives for a model: float64 [1] or [n samples], finite. Raises `DataError` if it gives no number."""
    try:
        given = judge(_asking(model))
        values = np.atleast_1d(np.asarray(given, np.float64))
    except Exception as error:  # whatever the user's function raises
        raise DataError(
            f"{name} failed: {error!r}.", hint="Call it by itself first; it gets the model's embed."
        ) from error
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise DataError(f"{name} gave {given!r:.60}, which is no figure.", hint="Return a number, or one a sample.")
    return values


def _asking(model: Asked) -> Callable[..., Any]:
    if isinstance(model, Classifies):
        return model.logits
    return model.score if isinstance(model, Scores) else model.embed


def judge_by(after: Doubles, before: Doubles, *, name: str, seed: int = 0, resamples: int = RESAMPLES) -> Quality:
    """Hold a candidate's figures against the original's; the score is their mean.

    One figure for each sample gives a paired-bootstrap interval. A single figure has none: its interval is the figure
    itself, with n = 1. Raises `DataError` if their numbers differ or the original's mean is zero or less.
    """
    if after.shape != before.shape:
        raise DataError(f"{name} gave {len(before)} and {len(after)} figures.", hint="Return one for each sample.")
    mean, mean_before = float(after.mean()), float(before.mean())
    if not mean_before > 0:
        raise DataError(
            f"{name} gives the original {mean_before:.3g}.", hint="Return a figure above 0; higher is better."
        )
    value = (mean_before - mean) / mean_before
    drawn = np.random.default_rng(seed).integers(0, len(after), (resamples, len(after)))
    low, high = np.quantile((before - after)[drawn].mean(axis=1) / mean_before, [0.025, 0.975])
    loss = Interval(value=value, low=min(float(low), value), high=max(float(high), value), n=len(after))
    return Quality(
        kind=name,
        metric=name.partition(":")[2],
        samples=name,
        n=len(after),
        original=mean_before,
        score=mean,
        loss=loss,
    )
