"""Quality: does the model still do its task? One figure against the original, with a paired-bootstrap interval.

Each kind of samples has its figure: graded pairs Spearman's correlation, labelled pairs AUC, a retrieval set nDCG@10,
images the share told right, plain texts the agreement of all pairwise similarities with the original's. Both models
answer the same samples, and a resample draws the same observations for both (Efron and Tibshirani 1993), so what is
hard for both cancels out. The loss is relative to the original's figure on the whole set.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import DataError, UnsupportedError
from tightrope.measurement import Interval, Quality
from tightrope.samples import LabelledImages, LabelledPairs, Retrieval, Samples, ScoredPairs, Texts
from tightrope.workshop.verify import ranks
from tightrope.workshop.verify.answers import PAIRS_PER_TEXT, Answers, Floats, candidates
from tightrope.workshop.verify.ranks import Doubles, Order

RESAMPLES = 1000
LEAST_TEXTS = 4
MOST_TEXTS = 300
"""Fidelity compares all pairs; of more texts than this, as many are taken, evenly spread."""

ELEMENTS_AT_ONCE = 100_000
"""What stays in a processor's cache while it is resampled."""

DEPTH = 10
DEEPER = 5
"""Classes that may be wrong before the right one, and the answer still counts beside."""
QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A figure of both models that can be resampled.

    `figures(weights)`: (original, candidate), each [resamples], for weights [resamples, n] of the n observations.
    """

    kind: str
    metric: str
    n: int
    figures: Callable[[Doubles], tuple[Doubles, Doubles]]
    beside: Mapping[str, float]
    work: int
    """Elements that one resample takes, so that memory stays bounded."""


def judge(
    samples: Samples,
    answers: Answers,
    original: Answers,
    *,
    name: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Quality:
    """Hold a candidate's answers against the original's on the same samples. `name` says which samples they are.

    Raises `DataError` if the samples cannot be judged by: too few, nothing to rank, or the original itself scores
    zero or less; `UnsupportedError` for a cross-encoder with several scores a pair on labelled samples.
    """
    if answers.values.shape != original.values.shape and not _widths_alone_differ(answers, original):
        raise DataError(
            f"There are answers of shape {answers.values.shape} and {original.values.shape}.",
            hint="Ask both models about the same samples.",
        )
    judged = _judged(samples, answers, original)
    ones = np.ones((1, judged.n))
    before, after = (float(figure[0]) for figure in judged.figures(ones))
    if not before > 0:
        raise DataError(
            f"The original itself has {judged.metric} {before:.3g} on {name}.",
            hint="Nothing can be lost there; check the labels and the columns.",
        )
    losses = _resampled(judged, np.random.default_rng(seed), resamples) / before
    low, high = (float(value) for value in np.quantile(losses, [0.025, 0.975]))
    value = (before - after) / before  # a skewed resample may leave it outside its percentiles
    return Quality(
        kind=judged.kind,
        metric=judged.metric,
        samples=name,
        n=judged.n,
        original=before,
        score=after,
        loss=Interval(value=value, low=min(low, value), high=max(high, value), n=judged.n),
        beside=judged.beside,
        truncated=answers.truncated,
    )


def _widths_alone_differ(answers: Answers, original: Answers) -> bool:
    """A candidate may give shorter vectors than the original."""
    return answers.kind == original.kind == "embedding" and len(answers.values) == len(original.values)


def _resampled(judged: Judged, generator: np.random.Generator, resamples: int) -> Doubles:
    """Original less candidate, for each resample."""
    at_once = max(1, ELEMENTS_AT_ONCE // max(1, judged.work))
    losses: list[Doubles] = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = generator.integers(0, judged.n, (count, judged.n)) + np.arange(count)[:, None] * judged.n
        weights = np.bincount(drawn.ravel(), minlength=count * judged.n).reshape(count, judged.n)
        before, after = judged.figures(weights.astype(np.float64))
        losses.append(before - after)
    return np.concatenate(losses)


def _judged(samples: Samples, answers: Answers, original: Answers) -> Judged:
    if isinstance(samples, LabelledImages):
        return _images(samples, answers, original)
    if isinstance(samples, Texts):
        return _fidelity(samples, answers, original)
    if answers.kind == "scoring" and answers.values.ndim != 1:
        raise UnsupportedError(
            f"The model gives {answers.values.shape[1]} scores for each pair; it is not known which one is meant.",
            hint="Judge it with a function of your own, module:function.",
        )
    if isinstance(samples, ScoredPairs):
        return _sts(samples, answers, original)
    if isinstance(samples, LabelledPairs):
        return _pairs(samples, answers, original)
    if isinstance(samples, Retrieval):
        return _retrieval(samples, answers, original)
    raise UnsupportedError(f"{type(samples).__name__} cannot be judged.", hint="Give pairs, texts or a collection.")


def _similarities(samples: ScoredPairs | LabelledPairs, answers: Answers) -> Doubles:
    """Cosine of the two vectors of each pair, or the pair's score."""
    if answers.kind == "scoring":
        return answers.values.astype(np.float64)
    row = {text: place for place, text in enumerate(samples.texts)}
    unit = _unit(answers.values)
    first, second = (np.array([row[pair[side]] for pair in samples.pairs]) for side in (0, 1))
    cosines: Doubles = np.einsum("ij,ij->i", unit[first], unit[second])
    return cosines


def _unit(values: Floats) -> Doubles:
    exact = values.astype(np.float64)
    unit: Doubles = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
    return unit


def _sts(samples: ScoredPairs, answers: Answers, original: Answers) -> Judged:
    if len(set(samples.scores)) < 2:
        raise DataError("Every pair has the same score, so nothing can be ranked.", hint="Give graded pairs.")
    gold = np.array(samples.scores, np.float64)
    given, given_before = _similarities(samples, answers), _similarities(samples, original)
    truth, before, after = Order.of(gold), Order.of(given_before), Order.of(given)

    def figures(weights: Doubles) -> tuple[Doubles, Doubles]:
        return ranks.spearman(before, truth, weights), ranks.spearman(after, truth, weights)

    ones = np.ones((1, len(gold)))
    pearson = ranks.correlation(given[None], gold[None], ones)
    beside = {"pearson": float(pearson[0])}
    return Judged(kind="sts", metric="spearman", n=len(gold), figures=figures, beside=beside, work=len(gold))


def _pairs(samples: LabelledPairs, answers: Answers, original: Answers) -> Judged:
    """F1 stands beside, at the threshold that is best for the original: a threshold in use is not tuned anew."""
    labels = np.array(samples.labels, bool)
    if labels.all() or not labels.any():
        raise DataError("Every pair has the same label.", hint="Give pairs that match and pairs that do not.")
    given, given_before = _similarities(samples, answers), _similarities(samples, original)
    before, after = Order.of(given_before), Order.of(given)
    threshold = ranks.best_threshold(given_before, labels)

    def figures(weights: Doubles) -> tuple[Doubles, Doubles]:
        return ranks.auc(before, labels, weights), ranks.auc(after, labels, weights)

    beside = {
        "f1": ranks.f1(given, labels, threshold),
        "f1_original": ranks.f1(given_before, labels, threshold),
        "threshold": threshold,
    }
    return Judged(kind="pairs", metric="auc", n=len(labels), figures=figures, beside=beside, work=len(labels))


def _images(samples: LabelledImages, answers: Answers, original: Answers) -> Judged:
    """Top-1; beside it top-5, and how often both say the same."""
    labels = np.array(samples.labels)
    hits, hits_before = (_among(given.values, labels, 1) for given in (answers, original))
    agreed = (answers.values.argmax(1) == original.values.argmax(1)).mean()

    def figures(weights: Doubles) -> tuple[Doubles, Doubles]:
        total = weights.sum(axis=1)
        return weights @ hits_before / total, weights @ hits / total

    beside = {"agreement": float(agreed)}
    if answers.values.shape[1] > DEEPER:
        beside |= {"top5": float(_among(answers.values, labels, DEEPER).mean())}
        beside |= {"top5_original": float(_among(original.values, labels, DEEPER).mean())}
    work = len(labels)
    return Judged(kind="classification", metric="top1", n=work, figures=figures, beside=beside, work=work)


def _among(logits: Floats, labels: NDArray[np.int64], count: int) -> Doubles:
    """1 for each image whose class is among the first `count`; of equal logits the earlier class comes first."""
    first = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    found: Doubles = (first == labels[:, None]).any(axis=1).astype(np.float64)
    return found


def _retrieval(samples: Retrieval, answers: Answers, original: Answers) -> Judged:
    judged = list(samples.judgements)
    after, before = (_rankings(samples, given) for given in (answers, original))
    gains = np.array([ranks.ndcg(after[name], samples.judgements[name], DEPTH) for name in judged])
    gains_before = np.array([ranks.ndcg(before[name], samples.judgements[name], DEPTH) for name in judged])
    found = [ranks.recall(after[name], samples.judgements[name], DEPTH) for name in judged]
    found_before = [ranks.recall(before[name], samples.judgements[name], DEPTH) for name in judged]

    def figures(weights: Doubles) -> tuple[Doubles, Doubles]:
        total = weights.sum(axis=1)
        return weights @ gains_before / total, weights @ gains / total

    beside = {"recall@10": float(np.mean(found)), "recall@10_original": float(np.mean(found_before))}
    return Judged(kind="retrieval", metric="ndcg@10", n=len(judged), figures=figures, beside=beside, work=len(judged))


def _rankings(samples: Retrieval, answers: Answers) -> dict[str, list[str]]:
    """The first documents for each judged query; of equal ones the earlier comes first."""
    if answers.kind == "scoring":
        rankings, start = {}, 0
        for query, documents in candidates(samples).items():
            scores = answers.values[start : start + len(documents)]
            rankings[query] = [documents[place] for place in np.argsort(-scores, kind="stable")[:DEPTH]]
            start += len(documents)
        return rankings
    return dict(_nearest_documents(samples, answers))


def _nearest_documents(samples: Retrieval, answers: Answers) -> Iterator[tuple[str, list[str]]]:
    unit = _unit(answers.values).astype(np.float32)
    queries, documents = unit[: len(samples.queries)], unit[len(samples.queries) :]
    names, ids = list(samples.queries), list(samples.documents)
    for start in range(0, len(names), QUERIES_AT_ONCE):
        similarities = queries[start : start + QUERIES_AT_ONCE] @ documents.T
        for name, row in zip(names[start:], similarities, strict=False):
            yield name, [ids[place] for place in _highest(row, DEPTH)]


def _highest(row: Floats, count: int) -> NDArray[np.int64]:
    """Places of the highest values, in falling order; of equal ones the earlier."""
    if count < len(row):
        least = np.partition(row, len(row) - count)[len(row) - count]
        places = np.flatnonzero(row >= least)
    else:
        places = np.arange(len(row))
    return places[np.argsort(-row[places], kind="stable")][:count]


def _fidelity(samples: Texts, answers: Answers, original: Answers) -> Judged:
    count = len(samples.texts)
    if count < LEAST_TEXTS:
        raise DataError(f"{count} texts are too few to compare.", hint=f"Give {LEAST_TEXTS} or more.")
    if answers.kind == "scoring":
        return _score_fidelity(count, answers, original)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_TEXTS)).round().astype(int))
    after, before = (_unit(given.values[chosen]) for given in (answers, original))
    near, near_before = after @ after.T, before @ before.T
    first, second = np.triu_indices(len(chosen), 1)
    order, order_before = Order.of(near[first, second]), Order.of(near_before[first, second])

    def figures(weights: Doubles) -> tuple[Doubles, Doubles]:
        agreement = ranks.spearman(order_before, order, weights[:, first] * weights[:, second])
        return np.ones_like(agreement), agreement

    beside = {"recall@10": _neighbours_kept(near, near_before)}
    return Judged(
        kind="fidelity",
        metric="rank_agreement",
        n=len(chosen),
        figures=figures,
        beside=beside,
        work=4 * len(first),
    )


def _neighbours_kept(near: Doubles, near_before: Doubles) -> float:
    """The share of each text's nearest others by the original that are so by the candidate too."""
    depth = min(DEPTH, len(near) - 2)
    kept: list[float] = []
    for row, row_before in zip(near.copy(), near_before.copy(), strict=True):
        place = len(kept)
        row[place] = row_before[place] = -np.inf
        kept.append(len(np.intersect1d(_highest(row, depth), _highest(row_before, depth))) / depth)
    return float(np.mean(kept))


def _score_fidelity(count: int, answers: Answers, original: Answers) -> Judged:
    """Agreement of the scores' order; each text brings `PAIRS_PER_TEXT` pairs, and is drawn with all of them."""
    assert len(answers.values) == count * PAIRS_PER_TEXT
    labels = 1 if answers.values.ndim == 1 else answers.values.shape[1]
    order, order_before = (Order.of(given.values.ravel().astype(np.float64)) for given in (answers, original))

    def figures(weights: Doubles) -> tuple[Doubles, Doubles]:
        spread = np.repeat(weights, PAIRS_PER_TEXT * labels, axis=1)
        agreement = ranks.spearman(order_before, order, spread)
        return np.ones_like(agreement), agreement

    work = 4 * count * PAIRS_PER_TEXT * labels
    return Judged(kind="fidelity", metric="rank_agreement", n=count, figures=figures, beside={}, work=work)
