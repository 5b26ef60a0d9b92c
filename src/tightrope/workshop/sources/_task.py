"""What a model folder is for: scoring pairs, or vectors by the modules of sentence-transformers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.model import Task
from tightrope.workshop.numerics.quantized import Array
from tightrope.workshop.sources._files import FETCH_AGAIN, read_json, read_list, read_safetensors, refuse_pickles

POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "identity",
}


def modules(path: Path) -> list[tuple[str, Path]]:
    """The kind and folder of each module of sentence-transformers, in order; empty without a modules.json."""
    file = path / "modules.json"
    if not file.is_file():
        return []
    found = []
    for item in read_list(file, hint=FETCH_AGAIN):
        kind, place = item.get("type"), item.get("path")
        if not isinstance(kind, str) or not isinstance(place, str) or place not in ("", ".", Path(place).name):
            raise SourceError(f"{file} is malformed.", hint=FETCH_AGAIN)
        found.append((kind.rpartition(".")[2], path / place))
    return found


def transformer_folder(path: Path) -> Path:
    """Where the encoder's own files are: the folder itself, or a subfolder in old models."""
    return next((folder for kind, folder in modules(path) if kind == "Transformer"), path)


def read(path: Path, config: Mapping[str, Any]) -> tuple[Task, dict[str, Array]]:
    """The task, and the weights of dense layers after the pooling. Raises `SourceError`, `UnsupportedError`."""
    steps = modules(path)
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if any(name.endswith("ForSequenceClassification") for name in names) and not steps:
        return scoring(config), {}
    width = config.get("hidden_size", config.get("dim"))
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise SourceError(f"config.json says the width is {width!r}.", hint="Give a config.json with hidden_size.")
    if not steps:
        return Task(name="embedding", width=width), {}
    _check_order(path, [kind for kind, _ in steps])
    pooling = "mean"
    activations: list[str] = []
    dense: dict[str, Array] = {}
    for kind, folder in steps:
        if kind == "Pooling":
            pooling = _pooling(read_json(folder / "config.json", hint=FETCH_AGAIN))
        elif kind == "Dense":
            activation, weight, bias = _dense(folder)
            number, width = len(activations), weight.shape[0]
            dense |= {f"dense.{number}.weight": weight, f"dense.{number}.bias": bias}
            activations.append(activation)
    normalize = any(kind == "Normalize" for kind, _ in steps)
    return Task(name="embedding", width=width, pooling=pooling, normalize=normalize, dense=tuple(activations)), dense


def scoring(config: Mapping[str, Any]) -> Task:
    """A cross-encoder; one score goes through a sigmoid unless the configuration says otherwise."""
    names = config.get("id2label")
    labels = config.get("num_labels") or (len(names) if isinstance(names, dict) else 2)
    if not isinstance(labels, int) or labels < 1:
        raise SourceError(f"config.json says num_labels is {labels!r}.", hint="Give a whole number.")
    wrapper = config.get("sentence_transformers")
    said = wrapper.get("activation_fn") if isinstance(wrapper, dict) else None
    said = said or config.get("sbert_ce_default_activation_function")
    activation = _activation(str(said), "config.json") if said else "sigmoid" if labels == 1 else "identity"
    return Task(name="scoring", width=labels, activation=activation)


def _activation(name: str, place: object) -> str:
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"{place} names the activation {name}.", hint=f"Known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _check_order(path: Path, kinds: list[str]) -> None:
    letters = {"Transformer": "T", "Pooling": "P", "Dense": "D", "Normalize": "N", "Dropout": ""}
    unknown = [kind for kind in kinds if kind not in letters]
    if unknown or not re.fullmatch("TPD*N?", "".join(letters[kind] for kind in kinds)):
        what = f"The module {unknown[0]!r}" if unknown else f"The order {', '.join(kinds)}"
        raise UnsupportedError(
            f"{what} of {path} is not understood.", hint="Known, in this order: Transformer, Pooling, Dense, Normalize."
        )


def _dense(folder: Path) -> tuple[str, Array, Array]:
    """The activation, weight [out, in] and bias [out] of a dense module."""
    settings = read_json(folder / "config.json", hint=FETCH_AGAIN)
    activation = _activation(str(settings.get("activation_function")), folder)
    if not (folder / "model.safetensors").is_file():
        refuse_pickles(folder)
    tensors = read_safetensors(folder / "model.safetensors")
    weight = tensors.get("linear.weight")
    if weight is None or weight.ndim != 2:
        raise SourceError(f"{folder} has no matrix linear.weight.", hint=FETCH_AGAIN)
    return activation, weight, tensors.get("linear.bias", np.zeros(weight.shape[0], np.float32))


def _pooling(config: Mapping[str, Any]) -> str:
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    mode = config.get("pooling_mode")
    if isinstance(mode, str | list):
        named = [mode] if isinstance(mode, str) else mode
        chosen = [key for key, name in POOLINGS.items() if name in named] or [str(item) for item in named]
        chosen = chosen if len(named) == 1 else [str(item) for item in named]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise UnsupportedError(
            f"The pooling {' and '.join(chosen) or 'of nothing'} is not known.",
            hint=f"Known, one at a time: {', '.join(POOLINGS.values())}.",
        )
    if config.get("include_prompt") is False:
        raise UnsupportedError(
            "The pooling leaves out the prompt's tokens, which is not understood.",
            hint="Give a model whose pooling has include_prompt true.",
        )
    return POOLINGS[chosen[0]]
