"""A folder in Hugging Face layout: config.json, safetensors weights, tokenizer.json, and what
sentence-transformers adds (modules.json, pooling, prompts)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tightrope import bundle, plugins
from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import Network, family
from tightrope.workshop.numerics.quantized import Array

MAX_JSON_BYTES = 64_000_000
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
DENSE_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
}


def load(path: Path) -> Network:
    """Read a model folder. Raises `SourceError` for what is missing or broken, `UnsupportedError` for what is foreign."""
    if not path.is_dir():
        raise SourceError(
            f"There is no folder {path}.",
            hint="Give a folder with config.json, or one of `tightrope targets --models`.",
        )
    config = read_json(path / "config.json", hint="Give a folder in Hugging Face layout.")
    model_type = config.get("model_type")
    known = plugins.names("families")
    if not isinstance(model_type, str) or model_type.replace("-", "_") not in known:
        raise UnsupportedError(
            f"The model type {model_type!r} of {path} is not a known family.",
            hint=f"Known: {', '.join(known)}. Any other model can enter as an .onnx file with its tokenizer.json.",
        )
    tensors, weights_digest = _tensors(path)
    task, dense = _task(path, config)
    weights = family(model_type).weights(config, {**tensors, **dense}, task)
    senses = read_senses(path, config)
    parts = {"config": config, "weights": weights_digest, "tokenizer": hashlib.sha256(senses.tokenizer).hexdigest()}
    digest = hashlib.sha256(bundle.canonical({**parts, "task": task.to_json(), "senses": senses.to_json()})).hexdigest()
    return Network(
        family=model_type.replace("-", "_"),
        config=config,
        weights=weights,
        senses=senses,
        task=task,
        origin=digest,
        digest=digest,
    )


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """A JSON object from a file; `SourceError` if it is missing, too large, broken or something else."""
    if not path.is_file():
        raise SourceError(f"{path} is missing.", hint=hint)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise SourceError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes.", hint=hint)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON: {error}.", hint=hint) from error
    if not isinstance(data, dict):
        raise SourceError(f"{path} holds no JSON object.", hint=hint)
    return data


# Weights -----------------------------------------------------------------------------------------------


def _tensors(path: Path) -> tuple[dict[str, Array], str]:
    """All tensors of a folder, half precision widened to float32, and the digest of the files they came from."""
    files = _weight_files(path)
    tensors: dict[str, Array] = {}
    digest = hashlib.sha256()
    for file in files:
        tensors |= read_safetensors(file)
        digest.update(bundle.sha256_of(file).encode())
    return tensors, digest.hexdigest()


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        mapping = read_json(index, hint="Fetch the model again.").get("weight_map", {})
        names = sorted(set(mapping.values())) if isinstance(mapping, dict) else []
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise SourceError(f"{index} names no weight files of this folder.", hint="Fetch the model again.")
        return [path / name for name in names]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    pickles = sorted(item.name for pattern in PICKLES for item in path.glob(pattern))
    if pickles:
        raise SourceError(
            f"{path} holds its weights as a pickle ({pickles[0]}), which can run code when read.",
            hint="Convert it to model.safetensors, or let torch read it without code: pip install 'tightrope[torch]', "
            "then tightrope.workshop.sources.pickled.convert(folder).",
        )
    raise SourceError(f"{path} has no weights.", hint="Put model.safetensors beside config.json.")


def read_safetensors(path: Path) -> dict[str, Array]:
    """The tensors of one file. Raises `SourceError` if the file is missing, truncated or corrupt."""
    if not path.is_file():
        raise SourceError(f"{path} is missing.", hint="Fetch the model again.")
    try:
        with safe_open(path, framework="np") as opened:
            return {name: _widened(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, OSError) as error:
        raise SourceError(f"{path} is not a whole safetensors file: {error}.", hint="Fetch the model again.") from error


def _widened(array: Array) -> Array:
    return array if array.dtype.kind in "iub" or array.dtype == np.float32 else array.astype(np.float32)


# Task and senses ---------------------------------------------------------------------------------------


def _task(path: Path, config: Mapping[str, Any]) -> tuple[Task, dict[str, Array]]:
    """What the folder says the model is for, and the weights of dense layers after the pooling."""
    architectures = config.get("architectures") or []
    if any(str(name).endswith("ForSequenceClassification") for name in architectures):
        labels = config.get("num_labels") or len(config.get("id2label") or {"0": "", "1": ""})
        return Task(name="scoring", width=int(labels), activation="sigmoid" if labels == 1 else "identity"), {}
    width = int(config.get("hidden_size") or config.get("dim") or 0)
    if not (path / "modules.json").is_file():
        return Task(name="embedding", width=width), {}
    try:
        modules = json.loads((path / "modules.json").read_bytes())
        steps = [(item["type"].rpartition(".")[2], path / Path(item["path"] or ".").name) for item in modules]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path / 'modules.json'} is malformed.", hint="Fetch the model again.") from error
    pooling, normalize, activations, dense = "mean", False, [], {}
    for kind, folder in steps:
        if kind == "Pooling":
            pooling = _pooling(read_json(folder / "config.json", hint="Fetch the model again."))
        elif kind == "Normalize":
            normalize = True
        elif kind == "Dense":
            settings = read_json(folder / "config.json", hint="Fetch the model again.")
            function = str(settings.get("activation_function"))
            if function not in DENSE_ACTIVATIONS:
                raise UnsupportedError(
                    f"The dense layer of {path} uses {function}.", hint=f"Known: {', '.join(DENSE_ACTIVATIONS)}."
                )
            tensors = read_safetensors(folder / "model.safetensors")
            number, width = len(activations), int(settings["out_features"])
            weight = tensors["linear.weight"]
            bias = tensors.get("linear.bias", np.zeros(width, np.float32))
            dense |= {f"dense.{number}.weight": weight, f"dense.{number}.bias": bias}
            activations.append(DENSE_ACTIVATIONS[function])
        elif kind != "Transformer":
            raise UnsupportedError(
                f"The module {kind!r} of {path} is not known.", hint="Known: Transformer, Pooling, Dense, Normalize."
            )
    return Task(name="embedding", width=width, pooling=pooling, normalize=normalize, dense=tuple(activations)), dense


def _pooling(config: Mapping[str, Any]) -> str:
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        chosen = [key for key, name in POOLINGS.items() if name == mode] or [mode]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise UnsupportedError(
            f"The pooling {' and '.join(chosen) or 'of nothing'} is not known.",
            hint=f"Known: {', '.join(POOLINGS.values())}.",
        )
    return POOLINGS[chosen[0]]


def read_senses(path: Path, config: Mapping[str, Any]) -> TextSenses:
    """The tokenizer and its settings. Raises `SourceError` if it is missing or unusable."""
    file = path / "tokenizer.json"
    if not file.is_file():
        raise SourceError(
            f"{path} has no tokenizer.json.",
            hint="Save a fast tokenizer there (its save_pretrained writes tokenizer.json).",
        )
    tokenizer = normal_tokenizer(file)
    sentence = _optional(path / "sentence_bert_config.json")
    wrapper = _optional(path / "config_sentence_transformers.json")
    prompts = wrapper.get("prompts") or {}
    positions = int(config.get("max_position_embeddings") or 512)
    if str(config.get("model_type")) in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2
    limit = (
        sentence.get("max_seq_length") or _optional(path / "tokenizer_config.json").get("model_max_length") or positions
    )
    return TextSenses(
        tokenizer=tokenizer,
        max_length=int(min(limit, positions)),
        prompts={str(key): str(value) for key, value in prompts.items()},
        default_prompt=wrapper.get("default_prompt_name"),
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path, hint="Fetch the model again.") if path.is_file() else {}


def normal_tokenizer(file: Path) -> bytes:
    """The bytes of a tokenizer.json with its own padding and truncation taken out: the senses decide about both."""
    from tokenizers import Tokenizer

    hint = "Give the tokenizer.json that belongs to the model."
    data = read_json(file, hint=hint)
    data["padding"] = data["truncation"] = None
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    try:
        Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise SourceError(f"{file} is not a tokenizer: {error}.", hint=hint) from error
    return text.encode()
