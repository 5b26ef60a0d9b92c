"""Judging candidates whose loss is known in advance."""

import numpy as np
import pytest

from tightrope.errors import DataError, EngineError, UnsupportedError
from tightrope.measurement import Quality
from tightrope.samples import LabelledPairs, Retrieval, ScoredPairs, Texts
from tightrope.workshop.verify.answers import PAIRS_PER_TEXT, Answers, answers_of, candidates, pairs_of
from tightrope.workshop.verify.quality import MOST_TEXTS, judge

random = np.random.default_rng(11)


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def embedding(values: np.ndarray) -> Answers:
    return Answers(kind="embedding", values=values.astype(np.float32))


def scoring(values: np.ndarray) -> Answers:
    return Answers(kind="scoring", values=np.asarray(values, np.float32))


def noisy(answers: Answers, amount: float, seed: int = 0) -> Answers:
    noise = np.random.default_rng(seed).normal(0, amount, answers.values.shape)
    return Answers(kind=answers.kind, values=(answers.values + noise).astype(np.float32))


@pytest.fixture(scope="module")
def graded() -> tuple[ScoredPairs, Answers]:
    """Pairs whose vectors are as similar as their score says, but for some noise."""
    count, width = 400, 16
    scores = random.uniform(0, 5, count).round(1)
    first, other = unit(random.normal(size=(count, width))), unit(random.normal(size=(count, width)))
    share = np.clip(scores / 5 + random.normal(0, 0.15, count), 0, 1)[:, None]
    second = unit(share * first + (1 - share) * other)
    samples = ScoredPairs(pairs=tuple((f"a{i}", f"b{i}") for i in range(count)), scores=tuple(scores.tolist()))
    return samples, embedding(np.stack([first, second], 1).reshape(-1, width))


def test_the_original_itself_loses_nothing(graded: tuple[ScoredPairs, Answers]) -> None:
    samples, original = graded
    found = judge(samples, original, original, name="graded")
    assert found.kind == "sts" and found.metric == "spearman" and found.samples == "graded"
    assert found.score == found.original > 0.7
    assert (found.loss.value, found.loss.low, found.loss.high, found.loss.n) == (0, 0, 0, 400)
    assert Quality.from_json(found.to_json()) == found


def test_more_noise_is_more_loss_and_the_interval_holds_it(graded: tuple[ScoredPairs, Answers]) -> None:
    samples, original = graded
    losses = [judge(samples, noisy(original, amount), original, name="x").loss for amount in (0.02, 0.1, 0.4)]
    assert losses[0].value < losses[1].value < losses[2].value
    assert all(loss.low <= loss.value <= loss.high for loss in losses)
    assert losses[2].low > losses[0].high


def test_the_interval_covers_what_other_samples_of_the_same_kind_show(graded: tuple[ScoredPairs, Answers]) -> None:
    """Quarters of the set, judged apart, scatter about as widely as the interval of a quarter says."""
    samples, original = graded
    candidate = noisy(original, 0.15)
    quarters = []
    for start in range(0, 400, 100):
        rows = slice(2 * start, 2 * start + 200)
        part = ScoredPairs(pairs=samples.pairs[start : start + 100], scores=samples.scores[start : start + 100])
        quarters.append(judge(part, embedding(candidate.values[rows]), embedding(original.values[rows]), name="x").loss)
    whole = judge(samples, candidate, original, name="x").loss
    assert sum(part.low <= whole.value <= part.high for part in quarters) >= 3
    widths = [part.high - part.low for part in quarters]
    assert whole.high - whole.low == pytest.approx(
        np.mean(widths) / 2, rel=0.4
    )  # a fourth of the samples, twice as wide


def test_pairing_makes_the_interval_narrow(graded: tuple[ScoredPairs, Answers]) -> None:
    """Both answer the same samples; the scatter of one figure alone is far wider than that of the loss."""
    samples, original = graded
    loss = judge(samples, noisy(original, 0.01), original, name="x").loss
    assert loss.high - loss.low < 0.01


def test_the_same_seed_gives_the_same_interval(graded: tuple[ScoredPairs, Answers]) -> None:
    samples, original = graded
    candidate = noisy(original, 0.1)
    assert judge(samples, candidate, original, name="x", seed=5) == judge(
        samples, candidate, original, name="x", seed=5
    )
    assert judge(samples, candidate, original, name="x", seed=5) != judge(
        samples, candidate, original, name="x", seed=6
    )


def test_shorter_vectors_may_be_judged(graded: tuple[ScoredPairs, Answers]) -> None:
    samples, original = graded
    found = judge(samples, embedding(original.values[:, :12]), original, name="x")
    assert 0 < found.loss.value < 0.3
    with pytest.raises(DataError, match="answers of shape"):
        judge(samples, embedding(original.values[1:]), original, name="x")


def test_labelled_pairs_by_auc_with_f1_at_the_originals_threshold() -> None:
    labels = random.integers(0, 2, 300)
    scores = labels + random.normal(0, 0.5, 300)
    samples = LabelledPairs(pairs=tuple((f"a{i}", f"b{i}") for i in range(300)), labels=tuple(labels.tolist()))
    same = judge(samples, scoring(scores), scoring(scores), name="x")
    assert same.kind == "pairs" and same.metric == "auc" and same.loss.value == 0
    assert same.beside["f1"] == same.beside["f1_original"] > 0.8
    shifted = judge(samples, scoring(scores - 5), scoring(scores), name="x")
    assert shifted.loss.value == 0  # the order is the same …
    assert shifted.beside["f1"] == 0 < shifted.beside["f1_original"]  # … but a threshold in use would fail
    assert same.beside["threshold"] == pytest.approx(0.5, abs=0.3)


COLLECTION = Retrieval(
    documents={f"d{i}": f"document {i}" for i in range(40)},
    queries={f"q{i}": f"query {i}" for i in range(20)},
    judgements={f"q{i}": {f"d{2 * i}": 2, f"d{2 * i + 1}": 1} for i in range(20)},
)


def retrieval_vectors() -> Answers:
    documents = unit(random.normal(size=(40, 24)))
    queries = unit(2 * documents[0::2] + documents[1::2])
    return embedding(np.concatenate([queries, documents]))


def test_retrieval_by_ndcg() -> None:
    original = retrieval_vectors()
    found = judge(COLLECTION, original, original, name="x")
    assert found.kind == "retrieval" and found.metric == "ndcg@10" and found.n == 20
    assert found.original > 0.9 and found.beside["recall@10"] > 0.9
    worse = judge(COLLECTION, noisy(original, 0.3), original, name="x")
    assert worse.loss.value > 0.05 and worse.loss.high > worse.loss.low
    assert worse.beside["recall@10"] < worse.beside["recall@10_original"]


def test_retrieval_by_a_cross_encoder_ranks_the_candidates() -> None:
    chosen = candidates(COLLECTION)
    assert chosen == candidates(COLLECTION)
    assert all({f"d{2 * i}", f"d{2 * i + 1}"} < set(chosen[f"q{i}"]) for i in range(20))
    pairs = pairs_of(COLLECTION)
    right = np.array([float(int(b.split()[1]) // 2 == int(a.split()[1])) for a, b in pairs])
    found = judge(COLLECTION, scoring(-right), scoring(right), name="x")
    assert found.original > 0.8 and found.score < 0.3


def test_fidelity_by_the_order_of_all_similarities() -> None:
    samples = Texts(tuple(f"text {i}" for i in range(60)))
    original = embedding(unit(random.normal(size=(60, 24))))
    turned = np.linalg.qr(random.normal(size=(24, 24)))[0]
    same = judge(samples, embedding(original.values @ turned), original, name="x")
    assert same.kind == "fidelity" and same.original == 1
    assert same.score == pytest.approx(1, abs=1e-6) and same.beside["recall@10"] == 1  # a rotation changes nothing
    worse = judge(samples, noisy(original, 0.1), original, name="x")
    assert worse.loss.value == pytest.approx(1 - worse.score)
    assert worse.loss.low > 0.01 and worse.beside["recall@10"] < 0.95


def test_fidelity_interval_is_about_right() -> None:
    """The standard deviation over fresh texts agrees with the width of the interval, within a half."""
    losses, widths = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        original = embedding(unit(generator.normal(size=(50, 16))))
        samples = Texts(tuple(f"{seed} {i}" for i in range(50)))
        loss = judge(samples, noisy(original, 0.05, seed + 100), original, name="x", resamples=300).loss
        losses.append(loss.value)
        widths.append(loss.high - loss.low)
    assert np.mean(widths) / 3.92 == pytest.approx(np.std(losses), rel=0.6)


def test_fidelity_of_many_texts_takes_some_evenly() -> None:
    count = MOST_TEXTS + 200
    original = embedding(unit(random.normal(size=(count, 8))))
    found = judge(Texts(tuple(map(str, range(count)))), original, original, name="x", resamples=2)
    assert found.n == MOST_TEXTS and found.score == pytest.approx(1)


def test_fidelity_of_a_cross_encoder_with_one_or_several_scores() -> None:
    samples = Texts(tuple(f"text number {i}" for i in range(30)))
    pairs = pairs_of(samples)
    assert len(pairs) == 30 * PAIRS_PER_TEXT
    assert pairs[2:4] == [("text number 0", "text number"), ("text number", "0")]
    for shape in ((120,), (120, 3)):
        original = scoring(random.normal(size=shape))
        assert judge(samples, original, original, name="x").score == pytest.approx(1)
        assert judge(samples, noisy(original, 0.3), original, name="x").loss.low > 0


def test_what_cannot_be_judged_is_refused(graded: tuple[ScoredPairs, Answers]) -> None:
    samples, original = graded
    upside_down = ScoredPairs(pairs=samples.pairs, scores=tuple(-score for score in samples.scores))
    with pytest.raises(DataError, match=r"The original itself has spearman -0\.\d+ on x"):
        judge(upside_down, original, original, name="x")
    with pytest.raises(DataError, match="same score"):
        judge(ScoredPairs(pairs=samples.pairs, scores=(1.0,) * 400), original, original, name="x")
    with pytest.raises(DataError, match="too few"):
        judge(Texts(("a", "b")), embedding(np.eye(2)), embedding(np.eye(2)), name="x")
    with pytest.raises(UnsupportedError, match="3 scores for each pair"):
        judge(samples, scoring(np.ones((400, 3))), scoring(np.ones((400, 3))), name="x")
    with pytest.raises(EngineError, match="1 of 2 answers are not finite"):
        embedding(np.array([[1.0, np.nan], [0, 1]]))


def test_an_answer_that_never_varies_has_lost_everything(graded: tuple[ScoredPairs, Answers]) -> None:
    samples, original = graded
    found = judge(samples, embedding(np.ones_like(original.values)), original, name="x")
    assert found.score == 0 and found.loss.value == 1


class Recorder:
    """A model that remembers what it was asked."""

    def __init__(self, prompts: tuple[str, ...] = ()) -> None:
        self.prompts, self.truncated = prompts, 7
        self.asked: list[tuple[str | None, list[str]]] = []

    def embed(self, texts: list[str], *, prompt: str | None = None) -> np.ndarray:
        self.asked.append((prompt, texts))
        self.truncated += 2
        return np.ones((len(texts), 4), np.float32)


def test_queries_and_documents_are_asked_with_their_prompts() -> None:
    model = Recorder(("query", "passage"))
    answers = answers_of(model, COLLECTION)
    assert [prompt for prompt, _ in model.asked] == ["query", "passage"]
    assert answers.values.shape == (60, 4) and answers.truncated == 4
    plain = Recorder()
    assert answers_of(plain, Texts(("a", "b"))).truncated == 2
    assert plain.asked == [(None, ["a", "b"])]
