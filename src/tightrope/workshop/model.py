"""What every model in the workshop is made of, whether it is a Network or a Graph.

A pass sees a model only through `Model`: its named weights, the linear layers and the tables
among them, and the schemes that annotate the layers' inputs. So a technique is written once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from tightrope.device.senses.image import ImageSenses
from tightrope.device.senses.text import prompt_text
from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.quantized import Scheme, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer y = x·W + b.

    `weight`, `bias`: names in the model's weights. `source`: the name of its input; layers with the same source
    share one input and so one scheme. `out_axis`: the weight's axis of output features (0 as torch stores it, 1 as
    ONNX's MatMul takes it).
    """

    name: str
    weight: str
    bias: str | None
    source: str
    out_axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution y = W * x + b with constant weights [out, in / groups, …].

    `weight`, `bias`, `source`: as of `Linear`. `output`: what it gives, behind the Relu or Clip that it alone feeds.
    """

    name: str
    weight: str
    bias: str | None
    source: str
    output: str
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An embedding table [rows, features] that is only gathered from; `is_vocabulary` if rows are token ids."""

    weight: str
    is_vocabulary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSenses:
    """How text becomes ids: the tokenizer (bytes of a tokenizer.json) without padding, and the longest input.

    `prompts` maps a prompt's name to the text put before the input; `default_prompt` is used when none is asked for.
    """

    tokenizer: bytes
    max_length: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def met(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs as the model meets them: texts behind its default prompt, pairs as they are."""
        before = prompt_text(self.prompts, self.default_prompt)
        return [before + item if isinstance(item, str) else item for item in inputs]

    def to_json(self) -> dict[str, Any]:
        """The senses as a bundle's manifest holds them, without the tokenizer's bytes."""
        return {
            "kind": "text",
            "max_length": self.max_length,
            "prompts": dict(self.prompts),
            "default_prompt": self.default_prompt,
        }


Senses = TextSenses | ImageSenses


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the model is for.

    `embedding`: one vector a text, `width` wide; `pooling` mean, cls, max or mean_sqrt_len; unit length if `normalize`.
    `scoring`: `width` numbers for a pair of texts; one number goes through `activation` (sigmoid or identity).
    `classification`: `width` logits for an image, one for each of `labels`; `activation` (softmax or identity) is what
    the original made of them, which the device does, not the engine.
    """

    name: Literal["embedding", "scoring", "classification"]
    width: int
    pooling: str = "mean"
    normalize: bool = True
    activation: str = "identity"
    dense: tuple[str, ...] = ()
    """Activations of dense layers after the pooling; their weights are named `dense.<i>.weight` and `.bias`."""
    labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The task as a bundle's manifest holds it."""
        fields: dict[str, Any] = {"name": self.name, "width": self.width}
        if self.name == "embedding":
            return fields | {"pooling": self.pooling, "normalize": self.normalize}
        if self.name == "classification":
            return fields | {"activation": self.activation, "labels": list(self.labels)}
        return fields | {"activation": self.activation}


class Model(Protocol):
    """The annotated model in the middle, as passes see it.

    `origin` identifies the function before any step, `digest` the model as it stands.
    """

    @property
    def weights(self) -> Mapping[str, Weight]: ...
    @property
    def schemes(self) -> Mapping[str, Scheme]: ...
    @property
    def senses(self) -> Senses: ...
    @property
    def task(self) -> Task: ...
    @property
    def origin(self) -> str: ...
    @property
    def digest(self) -> str: ...

    def linears(self) -> tuple[Linear, ...]:
        """The linear layers, in the order in which they run."""
        ...

    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolutions, in the order in which they run."""
        ...

    def tables(self) -> tuple[Table, ...]:
        """The embedding tables."""
        ...

    def rewrite(
        self,
        *,
        weights: Mapping[str, Weight] | None = None,
        schemes: Mapping[str, Scheme] | None = None,
        senses: TextSenses | None = None,
    ) -> Self:
        """The same model with some weights, schemes (keyed by the layer's weight) or the senses replaced."""
        ...


def text_senses(model: Model) -> TextSenses:
    """The senses of a model that reads text. Raises `UnsupportedError` for any other."""
    if not isinstance(model.senses, TextSenses):
        raise UnsupportedError("The model takes images; this is for models of text.", hint="Leave this step out.")
    return model.senses


def image_senses(model: Model) -> ImageSenses:
    """The senses of a model that sees images. Raises `UnsupportedError` for any other."""
    if not isinstance(model.senses, ImageSenses):
        raise UnsupportedError("The model takes text; this is for models of images.", hint="Leave this step out.")
    return model.senses
