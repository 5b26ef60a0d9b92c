"""One recipe without a search: compress a model, or build a bundle again to see that nothing else went into it."""

from dataclasses import asdict, replace
from pathlib import Path

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.errors import BundleError, DataError
from tightrope.measurement import Parity, Quality
from tightrope.recipe import Recipe
from tightrope.workshop import recipes
from tightrope.workshop.data import read
from tightrope.workshop.load import languages_of, load
from tightrope.workshop.search.laboratory import Laboratory
from tightrope.workshop.search.question import Part, ask
from tightrope.workshop.verify import stand_in


def compress(
    source: str, recipe: Recipe | str, out: Path | str, *, data: Path | str | None = None, force: bool = False
) -> Bundle:
    """Apply a recipe, named or written out, and write the bundle to `out`.

    Its quality on samples that calibrated nothing is attached, if its engine runs here. Raises `SourceError`,
    `RecipeError`, `DataError`, `UnsupportedError` or `OutputError`.
    """
    wanted = recipes.read(recipe) if isinstance(recipe, str) else recipe
    bundle.check_free(Path(out), force=force)
    with _laboratory(source, data) as laboratory:
        if stand_in.needed(wanted.engine):
            return laboratory.write_unopened(wanted, laboratory.convert(wanted), Path(out), force=force)
        made, _ = laboratory.make(wanted)
        quality, parity, _ = laboratory.quality(made, laboratory.question.report)
        return bundle.copy(made, Path(out), _attachments(quality, parity), force=force)


def rebuild(source: Bundle, out: Path, *, data: Path | str | None = None, force: bool = False) -> Bundle:
    """Build a bundle anew from its own lineage; equal inputs give an equal digest on one platform.

    Raises `BundleError` if it does not say what it was made of or the model is not the same any more, `DataError` if
    other calibration texts are needed.
    """
    try:
        name, digest, where = (str(source.content.lineage[key]) for key in ("source", "source_digest", "target"))
        calibration = source.content.lineage["calibration"]
        texts, part = str(calibration["digest"]), str(calibration["part"])
    except (KeyError, TypeError) as error:
        raise BundleError(f"{source.path} does not say what it was made of.", hint="Fit the model anew.") from error
    with _laboratory(name, data, whole=part == "whole", target=where) as laboratory:
        if laboratory.model.origin != digest:
            raise BundleError(f"{name} is not the model it was.", hint="Fit it anew.")
        if laboratory.observer.digest != texts:
            raise DataError(f"{source.path} was calibrated on other texts.", hint="Give the same data with --data.")
        return laboratory.make_anew(Recipe.parse(source.content.recipe), out, force=force)


def _laboratory(source: str, data: Path | str | None, *, whole: bool = False, target: str = "any") -> Laboratory:
    """`whole`: calibrate on all of the data, as a fit does that was given other data to quote."""
    model = load(source)
    question = ask(model, languages_of(source, model), data)
    if whole and data is not None:
        question = replace(question, seen=Part(samples=read(data), name=Path(data).name))
    return Laboratory.of(source, model, question, target=target)


def _attachments(quality: Quality, parity: Parity | None) -> dict[str, object]:
    return {"quality": quality.to_json()} | ({"parity": asdict(parity)} if parity else {})
