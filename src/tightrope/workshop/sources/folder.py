"""A folder in Hugging Face layout: config.json, safetensors weights, tokenizer.json, and what
sentence-transformers adds (modules.json, pooling, prompts)."""

import hashlib
from pathlib import Path

from tightrope import bundle, plugins
from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.network import Network, family
from tightrope.workshop.numerics.quantized import Array
from tightrope.workshop.sources import _senses, _task
from tightrope.workshop.sources._files import read_json, read_safetensors, weight_files


def load(path: Path) -> Network:
    """Read a model folder. `SourceError`: something is missing or broken; `UnsupportedError`: it is foreign."""
    if not path.is_dir():
        raise SourceError(f"There is no folder {path}.", hint="Give a folder with config.json and model.safetensors.")
    inner = _task.transformer_folder(path)
    config = read_json(inner / "config.json", hint="Give a folder in Hugging Face layout.")
    model_type, known = config.get("model_type"), plugins.names("families")
    if not isinstance(model_type, str) or model_type.replace("-", "_") not in known:
        raise UnsupportedError(
            f"The model type {model_type!r} of {path} is not a known family.",
            hint=f"Known: {', '.join(known)}. Any other model can enter as an .onnx file with its tokenizer.json.",
        )
    tensors, weights_digest = _tensors(inner)
    task, dense = _task.read(path, config)
    weights = family(model_type).weights(config, {**tensors, **dense}, task)
    senses = _senses.read(inner, config, wrapper=path)
    parts = {
        "config": config,
        "weights": weights_digest,
        "dense": {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in dense.items()},
        "tokenizer": hashlib.sha256(senses.tokenizer).hexdigest(),
        "task": {**task.to_json(), "dense": list(task.dense)},
        "senses": senses.to_json(),
    }
    digest = hashlib.sha256(bundle.canonical(parts)).hexdigest()
    network = Network(
        family=model_type.replace("-", "_"),
        config=config,
        weights=weights,
        senses=senses,
        task=task,
        origin=digest,
        digest=digest,
    )
    _senses.check(network, path)
    return network


def _tensors(path: Path) -> tuple[dict[str, Array], str]:
    """All tensors of a folder, and the digest of the files they came from."""
    tensors: dict[str, Array] = {}
    digest = hashlib.sha256()
    for file in weight_files(path):
        tensors |= read_safetensors(file)
        digest.update(bundle.sha256_of(file).encode())
    return tensors, digest.hexdigest()
