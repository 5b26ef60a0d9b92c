"""One recipe without a search: compress a model, or build a bundle again to see that nothing else went into it."""

from dataclasses import asdict
from pathlib import Path

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.meter.run import Place, Plan
from tightrope.errors import BundleError, DataError
from tightrope.measurement import Parity, Quality
from tightrope.recipe import Recipe
from tightrope.workshop import recipes
from tightrope.workshop.load import languages_of, load
from tightrope.workshop.observe import Observer
from tightrope.workshop.search.laboratory import Laboratory
from tightrope.workshop.search.question import ask_about


def compress(
    source: str, recipe: Recipe | str, out: Path | str, *, data: Path | str | None = None, force: bool = False
) -> Bundle:
    """Apply a recipe, named or written out, and write the bundle to `out`.

    Its quality on samples that calibrated nothing is attached. Raises `SourceError`, `RecipeError`, `DataError`,
    `UnsupportedError` or `OutputError`.
    """
    wanted = recipes.read(recipe) if isinstance(recipe, str) else recipe
    bundle.check_free(Path(out), force=force)
    with _laboratory(source, data) as laboratory:
        made, _ = laboratory.make(wanted)
        quality, parity, _ = laboratory.quality(made, laboratory.question.report)
        return bundle.copy(made, Path(out), _attachments(quality, parity), force=force)


def rebuild(source: Bundle, out: Path, *, data: Path | str | None = None, force: bool = False) -> Bundle:
    """Build a bundle anew from its own lineage; equal inputs give an equal digest on one platform.

    Raises `BundleError` if the model is not the same any more, `DataError` if other calibration texts are needed.
    """
    lineage = source.content.lineage
    with _laboratory(str(lineage["source"]), data, target=str(lineage["target"])) as laboratory:
        if laboratory.model.origin != lineage["source_digest"]:
            raise BundleError(f"{lineage['source']} is not the model it was.", hint="Fit it anew.")
        if laboratory.observer.digest != lineage["calibration"]["digest"]:
            raise DataError(
                f"{source.path} was calibrated on {lineage['calibration']['samples']}.",
                hint="Give the same with --data.",
            )
        return laboratory.make_anew(Recipe.parse(source.content.recipe), out, force=force)


def _laboratory(source: str, data: Path | str | None, *, target: str = "any") -> Laboratory:
    model = load(source)
    question = ask_about(languages_of(source, model), data, None, None)
    inputs = question.calibration(model)
    return Laboratory(
        source=source,
        model=model,
        question=question,
        observer=Observer(model, inputs) if model.task.name == "embedding" else Observer(model, (), inputs),
        place=Place(),
        plan=Plan(),
        target=target,
    )


def _attachments(quality: Quality, parity: Parity | None) -> dict[str, object]:
    return {"quality": quality.to_json()} | ({"parity": asdict(parity)} if parity else {})
