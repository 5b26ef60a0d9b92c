"""Recommendation on MovieLens: the film that each person watched last is left out, and should be recommended.

python -m benchmarks.recommend            # measure, store, write the table of docs/guide/search.md
python -m benchmarks.recommend --write    # write the table anew from what is stored
python -m benchmarks.recommend --check    # fail if the page says anything else

What is learned is learned from the ratings without the last one of anybody. All films compete, but those that the
person has seen. The settings of the profile are chosen on the film before the last, and told for the last.
"""

import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tightrope
from benchmarks.documents import RESULTS, ROOT, command, read_stored, store, update_all
from benchmarks.search_texts import data_folder
from tightrope.device.apps.recommender import learned, recommend
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.index.opened import Index

STORED = RESULTS / "recommend.json"
PAGE = ROOT / "docs" / "guide" / "search.md"
BEGIN, END = "<!-- recommended:begin -->", "<!-- recommended:end -->"
BUNDLE = ROOT / "build" / "minilm.bundle"
LIKED, DEPTH, WIDTH = 4.0, 10, 64
Histories = Mapping[str, Sequence[str]]
Recommend = Callable[[Sequence[str]], Sequence[str]]
SETTINGS = {"mean": None, "half-life 20": 20.0, "half-life 10": 10.0, "half-life 5": 5.0, "half-life 2": 2.0}


def measure() -> None:
    """Measure everything and store it."""
    histories = _histories()
    films = _films()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "people": len(histories),
            "films": len(films),
            "chosen": _judged(_without_last(histories, 1), films, Path(folder) / "before"),
            "told": _judged(histories, films, Path(folder) / "last"),
        }
    store(STORED, found)


def _histories() -> Histories:
    """Films that each person liked, by time; people with at least five."""
    liked: dict[str, list[tuple[int, str]]] = {}
    for row in _rows("ratings"):
        if float(row["rating"]) >= LIKED:
            liked.setdefault(row["userId"], []).append((int(row["timestamp"]), row["movieId"]))
    return {who: [film for _, film in sorted(films)] for who, films in liked.items() if len(films) >= 5}


def _films() -> Mapping[str, str]:
    return {row["movieId"]: f"{row['title']}, {row['genres'].replace('|', ', ')}" for row in _rows("movies")}


def _rows(name: str) -> list[dict[str, str]]:
    with (data_folder() / "movielens_latest_small" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _without_last(histories: Histories, count: int) -> Histories:
    return {who: films[:-count] for who, films in histories.items()}


def _judged(histories: Histories, films: Mapping[str, str], folder: Path) -> Mapping[str, Any]:
    """Hit rate and nDCG of every way to recommend the last film of each history."""
    known = _without_last(histories, 1)
    popular = [film for film, _ in Counter(film for liked in known.values() for film in liked).most_common()]
    found = {"popularity": _scores(histories, lambda seen: [film for film in popular if film not in set(seen)][:DEPTH])}
    folder.mkdir()
    with _by_text(films, folder / "text.index") as texts, _by_people(known, films, folder / "people.index") as people:
        for kind, index in (("texts", texts), ("people", people)):
            for name, half_life in SETTINGS.items():
                found[f"{kind}, {name}"] = _scores(histories, _recommender(index, half_life, 0))
            found[f"{kind}, half-life 10, diversity 0.3"] = _scores(histories, _recommender(index, 10.0, 0.3))
    return found


def _recommender(index: Index, half_life: float | None, diversity: float) -> Recommend:
    return lambda seen: [hit.key for hit in recommend(index, seen, DEPTH, half_life=half_life, diversity=diversity)]


def _scores(histories: Histories, recommended: Recommend) -> Mapping[str, float]:
    places, alike = [], set[str]()
    for films in histories.values():
        ranked = list(recommended(films[:-1]))
        places.append(ranked.index(films[-1]) if films[-1] in ranked else None)
        alike.update(ranked)
    gains = [0.0 if place is None else 1 / np.log2(place + 2) for place in places]
    hits = np.array([place is not None for place in places])
    error = float(hits.std() / np.sqrt(len(hits)))
    return {"hit_rate": float(hits.mean()), "error": error, "ndcg": float(np.mean(gains)), "different": len(alike)}


def _by_text(films: Mapping[str, str], path: Path) -> Index:
    with tightrope.open(BUNDLE) as model:
        rows, digest = model.embed(list(films.values())), model.bundle.digest
    return _index(path, list(films), rows, films, digest)


def _by_people(known: Histories, films: Mapping[str, str], path: Path) -> Index:
    keys, rows = learned(known, WIDTH)
    return _index(path, keys, rows, films, "0" * 64)


def _index(path: Path, keys: Sequence[str], rows: Any, films: Mapping[str, str], digest: str) -> Index:
    index = create(path, digest=digest, width=rows.shape[1])
    index.add([Document(key=key, passages=(films[key],)) for key in keys], rows)
    return index


def tables(found: Mapping[str, Any]) -> str:
    """The page's block."""
    best = max(
        (name for name in found["chosen"] if "people" in name), key=lambda name: found["chosen"][name]["hit_rate"]
    )
    lines = [
        BEGIN,
        f"MovieLens (latest, small): {found['people']} people who liked at least five of {found['films']:,} films.",
        "",
        f"| profile | hit rate@{DEPTH} | nDCG@{DEPTH} | different films recommended |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {item['hit_rate']:.3f} ± {item['error']:.3f} | {item['ndcg']:.3f} | {item['different']:,} |"
            for name, item in found["told"].items()
        ),
        "",
        f"Chosen on the film before the last: {best}. ± is a standard error.",
        END,
    ]
    return "\n".join(lines)


def write(*, check: bool) -> bool:
    """Bring the page up to date, and say whether it was."""
    return update_all({PAGE: tables(read_stored(STORED, "python -m benchmarks.recommend"))}, check=check)


if __name__ == "__main__":
    sys.exit(command("the table of recommendation", write, measure))
