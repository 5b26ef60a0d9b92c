"""A recipe: the ordered steps that turn a model into an artefact, as data.

Written as people say it, steps joined by `+`, the engine after `->`:

    smooth(alpha=0.5) + int8(activations=dynamic) + embedding(bits=6) -> onnxruntime

A step names a pass; what its options mean is the pass's own business. Parsing checks form only.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tightrope.errors import RecipeError

Value = bool | int | float | str

_STEP = re.compile(r"([a-z][a-z0-9_]*)\s*(?:\((.*)\))?", re.DOTALL)
_WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Step:
    """One technique and its options.

    >>> print(Step("int8", {"activations": "dynamic"}))
    int8(activations=dynamic)
    """

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        inner = ", ".join(f"{key}={_print(value)}" for key, value in sorted(self.options.items()))
        return f"{self.name}({inner})"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order, and the engine the result is converted for.

    >>> print(Recipe.parse("smooth( alpha = 0.5)+int8 -> openvino"))
    smooth(alpha=0.5) + int8 -> openvino
    """

    steps: tuple[Step, ...]
    engine: str

    def __str__(self) -> str:
        return f"{self.body} -> {self.engine}"

    @property
    def body(self) -> str:
        """The steps as written, without the engine."""
        return " + ".join(map(str, self.steps)) or "original"

    @property
    def digest(self) -> str:
        """Equal for recipes that say the same, however they were written."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    @staticmethod
    def parse(text: str, *, engine: str = "onnxruntime") -> "Recipe":
        """Read the written form; `engine` is used when the text names none. Raises `RecipeError`."""
        body, arrow, named = text.partition("->")
        named = named.strip()
        if arrow and not _WORD.fullmatch(named):
            raise RecipeError(f"The engine {named!r} is not a name.", hint="Write it as in: int8 -> onnxruntime.")
        if body.strip() in ("", "original"):
            return Recipe((), named or engine)
        return Recipe(tuple(_parse_step(part) for part in _split(body, "+")), named or engine)


def _parse_step(text: str) -> Step:
    match = _STEP.fullmatch(text.strip())
    if match is None:
        raise RecipeError(
            f"{text.strip()!r} is not a step of a recipe.", hint="A step looks like int8 or smooth(alpha=0.5)."
        )
    options: dict[str, Value] = {}
    for item in _split(match[2], ",") if (match[2] or "").strip() else ():
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not _WORD.fullmatch(key) or not value.strip():
            raise RecipeError(f"{item.strip()!r} is not an option of {match[1]}.", hint="Write options as name=value.")
        if key in options:
            raise RecipeError(f"{match[1]} is given {key} twice.", hint="Give each option once.")
        options[key] = _read(value.strip())
    return Step(match[1], options)


def _split(text: str, separator: str) -> list[str]:
    """Cut at separators that stand outside parentheses and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == separator and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _read(text: str) -> Value:
    if text.startswith('"') and text.endswith('"') and len(text) >= 2:
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _print(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not re.fullmatch(r"[\w./:-]+", value) or _read(value) != value):
        return f'"{value}"'
    return str(value)
