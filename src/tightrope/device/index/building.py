"""A folder of documents made into an index."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tightrope.device.index import places, readers
from tightrope.device.index.documents import Document, checked, is_scalar
from tightrope.device.index.making import Embed, Making
from tightrope.device.index.model import cutter, for_passages
from tightrope.device.index.opened import Index
from tightrope.device.index.rebuild import Rebuild
from tightrope.device.model import Embedder
from tightrope.errors import DataError, TightropeError

_BATCH = 256
"""Passages that are embedded and written together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a build is. `share` is that of the files' bytes; `left_s` is `None` until anything can be said."""

    documents: int
    passages: int
    share: float
    elapsed_s: float

    @property
    def left_s(self) -> float | None:
        """The time left, if it goes on as it went so far."""
        return self.elapsed_s * (1 - self.share) / self.share if self.share > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was built, and what could not be read: file, or file and line, and why."""

    documents: int
    passages: int
    skipped: tuple[tuple[str, str], ...] = ()
    elapsed_s: float = 0.0


@dataclass(slots=True)
class _Batch:
    documents: list[Document] = field(default_factory=list)
    passages: int = 0

    def add(self, document: Document) -> None:
        self.documents.append(document)
        self.passages += len(document.passages)


def build(
    source: Path,
    out: Path,
    model: Embedder,
    *,
    tokens: int | None = None,
    overlap: int | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Built:
    """Read a file or all files of a folder, cut, embed and store them. An index is at `out` whole, or not at all.

    Files that cannot be read are skipped and named. Raises `DataError` if nothing can be read, `OutputError` if
    something is at `out` already, unless it is an index and `force` allows to replace it.
    """
    files = _files(source, out)
    started, skipped = clock(), list[tuple[str, str]]()
    total, done = sum(file.stat().st_size for file in files) or 1, 0
    documents = passages = 0
    prompt = for_passages(model)
    before = model.bundle.content.senses["prompts"].get(prompt, "")
    cut = cutter(model.tokenizer, before=before, tokens=tokens, overlap=overlap)
    width = model.bundle.content.task["width"]
    places.prepare(out, force=force)
    with Making(out, digest=model.bundle.digest, width=width) as making:
        index = making.index
        assert index is not None
        for file in files:
            for batch in _batches(file, source, cut, skipped):
                _embedded(index, batch, lambda texts: model.embed(texts, prompt=prompt))
                documents, passages = documents + len(batch.documents), passages + batch.passages
                progress(_progress(documents, passages, done / total, clock() - started))
            done += file.stat().st_size
            progress(_progress(documents, passages, done / total, clock() - started))
        if not documents:
            raise _nothing(source, skipped)
        documents, passages = index.about.documents, index.about.passages
        index.note(source=source.name, model=model.bundle.path.name)
        making.seal().close()
    places.remove_others(out)
    return Built(documents=documents, passages=passages, skipped=tuple(skipped), elapsed_s=clock() - started)


def add(index: Index, source: Path, model: Embedder, *, tokens: int | None = None, overlap: int | None = None) -> Built:
    """Add the documents of a file or folder to an index; those that it has already are replaced."""
    prompt, skipped = for_passages(model), list[tuple[str, str]]()
    cut = cutter(model.tokenizer, tokens=tokens, overlap=overlap)
    documents = passages = 0
    for file in _files(source, index.path):
        for batch in _batches(file, source, cut, skipped):
            _embedded(index, batch, lambda texts: model.embed(texts, prompt=prompt))
            documents, passages = documents + len(batch.documents), passages + batch.passages
    if not documents:
        raise _nothing(source, skipped)
    return Built(documents=documents, passages=passages, skipped=tuple(skipped))


def rebuild(index: Index, model: Embedder, progress: Callable[[int], None] = lambda _: None) -> Index:
    """The same documents for another model, in the place of the index, which is closed. Returns the new one."""
    prompt = for_passages(model)
    cut = cutter(model.tokenizer, before=model.bundle.content.senses["prompts"].get(prompt, ""))
    width = model.bundle.content.task["width"]
    with Rebuild(index, model.bundle.digest, width, lambda texts: model.embed(texts, prompt=prompt), cut) as made:
        made.copy(progress)
        new = made.swap()
    index.close()
    return new


def _progress(documents: int, passages: int, share: float, elapsed_s: float) -> Progress:
    return Progress(documents=documents, passages=passages, share=share, elapsed_s=elapsed_s)


def _files(source: Path, out: Path) -> list[Path]:
    """The files that can be documents, in a fixed order; hidden ones and links are left alone."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source} does not exist.", hint="Give a file or a folder of documents.")
    found = [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in readers.READERS
        and path.is_file()
        and not path.is_symlink()
        and out.absolute() not in path.absolute().parents
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]
    if not found:
        raise DataError(f"{source} holds no documents.", hint=f"Known are: {', '.join(readers.READERS)}.")
    return found


def _batches(
    file: Path, source: Path, cut: Callable[[str], list[str]], skipped: list[tuple[str, str]]
) -> Iterator[_Batch]:
    """The documents of a file, some at a time; an unreadable file ends there, and is named."""
    batch, name = _Batch(), file.name if source.is_file() else str(file.relative_to(source))
    try:
        for item in readers.read(file):
            passages = tuple(cut(item.text))
            if passages:
                key = item.key if source.is_file() and item.key else f"{name}#{item.key}" if item.key else name
                metadata = {"file": name, **{k: v for k, v in item.metadata.items() if is_scalar(v)}}
                document = Document(key=key, passages=passages, title=item.title, answer=item.answer, metadata=metadata)
                batch.add(checked(document))
            if batch.passages >= _BATCH:
                yield batch
                batch = _Batch()
    except TightropeError as error:
        skipped.append((name, error.message))
    if batch.documents:
        yield batch


def _embedded(index: Index, batch: _Batch, embed: Embed) -> None:
    """Store a batch with its vectors; of documents with the same key the last one stays."""
    documents = list({document.key: document for document in batch.documents}.values())
    index.replace(documents, embed([text for document in documents for text in document.passages]))


def _nothing(source: Path, skipped: list[tuple[str, str]]) -> DataError:
    why = f" The first: {skipped[0][1]}" if skipped else " They are empty."
    return DataError(f"No document of {source} could be read.{why}", hint="Give files with text in them.")
