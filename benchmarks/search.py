"""Search on a device: speed, memory and recall on 50,000 real texts, and quality on Cranfield and on paraphrases.

python -m benchmarks.search            # measure, store, write the tables of docs/guide/search.md
python -m benchmarks.search --write    # write the tables anew from what is stored
python -m benchmarks.search --check    # fail if the page says anything else

`BUNDLE` (build/minilm.bundle) makes the vectors. Time and memory are those of a process of its own on one core, which
opens the index, and nothing else. The approximate search needs the extra `ann`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter as now
from time import thread_time
from typing import Any

import numpy as np

import tightrope
from benchmarks.documents import RESULTS, ROOT, command, read_stored, store, update_all
from benchmarks.peers.results import processor
from benchmarks.search_texts import data_folder, paraphrases, sentences
from tightrope.device import engine
from tightrope.device.apps import faq_bot
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create, open_index
from tightrope.device.index.opened import Index
from tightrope.device.model import Embedder
from tightrope.workshop.data.collections import read_collection

STORED = RESULTS / "search.json"
PAGE = ROOT / "docs" / "guide" / "search.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
BUNDLE = ROOT / "build" / "minilm.bundle"
ROWS, QUERIES, DEPTH = 50_000, 500, 10
DIVISIONS = 10
Ranking = Callable[[int], Sequence[str]]


def measure() -> None:
    """Measure everything and store it."""
    with tightrope.open(BUNDLE) as model, tempfile.TemporaryDirectory() as folder:
        assert isinstance(model, Embedder)
        found = {
            "processor": processor(),
            "isa": engine.isa(),
            "versions": {"tightrope": version("tightrope"), "numpy": np.__version__},
            "model": model.bundle.digest,
            "large": _large(model, Path(folder)),
            "cranfield": _cranfield(model, Path(folder)),
            "answers": _answers(model, Path(folder)),
        }
    store(STORED, found)


# 50,000 texts -----------------------------------------------------------------------------------------------


def _large(model: Embedder, folder: Path) -> Mapping[str, Any]:
    texts = sentences(ROWS + QUERIES)
    vectors = model.embed(texts)
    rows, queries = vectors[:ROWS], vectors[ROWS:]
    path = folder / "large.index"
    with create(path, digest=model.bundle.digest, width=rows.shape[1]) as index:
        for start in range(0, ROWS, 500):
            part = range(start, min(ROWS, start + 500))
            index.add([_numbered(place, texts[place]) for place in part], rows[part.start : part.stop])
        recall = float(np.mean([_share(index, rows, query) for query in queries]))
    disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    np.save(folder / "queries.npy", queries)
    (folder / "queries.json").write_text(json.dumps(texts[ROWS:]))
    timed: dict[str, dict[str, float]] = {
        name: _timed(folder, name, {"TIGHTROPE_ISA": isa} if isa else {})
        for name, isa in (
            ("vector", ""),
            *((f"vector {isa}", isa) for isa in engine.isas()),
            ("words", ""),
            ("hybrid", ""),
        )
    }
    if find_spec("usearch") is not None:
        with open_index(path) as index:
            index.make_graph()
            timed["vector usearch"] = {"recall": float(np.mean([_share(index, rows, query) for query in queries]))}
        timed["vector usearch"] |= _timed(folder, "graph", {})
    timed["vector numpy"] = _timed(folder, "vector numpy", {engine.LIBRARY: "/nowhere"})
    return {
        "rows": ROWS,
        "width": rows.shape[1],
        "queries": QUERIES,
        "recall": recall,
        "disk_bytes": disk,
        "timed": timed,
    }


def _numbered(place: int, text: str) -> Document:
    return Document(key=str(place), passages=(text,), metadata={"half": place % 2})


def _share(index: Index, rows: Any, query: Any) -> float:
    true = np.argsort(-(rows @ query), kind="stable")[:DEPTH]
    return len({int(hit.key) for hit in index.search(query, DEPTH)} & set(true.tolist())) / DEPTH


def _timed(folder: Path, name: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Times and memory in a process of its own, on one core."""
    words = [sys.executable, "-m", "benchmarks.search", "--process", str(folder), name.partition(" ")[0]]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, **environment}, cwd=ROOT
    )
    return json.loads(done.stdout)


def _process(folder: Path, what: str) -> None:
    """What that process does: open the index, ask each question twice, and say what that took."""

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    queries, texts = np.load(folder / "queries.npy"), json.loads((folder / "queries.json").read_text())
    before, started = _resident(), now()
    with open_index(folder / "large.index", writing=False) as index:
        if what == "graph":
            index.use_graph()
        opened = now() - started
        asks: dict[str, Callable[[int], Any]] = {
            "vector": lambda place: index.search(queries[place], DEPTH),
            "graph": lambda place: index.search(queries[place], DEPTH),
            "words": lambda place: index.matching(texts[place], DEPTH),
            "hybrid": lambda place: index.hybrid(queries[place], texts[place], DEPTH),
        }
        times, own = [], []
        for place in (*range(len(texts)), *range(len(texts))):
            start, start_own = now(), thread_time()
            asks[what](place)
            own.append(thread_time() - start_own)
            times.append(now() - start)
        added = _resident() - before
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    own_p95 = float(np.percentile(own, 95))
    found = {"p50_s": p50, "p95_s": p95, "own_p95_s": own_p95, "n": len(times), "open_s": opened, "added_bytes": added}
    print(json.dumps(found | {"load": os.getloadavg()[0]}))


def _resident() -> int:
    """Resident bytes of this process, those of mapped files too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Cranfield --------------------------------------------------------------------------------------------------


def _cranfield(model: Embedder, folder: Path) -> Mapping[str, Any]:
    """nDCG@10 of each way to search; the documents' vectors also in float32 and by the original model."""
    judged = read_collection(data_folder() / "cranfield_retrieval")
    documents = {key: text for key, text in judged.documents.items() if text.strip()}
    queries = {key: text for key, text in judged.queries.items() if any(judged.judgements[key].values())}
    keys, rows = np.array(list(documents)), model.embed(list(documents.values()))
    asked = model.embed(list(queries.values()))
    texts = list(queries.values())
    with create(folder / "cranfield.index", digest=model.bundle.digest, width=rows.shape[1]) as index:
        index.add([Document(key=key, passages=(text,)) for key, text in documents.items()], rows)
        ways: dict[str, Ranking] = {
            "words": lambda place: [hit.key for hit in index.matching(texts[place], DEPTH)],
            "fp32 vectors": lambda place: keys[np.argsort(-(rows @ asked[place]), kind="stable")[:DEPTH]].tolist(),
            "vector": lambda place: [hit.key for hit in index.search(asked[place], DEPTH)],
            "hybrid": lambda place: [hit.key for hit in index.hybrid(asked[place], texts[place], DEPTH)],
        }
        gains = {
            name: [_ndcg(way(place), judged.judgements[key]) for place, key in enumerate(queries)]
            for name, way in ways.items()
        }
    return {
        "documents": len(documents),
        "queries": len(queries),
        "ndcg": {name: float(np.mean(values)) for name, values in gains.items()},
        "hybrid_over_words": _interval(gains["hybrid"], gains["words"]),
        "hybrid_over_vector": _interval(gains["hybrid"], gains["vector"]),
        "cut": int(model.truncated),
    }


def _ndcg(ranked: Sequence[str], relevance: Mapping[str, float]) -> float:
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    gained = sum(discounts[place] for place, key in enumerate(ranked[:DEPTH]) if relevance.get(key, 0) > 0)
    return float(gained / discounts[: sum(value > 0 for value in relevance.values())].sum())


def _interval(better: Sequence[float], worse: Sequence[float]) -> list[float]:
    """The mean difference and its 95 % interval: paired bootstrap over the queries."""
    differences = np.subtract(better, worse)
    samples = np.random.default_rng(0).choice(differences, (4000, len(differences))).mean(1)
    return [float(differences.mean()), *np.percentile(samples, [2.5, 97.5]).tolist()]


# Answers ----------------------------------------------------------------------------------------------------


def _answers(model: Embedder, folder: Path) -> Mapping[str, Any]:
    """Entries are one sentence of each pair of paraphrases. Half of the pairs stay out: they have no answer.

    The threshold is set on half of the questions without an answer, and judged on the others; what it promises holds in
    the mean over such divisions, so several are made.
    """
    pairs = paraphrases()
    first, second = (model.embed([pair[side] for pair in pairs]) for side in (0, 1))
    found: dict[str, list[Mapping[str, float]]] = {"calibrated": [], "left out": []}
    for division in range(DIVISIONS):
        places = np.random.default_rng(division).permutation(len(pairs))
        known, calibrating, judging = np.split(places, [len(places) // 2, len(places) * 3 // 4])
        with create(folder / f"answers{division}.index", digest=model.bundle.digest, width=first.shape[1]) as index:
            entries = [Document(key=str(n), passages=(pairs[n][0],), answer=str(n)) for n in known]
            index.add(entries, first[known])
            for name, vectors in (("calibrated", second[calibrating]), ("left out", None)):
                threshold = faq_bot.calibrate(index, vectors)
                right = [faq_bot.answered(index, second[n], k=1).text for n in known]
                wrong = [faq_bot.answered(index, second[n], k=1).text for n in judging]
                found[name].append(
                    {
                        "threshold": threshold,
                        "answered_rightly": float(
                            np.mean([text == str(n) for text, n in zip(right, known, strict=True)])
                        ),
                        "answered_wrongly": float(
                            np.mean([text not in (None, str(n)) for text, n in zip(right, known, strict=True)])
                        ),
                        "strangers_answered": float(np.mean([text is not None for text in wrong])),
                    }
                )
    means = {name: {key: float(np.mean([one[key] for one in some])) for key in some[0]} for name, some in found.items()}
    return {"entries": len(known), "strangers": len(judging), "divisions": DIVISIONS, "by": means}


# The page ---------------------------------------------------------------------------------------------------


def tables(found: Mapping[str, Any]) -> str:
    """The page's block: what was measured, as text."""
    large, cranfield, answers = found["large"], found["cranfield"], found["answers"]
    timed = large["timed"]["vector"]
    lines = [
        BEGIN,
        f"{large['rows']:,} texts, {large['width']} wide, on one core of an {found['processor']} (`{found['isa']}`): "
        f"recall@{DEPTH} {large['recall']:.4f} against exact float32 on {large['queries']} questions; "
        f"{timed['added_bytes'] / 1e6:.1f} MB of memory more after all of them, "
        f"{large['disk_bytes'] / 1e6:.0f} MB on disk, open in {timed['open_s'] * 1e3:.0f} ms, all rows checked.",
        "",
        "| search | p50 | p95 | p95 of the core's own time |",
        "|---|---:|---:|---:|",
        *(
            f"| {_with_recall(name, item)} | {item['p50_s'] * 1e3:.1f} ms | {item['p95_s'] * 1e3:.1f} ms | "
            f"{item['own_p95_s'] * 1e3:.1f} ms |"
            for name, item in large["timed"].items()
        ),
        "",
        f"The machine was shared, with a load of {timed['load']:.1f} as the first line was measured: the first two "
        "columns hold waits for others.",
        "",
        f"Cranfield, {cranfield['documents']:,} documents, {cranfield['queries']} questions:",
        "",
        "| | nDCG@10 |",
        "|---|---:|",
        *(f"| {name} | {value:.3f} |" for name, value in cranfield["ndcg"].items()),
        "",
        f"Both together over words alone: {_said(cranfield['hybrid_over_words'])}; over vectors alone: "
        f"{_said(cranfield['hybrid_over_vector'])} (95 % intervals).",
        "",
        f"Answers: {answers['entries']:,} entries, each asked by a paraphrase, and {answers['strangers']:,} questions "
        f"that no entry answers, over {answers['divisions']} divisions of the pairs:",
        "",
        "| threshold by | value | answered rightly | by a wrong entry | strangers answered |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {item['threshold']:.3f} | {item['answered_rightly']:.1%} | {item['answered_wrongly']:.1%} | "
            f"{item['strangers_answered']:.1%} |"
            for name, item in answers["by"].items()
        ),
        END,
    ]
    return "\n".join(lines)


def _with_recall(name: str, item: Mapping[str, float]) -> str:
    return f"{name} (recall {item['recall']:.3f})" if "recall" in item else name


def _said(interval: Sequence[float]) -> str:
    return f"{interval[0]:+.3f} ({interval[1]:+.3f} to {interval[2]:+.3f})"


def write(*, check: bool) -> bool:
    """Bring the page up to date, and say whether it was."""
    return update_all({PAGE: tables(read_stored(STORED, "python -m benchmarks.search"))}, check=check)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--process"]:
        _process(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(command("the tables of search", write, measure))
