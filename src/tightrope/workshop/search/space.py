"""The space: which recipes are worth trying for a model on given engines, the likeliest first.

The order is what measurements on sentence encoders taught (docs/techniques); the search only takes it as a hint. A
recipe that begins like its neighbour shares the work of that beginning.
"""

from collections.abc import Sequence
from itertools import chain, zip_longest

from tightrope import plugins
from tightrope.device.senses.image import ImageSenses
from tightrope.recipe import Recipe
from tightrope.workshop.model import Model

STATIC = "int8(activations=static, compensation=gptq, outliers=4)"
DYNAMIC = "int8(compensation=gptq, granularity=tensor, outliers=4)"
TOKEN = "int8(compensation=gptq)"
SMOOTH = "smooth(alpha=0.7, shift=true)"

TABLES = ("embedding(bits=8)", "embedding(bits=6, block=32)", "embedding(bits=4, block=64, symmetric=false)")
"""They come last in a recipe: what begins alike shares the work."""

ROTATED = "smooth(alpha=0.5) + rotate + int8(compensation=gptq)"
WEIGHTS = "int8(activations=none, compensation=gptq)"
SLOW_IN_FLOAT = ("native",)
"""Engines made for integers: an original is never fastest there, and timing it there is time lost."""

USUAL = ("native", "onnxruntime", "openvino")
"""The engines that a search tries by itself: quick to convert for, and mostly the fastest on a computer."""

SLOW_TO_CONVERT = ("coreml", "executorch", "litert", "tvm")
"""Engines whose tools trace the model through a compiler: they come last where time is short."""

UNKNOWN = (TOKEN,)
"""What is tried on an engine that nothing was measured on: the form that most engines have a kernel for."""

OPENERS = {
    "native": f"{ROTATED} + {TABLES[0]}",
    "onnxruntime": f"{SMOOTH} + {STATIC} + {TABLES[0]}",
    "openvino": f"{SMOOTH} + {STATIC} + {TABLES[0]}",
    "coreml": f"half + {SMOOTH} + {STATIC} + {TABLES[0]}",
    "tensorrt": f"{SMOOTH} + {STATIC} + {TABLES[0]}",
    "mnn": f"{WEIGHTS} + {TABLES[0]}",
    "ncnn": f"{ROTATED} + {TABLES[0]}",
    "litert": f"{TOKEN} + {TABLES[0]}",
    "executorch": f"{TOKEN} + {TABLES[0]}",
}
"""For each engine the recipe to begin with: what did best on it, on models measured so far."""

BODIES: dict[str, tuple[str, ...]] = {
    "mnn": (WEIGHTS, "int4"),
    "litert": (TOKEN, f"smooth(alpha=0.5) + {TOKEN}", "int4"),
    "executorch": (TOKEN, f"smooth(alpha=0.5) + {TOKEN}", "int4"),
    "ncnn": (ROTATED, f"smooth(alpha=0.5) + {TOKEN}", WEIGHTS, "int4"),
    "native": (
        ROTATED,
        ROTATED.replace("gptq", "gptq, reduce_range=true"),
        "rotate + int8",
        "rotate + int8(compensation=gptq)",
        "int8(compensation=gptq)",
    ),
    "onnxruntime": (
        f"{SMOOTH} + {DYNAMIC}",
        f"{SMOOTH} + {STATIC}",
        "int8(granularity=tensor)",
        f"smooth(alpha=0.5) + {DYNAMIC}",
        f"smooth(alpha=0.5) + {STATIC}",
        f"{SMOOTH} + int8(activations=static, outliers=4)",
        "int8(activations=static, outliers=4)",
        "int8(activations=static, calibration=percentile)",
        "smooth(alpha=0.5) + int8(granularity=tensor)",
        f"{SMOOTH} + {TOKEN}",
        "int8(compensation=gptq)",
        "int8(activations=none)",
        "int4",
        "int4(method=hqq)",
        "int4(method=nearest)",
        "mixed(loss=0.002)",
    ),
    "openvino": (
        f"{SMOOTH} + {STATIC}",
        "int8(activations=none, compensation=gptq)",
        "int8(activations=static)",
        f"smooth(alpha=0.5) + {STATIC}",
        f"{SMOOTH} + int8(activations=static, outliers=4)",
        "int8(activations=static, calibration=percentile)",
        "int4",
    ),
    "coreml": (f"half + {SMOOTH} + {STATIC}", "half + int8(activations=none, compensation=gptq)", "half + int4"),
    "tensorrt": (f"{SMOOTH} + {STATIC}", "int8(activations=none, compensation=gptq)"),
}
IMAGES = (
    "int8(activations=static)",
    "int8(activations=static, calibration=mse)",
    "int8(activations=static, calibration=percentile)",
    "int8(activations=none)",
    "",
)
"""For a model of images, on any engine: the plainest first."""
PLAIN = ("half",)
MOST_TABLES = 2
"""How many of an engine's first recipes are tried with smaller tables too."""


def for_originals(engines: Sequence[str]) -> tuple[str, ...]:
    """The engines worth timing the original on: all but those made for integers, unless there is no other."""
    return tuple(name for name in engines if name not in SLOW_IN_FLOAT) or tuple(engines)


def first(model: Model, engines: Sequence[str]) -> tuple[Recipe, ...]:
    """One recipe for each engine to begin with, for this model."""
    if isinstance(model.senses, ImageSenses):
        return _of_images(model, IMAGES[:1], engines)
    return openers(engines)


def _of_images(model: Model, bodies: Sequence[str], engines: Sequence[str]) -> tuple[Recipe, ...]:
    """The same for each engine; branches are merged where there are any."""
    merge = plugins.load("passes", "reparameterize").applies(model)
    written = [_joined("reparameterize" if merge else "", body) for body in bodies]
    return tuple(Recipe.parse(body, engine=engine) for body in written if body for engine in engines)


def openers(engines: Sequence[str]) -> tuple[Recipe, ...]:
    """One recipe for each engine to begin with, for text."""
    return tuple(Recipe.parse(OPENERS[engine], engine=engine) for engine in engines if engine in OPENERS)


def others(model: Model, engines: Sequence[str]) -> tuple[Recipe, ...]:
    """Every other recipe worth trying, the engines taking turns."""
    if isinstance(model.senses, ImageSenses):
        return _of_images(model, (*IMAGES[1:], *PLAIN), engines)
    tables = TABLES if any(table.is_vocabulary for table in model.tables()) else ("",)
    begun = {str(recipe) for recipe in openers(engines)}
    by_engine = [_of_engine(engine, tables) for engine in engines]
    found = (recipe for recipe in chain.from_iterable(zip_longest(*by_engine)) if recipe is not None)
    return tuple({str(recipe): recipe for recipe in found if str(recipe) not in begun}.values())


def _of_engine(engine: str, tables: Sequence[str]) -> list[Recipe]:
    bodies = BODIES.get(engine, UNKNOWN)
    written = []
    for number, body in enumerate(bodies):
        tried = tables if number < MOST_TABLES else tables[:1]
        written += [_joined(body, table) for table in tried]
    return [Recipe.parse(text, engine=engine) for text in (*written, *PLAIN)]


def _joined(*parts: str) -> str:
    return " + ".join(part for part in parts if part)
