"""A Network: a model of a known family, as configuration and named weights. No torch.

A family (`families/<model_type>.py`) knows which weights are layers and tables, and lowers
them to a small, stable, readable ONNX graph. Same weights in, same bytes out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as _replace
from typing import Any, Protocol, Self, cast

from tightrope import plugins
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Convolution, Linear, Model, Table, Task, TextSenses
from tightrope.workshop.numerics.quantized import Scheme, Weight


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """An annotated model of a family. Weights bear the names of the checkpoint, without the class prefix."""

    family: str
    config: Mapping[str, Any]
    weights: Mapping[str, Weight]
    senses: TextSenses
    task: Task
    origin: str
    digest: str
    schemes: Mapping[str, Scheme] = field(default_factory=dict)

    def linears(self) -> tuple[Linear, ...]:
        """The family's linear layers; see `Model.linears`."""
        return family(self.family).linears(self)

    def convolutions(self) -> tuple[Convolution, ...]:
        """None: every family is one of text."""
        return ()

    def tables(self) -> tuple[Table, ...]:
        """The family's embedding tables; see `Model.tables`."""
        return family(self.family).tables(self)

    def rewrite(
        self,
        *,
        weights: Mapping[str, Weight] | None = None,
        schemes: Mapping[str, Scheme] | None = None,
        senses: TextSenses | None = None,
    ) -> Self:
        """The same network with some weights, schemes or the senses replaced; see `Model.rewrite`."""
        return _replace(
            self,
            weights={**self.weights, **(weights or {})},
            schemes={**self.schemes, **(schemes or {})},
            senses=senses or self.senses,
        )


class Family(Protocol):
    """What a file in `families/` offers."""

    def weights(self, config: Mapping[str, Any], tensors: Mapping[str, Weight], task: Task) -> dict[str, Weight]:
        """Pick and name the weights that the task needs. Raises `SourceError` if one is missing or misshapen."""
        ...

    def linears(self, network: Network) -> tuple[Linear, ...]:
        """The linear layers in running order."""
        ...

    def tables(self, network: Network) -> tuple[Table, ...]:
        """The embedding tables."""
        ...

    def lower(self, network: Network) -> Graph:
        """The network as a Graph whose weights bear the same names, with the same annotations."""
        ...


def family(name: str) -> Family:
    """The family for a model type of a configuration, such as `bert` or `xlm-roberta`."""
    return cast(Family, plugins.load("families", name.replace("-", "_")))


def lower(model: Model) -> Graph:
    """A model as a Graph; a Graph is returned as it is."""
    if isinstance(model, Graph):
        return model
    assert isinstance(model, Network)
    return family(model.family).lower(model)
