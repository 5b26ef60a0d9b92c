"""An open bundle with the interface of sentence-transformers' `SentenceTransformer`, for code that calls `encode`.

    model = SentenceTransformerAdapter("minilm.bundle")
    model.encode(["a sentence", "another"])

What the bundle cannot do (token embeddings, other devices) is refused, never ignored. `batch_size` and
`show_progress_bar` are accepted and have no effect: batches are packed by tokens, and there is no progress bar.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from tightrope.errors import DataError, UnsupportedError
from tightrope.plugins import import_optional

if TYPE_CHECKING:
    from tightrope.device.model import Embedder

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
PRECISIONS = ("float32", "binary", "ubinary")


class SentenceTransformerAdapter:
    """A bundle that embeds texts, as sentence-transformers' `SentenceTransformer`. Safe for use from several threads.

    `model`: the path of a bundle, or what `tightrope.open` gave. Raises `UnsupportedError` for a cross-encoder, and
    what `tightrope.open` raises.
    """

    similarity_fn_name = "cosine"
    device = "cpu"

    def __init__(self, model: "Path | str | Embedder", *, threads: int = 1, engine: str | None = None) -> None:
        self._model = opened(model, threads=threads, engine=engine)
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the engine's memory back."""
        self._model.close()

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return dict(self._senses["prompts"])

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt that is used when none is asked for."""
        name: str | None = self._senses["default_prompt"]
        return name

    @property
    def max_seq_length(self) -> int:
        """The most tokens that are read of a text; a longer one is cut."""
        return int(self._senses["max_length"])

    @property
    def _senses(self) -> Mapping[str, Any]:
        return self._model.bundle.content.senses

    def get_sentence_embedding_dimension(self) -> int:
        """How many numbers a vector has."""
        return int(self._model.bundle.content.task["width"])

    get_embedding_dimension = get_sentence_embedding_dimension

    def encode(
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Literal["float32", "binary", "ubinary"] = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Vectors of the texts, [n, width], in order; of one text, given as a string, [width].

        float32, or packed bits with `precision="binary"` (int8) and `"ubinary"` (uint8). A torch tensor with
        `convert_to_tensor`, a list of tensors without `convert_to_numpy`. `prompt` is put before each text;
        `prompt_name` picks one of the model's own. `truncate_dim` keeps the first numbers of each vector. Raises
        `UnsupportedError` for what a bundle cannot do, `DataError` for what is not text, `MissingExtraError` if
        torch is wanted and missing.
        """
        _check(output_value, precision, device, kwargs)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        vectors = self._embed(texts, prompt_name, prompt, normalize=normalize_embeddings and truncate_dim is None)
        if truncate_dim is not None:
            vectors = _truncated(vectors, truncate_dim, normalize=normalize_embeddings)
        if precision != "float32":
            vectors = _bits(vectors, signed=precision == "binary")
        result: Any = vectors[0] if isinstance(sentences, str) else vectors
        if convert_to_tensor or not convert_to_numpy:
            torch: Any = import_optional("torch", wanted_by="encode(convert_to_tensor=True)")
            result = torch.from_numpy(result.copy())
            if not convert_to_tensor and not isinstance(sentences, str):
                return list(result)
        return result

    def encode_query(self, sentences: str | Sequence[str], prompt_name: str | None = None, **options: Any) -> Any:
        """`encode` with the model's prompt for queries, where it has one."""
        return self.encode(sentences, prompt_name=prompt_name or self._first(QUERY_PROMPTS, options), **options)

    def encode_document(self, sentences: str | Sequence[str], prompt_name: str | None = None, **options: Any) -> Any:
        """`encode` with the model's prompt for documents, where it has one."""
        return self.encode(sentences, prompt_name=prompt_name or self._first(DOCUMENT_PROMPTS, options), **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of each vector with each: [n, m] for [n, width] and [m, width]. Tensors if tensors are given."""
        first, second = _unit(embeddings1), _unit(embeddings2)
        return _like(embeddings1, first @ second.T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of each vector with its partner: [n]."""
        first, second = _unit(embeddings1), _unit(embeddings2)
        return _like(embeddings1, (first * second).sum(axis=1))

    def _first(self, wanted: tuple[str, ...], options: Mapping[str, Any]) -> str | None:
        if options.get("prompt") is not None:
            return None
        return next((name for name in wanted if name in self.prompts), None)

    def _embed(self, texts: list[str], prompt_name: str | None, prompt: str | None, *, normalize: bool) -> Any:
        if prompt is not None:  # a prompt in words goes before one by name, as it does there
            texts = [prompt + text if isinstance(text, str) else text for text in texts]
            prompt_name = ""
        with self._lock:
            return self._model.embed(texts, prompt=prompt_name, normalize=normalize)


def opened(model: "Path | str | Embedder", *, threads: int, engine: str | None) -> "Embedder":
    """The model behind a path or an open bundle. Raises `UnsupportedError` if it does not embed texts."""
    if isinstance(model, str | Path):
        from tightrope.device.model import open_bundle

        model = cast("Embedder", open_bundle(model, threads=threads, engine=engine))
    if not hasattr(model, "embed"):
        raise UnsupportedError(
            "This bundle scores pairs of texts; it gives no vectors.",
            hint="Use tightrope.open(…).score(pairs), or give the bundle of an embedding model.",
        )
    return model


def _check(output_value: object, precision: str, device: str | None, others: Mapping[str, Any]) -> None:
    if output_value != "sentence_embedding":
        raise UnsupportedError(
            f"output_value={output_value!r} is not in a bundle.", hint="A bundle gives sentence embeddings only."
        )
    if precision not in PRECISIONS:
        raise UnsupportedError(
            f"precision={precision!r} is not supported.", hint=f"Supported: {', '.join(PRECISIONS)}."
        )
    if device not in (None, "cpu"):
        raise UnsupportedError(
            f"device={device!r} is not supported.", hint="A bundle runs on the CPU; leave the device out."
        )
    unknown = [name for name, value in others.items() if value is not None]
    if unknown:
        raise UnsupportedError(f"encode does not support {', '.join(unknown)}.", hint="Leave it out.")


def _truncated(vectors: Any, count: int, *, normalize: bool) -> Any:
    if not 1 <= count <= vectors.shape[1]:
        raise DataError(f"truncate_dim={count} is out of range.", hint=f"Give 1 to {vectors.shape[1]}.")
    kept = vectors[:, :count].copy()
    return _unit(kept) if normalize else kept


def _bits(vectors: Any, *, signed: bool) -> Any:
    """One bit for each number, 1 if it is above 0, eight to a byte; signed bytes are lower by 128."""
    import numpy as np

    packed = np.packbits(vectors > 0, axis=1)
    return (packed.astype(np.int16) - 128).astype(np.int8) if signed else packed


def _unit(vectors: Any) -> Any:
    import numpy as np

    rows = np.atleast_2d(np.asarray(vectors, np.float32))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _like(given: Any, result: Any) -> Any:
    """A tensor where a tensor was given."""
    if type(given).__module__.partition(".")[0] == "torch":
        return given.new_tensor(result)
    return result
