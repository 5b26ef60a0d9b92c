"""A bundle of a text model with its senses and its task around it, as `tightrope.open` gives it.

model = tightrope.open("minilm.bundle")
model.embed(["a sentence", "another"])      # float32 [n, width], unit length
"""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from tightrope import bundle, plugins
from tightrope.bundle import Artefact, Bundle, Requirements
from tightrope.device import engine
from tightrope.device.senses.text import Encoded, NativeTokenizer, Tokenizer, batches, clean_pair, clean_text
from tightrope.device.session import Opener, Ragged, Session
from tightrope.errors import BundleError, DataError, MissingExtraError, UnsupportedError

Floats = NDArray[np.float32]
DEFAULT_TOKEN_BUDGET = 256
WINDOW = 8192
"""Inputs that are tokenised at once and sorted by length: with it memory is bounded, however many are given."""


class _Opened:
    """An open bundle: its session and its tokenizer. A context manager; closing gives the memory back."""

    def __init__(self, source: Bundle, session: Session, artefact: Artefact) -> None:
        self.bundle = source
        self.engine = artefact.engine
        self.truncated = 0
        """How many texts so far were longer than the model's limit, and were cut."""
        self._session = session
        self.tokenizer = _tokenizer(source)
        self.batch_tokens = int(artefact.settings.get("batch_tokens", DEFAULT_TOKEN_BUDGET))
        """Tokens of one batch, padding counted, with which this model is at its best."""
        self.exact = session.capabilities.exact
        """Whether answers do not depend on what else is in the batch, to the last bit."""
        self.parallel = session.capabilities.parallel
        """Whether several threads can be answered at once; else they take turns."""
        self.ragged = session.capabilities.ragged
        """Whether texts of unequal length in a batch need no padding."""
        self.width: int = source.content.task["width"]
        """Numbers in an answer."""
        self._multiple = int(artefact.settings.get("length_multiple", 1))
        self._output = session.outputs[0].name
        self._takes = {port.name for port in session.inputs}
        self._turn: AbstractContextManager[object] = nullcontext() if self.parallel else Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the engine's memory back."""
        self._session.close()
        self.tokenizer.close()

    def encode(self, inputs: Sequence[Any], *, prompt: str | None = None) -> Encoded:
        """Token ids of the inputs as `answer` takes them. Raises `DataError` as answering the inputs themselves does.

        Safe for use from several threads at once, also beside `answer`.
        """
        return self._tokens(self._prepared(inputs, prompt))

    def checked(self, encoded: Encoded, prompt: str | None = None) -> Encoded:
        """Token ids that somebody else made, as `answer` takes them: segments of zeros where the model wants some.

        Raises `DataError` for texts without tokens or longer than the model reads, for ids that its tokenizer does not
        have, and for a prompt, which cannot be put before ids.
        """
        ids, most = encoded.ids, self.tokenizer.vocabulary
        if prompt:
            raise DataError(f"The prompt {prompt!r:.60} cannot be put before token ids.", hint="Send texts.")
        lengths, longest = ids.lengths, self.tokenizer.max_length
        if len(wrong := lengths[(lengths < 1) | (lengths > longest)]):
            raise DataError(
                f"A text has {wrong[0]} tokens; the model reads 1 to {longest}.",
                hint="Send texts, which are cut, or fewer tokens.",
            )
        if len(strange := ids.values[(ids.values < 0) | (ids.values >= most)]):
            raise DataError(f"There is no token {strange[0]}.", hint=f"The model's ids are 0 to {most - 1}.")
        wanted = "token_type_ids" in self._takes
        values, offsets = (ids.values, ids.offsets) if wanted else (ids.values[:0], ids.offsets * 0)
        return Encoded(ids, Ragged(np.zeros_like(values), offsets), 0)

    def answer(self, encoded: Encoded) -> Floats:
        """Rows [n, width] for one batch, however large: as the model gives them, neither sorted nor cut.

        Safe for use from several threads. Raises `EngineError` if the engine fails, `BundleError` if the answers have
        not the shape that the bundle says.
        """
        shape, feeds = (len(encoded), self.width), self.feeds(encoded)
        with self._turn:
            found: Floats = self._session.run(feeds)[self._output]
        if found.shape != shape:
            raise BundleError(
                f"{self.bundle.path} says that answers are {shape[1]} wide; its model gives {found.shape}.",
                hint="Make the bundle anew.",
            )
        return found

    def feeds(self, encoded: Encoded) -> dict[str, NDArray[Any]]:
        """The arrays that the session takes for one batch."""
        if self.ragged:
            whole: dict[str, NDArray[Any]] = {"input_ids": encoded.ids.values, "offsets": encoded.ids.offsets}
            return whole | ({"token_type_ids": encoded.types.values} if "token_type_ids" in self._takes else {})
        steps = {"multiple": self._multiple, "most": self.tokenizer.max_length}
        ids, mask = encoded.ids.padded(**steps)
        named = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._takes:
            named["token_type_ids"] = encoded.types.padded(**steps)[0]
        return {name: value for name, value in named.items() if name in self._takes}

    def _prepared(self, inputs: Sequence[Any], prompt: str | None) -> list[Any]:
        """The inputs, all looked at, with the prompt before them. Each task has its own."""
        raise NotImplementedError

    def _run(self, inputs: Sequence[Any], before: str = "") -> Floats:
        """All inputs, texts with `before` before them, a window at a time; rows come back in the order given."""
        rows = np.empty((len(inputs), self.width), np.float32)
        for start in range(0, len(inputs), WINDOW):
            window = inputs[start : start + WINDOW]
            self._fill([before + text for text in window] if before else window, rows[start : start + WINDOW])
        return rows

    def _fill(self, inputs: Sequence[Any], rows: Floats) -> None:
        """Fill the rows of one window, in batches of similar length."""
        encoded = self._tokens(inputs)
        self.truncated += encoded.truncated
        if (
            self.ragged or len(inputs) == 1
        ):  # nothing to sort, which is half of what a short text costs around the engine
            rows[:] = self.answer(encoded)
            return
        for batch in batches(encoded.ids.lengths, self.batch_tokens):
            rows[batch] = self.answer(encoded.take(batch))

    def _tokens(self, inputs: Sequence[Any]) -> Encoded:
        return self.tokenizer.encode(inputs, types="token_type_ids" in self._takes)


class Embedder(_Opened):
    """Texts to vectors."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The names of the model's prompts."""
        return tuple(self.bundle.content.senses["prompts"])

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, normalize: bool = True) -> Floats:
        """Vectors of the texts, float32 [n, width], in the order given, of unit length unless told otherwise.

        `prompt` names one of the model's prompts (its default one is used when it has one; "" asks for none). Any
        number of texts may be given. Raises `DataError` for anything that is not text, or a prompt that the model
        does not have.
        """
        if isinstance(texts, str):
            raise DataError("embed takes a list of texts, not one text.", hint=f"Write embed([{texts[:30]!r}]).")
        vectors = self._run(_checked(texts, clean_text), self._prompt(prompt))
        return self.unit_length(vectors) if normalize else vectors

    def unit_length(self, vectors: Floats) -> Floats:
        """The vectors [n, width] scaled to length 1, in place; a model that does so itself has done it already."""
        if not self.bundle.content.task["normalize"]:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _prepared(self, inputs: Sequence[Any], prompt: str | None) -> list[Any]:
        before = self._prompt(prompt)
        return [before + text for text in _checked(inputs, clean_text)]

    def _prompt(self, name: str | None) -> str:
        prompts: Mapping[str, str] = self.bundle.content.senses["prompts"]
        if name is None:
            name = self.bundle.content.senses["default_prompt"]
        if not name:
            return ""
        if name not in prompts:
            raise DataError(f"The model has no prompt {name!r}.", hint=f"It has: {', '.join(prompts) or 'none'}.")
        return prompts[name]


class Scorer(_Opened):
    """Pairs of texts to scores: a cross-encoder."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Scores of the pairs, float32 [n], or [n, labels] for a model with several labels.

        Raises `DataError` for anything that is not a pair of texts.
        """
        rows = self._run(_checked(pairs, clean_pair))
        return rows[:, 0] if rows.shape[1] == 1 else rows

    def _prepared(self, inputs: Sequence[Any], prompt: str | None) -> list[Any]:
        if prompt:
            raise DataError(f"The model scores pairs and has no prompt {prompt!r:.60}.", hint="Leave the prompt out.")
        return _checked(inputs, clean_pair)


def runtime_of(name: str) -> Opener:
    """What opens an engine's artefacts."""
    return cast(Opener, plugins.load("runtimes", name))


def open_bundle(
    path: Path | str | Bundle,
    *,
    threads: int = 1,
    engine: str | None = None,
    verify: bool = True,
    runtime: Callable[[str], Opener] = runtime_of,
) -> Embedder | Scorer:
    """Open a bundle for text: a folder, whose digests are verified first, or a `Bundle` that was read already.

    `engine` picks one of the bundle's artefacts; otherwise the first that this machine can run is taken. `runtime`
    gives what opens an engine's artefacts. Raises `BundleError` for a broken bundle or one with nothing for this
    machine, `MissingExtraError` if an engine is missing, `UnsupportedError` for a bundle of images.
    """
    source = path if isinstance(path, Bundle) else bundle.read(path, verify=verify)
    if source.content.task["name"] == "classification":
        raise UnsupportedError(f"{source.path} classifies images; this is for text.", hint="Use tightrope.open(path).")
    artefact, session = open_first(source, engine, threads, runtime)
    kind = Scorer if source.content.task["name"] == "scoring" else Embedder
    try:
        return kind(source, session, artefact)
    except BaseException:
        session.close()
        raise


def open_first(
    source: Bundle, engine: str | None, threads: int, runtime: Callable[[str], Opener]
) -> tuple[Artefact, Session]:
    """The first artefact of a bundle that this machine can run, and its session; raises as `open_bundle` does."""
    artefacts = source.content.models[0].artefacts
    missing: MissingExtraError | None = None
    lacking = []
    for artefact in artefacts:
        if engine not in (None, artefact.engine):
            continue
        if lacks := _lacks(artefact.requires):
            lacking.append(f"{artefact.engine} needs {lacks}")
            continue
        files = {role: source.file(path) for role, path in artefact.files.items()}
        try:
            return artefact, runtime(artefact.engine).open_artefact(files, artefact.settings, threads=threads)
        except MissingExtraError as error:
            missing = missing or error
    if missing:
        raise missing
    known = "; ".join(lacking) or f"it has: {', '.join(item.engine for item in artefacts)}"
    raise BundleError(
        f"{source.path} has nothing for {engine or 'this machine'} ({platform.machine()}); {known}.",
        hint="Fit the model for this engine or machine.",
    )


def _tokenizer(source: Bundle) -> Tokenizer | NativeTokenizer:
    """The native one where the bundle holds its packed form and this installation the engine; else `tokenizers`."""
    senses = source.content.senses
    if "wordpiece" in senses:
        try:
            return NativeTokenizer(engine.Model.open(source.file(senses["wordpiece"])), senses["max_length"])
        except MissingExtraError:  # a platform without the native engine
            pass
    return Tokenizer(source.file(senses["tokenizer"]), senses["max_length"])


def _lacks(requires: Requirements) -> str:
    """What an artefact needs and this machine does not have, in words; empty if it can run here."""
    if not requires.architectures and not requires.isa:
        return ""
    from tightrope.device import machine  # reads the system's files: only for who needs to know

    if requires.architectures and machine.architecture(platform.machine()) not in requires.architectures:
        return " or ".join(requires.architectures)
    return ", ".join(sorted(set(requires.isa).difference(machine.this_machine().isa))) if requires.isa else ""


def _checked(inputs: Iterable[Any], check: Callable[[object], object]) -> list[Any]:
    """All of them are looked at before the first is answered: a wrong one at the end costs no time."""
    items = list(inputs)
    for item in items:
        check(item)
    return items
