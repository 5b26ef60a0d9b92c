"""Opening a bundle and asking it: what is refused, what is closed, and how much memory many texts take."""

import os
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tightrope.bundle import Requirements
from tightrope.device import model as device_model
from tightrope.device.machine import this_machine
from tightrope.device.model import open_bundle
from tightrope.device.senses.text import Encoded
from tightrope.device.session import Ragged
from tightrope.errors import BundleError, DataError
from tightrope.ports import Port

TEXTS = ["the cat sat", "sat", "a b c d e f", "", "the the"]


def two_lines(error: Exception) -> bool:
    return len(str(error).splitlines()) == 2


@pytest.mark.parametrize(
    "wrong", ["ab", ["ab"], [5], [None], ["ab", ("a", "b")], [("a",)], [("a", "b", "c")], [(1, 2)]]
)
def test_a_scorer_takes_pairs_only(seal_for_engine, made_up_engine, wrong):
    with open_bundle(seal_for_engine(task="scoring")) as scorer:
        with pytest.raises(DataError) as caught:
            scorer.score(wrong)
        assert two_lines(caught.value)
        assert not made_up_engine.sessions[0].seen
        assert scorer.score([("a", "b"), ["the cat", "sat"]]).shape == (2, 2)


@pytest.mark.parametrize("wrong", ["ab", [("a", "b")], [5], [None], ["fine", b"not"], [["a"]]])
def test_an_embedder_takes_texts_only(seal_for_engine, made_up_engine, wrong):
    with open_bundle(seal_for_engine()) as embedder:
        with pytest.raises(DataError) as caught:
            embedder.embed(wrong)
        assert two_lines(caught.value)
        assert not made_up_engine.sessions[0].seen
        assert embedder.embed([]).shape == (0, 2)


def test_a_session_is_closed_if_the_tokenizer_cannot_be_read(seal_for_engine, made_up_engine):
    with pytest.raises(BundleError, match="tokenizer"):
        open_bundle(seal_for_engine(tokenizer=b"{}"))
    assert [session.closed for session in made_up_engine.sessions] == [True]


def test_what_the_processor_lacks_is_said(seal_for_engine, made_up_engine):
    machine = this_machine()
    with pytest.raises(BundleError, match="fake needs avx1024") as caught:
        open_bundle(seal_for_engine(requires=[Requirements(isa=(*machine.isa, "avx1024"))]))
    assert two_lines(caught.value)
    with pytest.raises(BundleError, match="fake needs pdp11"):
        open_bundle(seal_for_engine(requires=[Requirements(architectures=("pdp11",))]), engine="fake")
    assert not made_up_engine.sessions
    able = Requirements(architectures=("pdp11", machine.architecture), isa=machine.isa)
    with open_bundle(seal_for_engine(requires=[Requirements(isa=("avx1024",)), able])) as opened:
        assert opened.engine == "fake"


def test_a_machine_is_looked_at_only_if_something_is_asked_of_it(seal_for_engine, monkeypatch):
    monkeypatch.setattr("tightrope.device.machine.this_machine", lambda: pytest.fail("looked"))
    open_bundle(seal_for_engine()).close()
    open_bundle(seal_for_engine(requires=[Requirements(architectures=(this_machine().architecture,))])).close()


def test_windows_change_no_answer_and_no_order(seal_for_engine, monkeypatch):
    with open_bundle(seal_for_engine()) as embedder:
        whole = embedder.embed(TEXTS, prompt="query", normalize=False)
        assert np.array_equal(whole, np.concatenate([embedder.embed([f"the cat {text}"]) for text in TEXTS]))
        monkeypatch.setattr(device_model, "WINDOW", 2)
        assert np.array_equal(embedder.embed(TEXTS, prompt="query"), whole)
        assert np.array_equal(embedder.embed(iter(TEXTS), prompt="query"), whole)


def test_answers_of_another_width_are_refused(seal_for_engine, made_up_engine):
    made_up_engine.answer = lambda feeds: {"rows": np.zeros((len(feeds["input_ids"]), 1), np.float32)}
    with open_bundle(seal_for_engine()) as embedder, pytest.raises(BundleError, match="2 wide"):
        embedder.embed(TEXTS)


@pytest.mark.parametrize("takes", [True, False])
def test_segments_are_made_only_for_who_takes_them(seal_for_engine, made_up_engine, takes):
    if takes:
        made_up_engine.inputs += (Port("token_type_ids", "int64", ("batch", "length")),)
    with open_bundle(seal_for_engine(task="scoring")) as scorer:
        scorer.score([("the cat", "sat")])
        assert scorer.tokenizer.encode([("the cat", "sat")], types=takes).types.lengths.tolist() == [6 * takes]
    (feeds,) = made_up_engine.sessions[0].seen
    assert {name: value.dtype for name, value in feeds.items()} == dict.fromkeys(feeds, np.int64)
    assert ("token_type_ids" in feeds) == takes
    if takes:
        assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]


def test_a_batch_of_ids_is_answered_as_its_texts(seal_for_engine, made_up_engine):
    with open_bundle(seal_for_engine()) as embedder:
        encoded = embedder.encode(["sat", "a b"], prompt="query")
        assert len(encoded) == 2
        assert np.array_equal(embedder.answer(encoded), embedder.embed(["sat", "a b"], prompt="query"))
        assert np.array_equal(embedder.answer(encoded.slice(1, 2)), embedder.embed(["a b"], prompt="query"))
        parts = [encoded.take(np.array([row])) for row in (1, 0)]
        assert np.array_equal(embedder.answer(type(encoded).join(parts)), embedder.answer(encoded)[::-1])
        assert embedder.encode([]).ids.offsets.tolist() == [0]
        assert (embedder.exact, embedder.parallel, embedder.ragged, embedder.width) == (False, False, False, 2)
        with pytest.raises(DataError, match="no prompt"):
            embedder.encode(["sat"], prompt="nope")
    with open_bundle(seal_for_engine(task="scoring")) as scorer:
        pairs = [("the cat", "sat"), ("a", "b")]
        assert np.array_equal(scorer.answer(scorer.encode(pairs)), scorer.score(pairs))
        for wrong in (["ab"], [("a",)]):
            with pytest.raises(DataError):
                scorer.encode(wrong)


@pytest.mark.parametrize("takes", [True, False])
def test_ids_from_elsewhere_are_checked_and_get_segments(seal_for_engine, made_up_engine, takes):
    if takes:
        made_up_engine.inputs += (Port("token_type_ids", "int64", ("batch", "length")),)
    with open_bundle(seal_for_engine()) as embedder:
        known = embedder.encode(["the cat"])
        asked = Encoded(known.ids, Ragged.of([]), 0)
        checked = embedder.checked(asked)
        assert checked.types.lengths.tolist() == [4 * takes]
        assert np.array_equal(embedder.answer(checked), embedder.answer(known))
        assert len(embedder.checked(Encoded(Ragged.of([]), Ragged.of([]), 0))) == 0
        for ids in ([[60]], [[-1]], [[1], []], [[1] * 65]):
            with pytest.raises(DataError) as caught:
                embedder.checked(Encoded(Ragged.of(ids), Ragged.of([]), 0))
            assert two_lines(caught.value)


def test_a_session_that_is_not_parallel_is_asked_in_turn(seal_for_engine, made_up_engine):
    inside, together = [], []

    def answer(feeds):
        inside.append(1)
        together.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return sums(feeds)

    sums, made_up_engine.answer = made_up_engine.answer, answer
    with open_bundle(seal_for_engine()) as embedder, ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(embedder.embed, [[text] for text in TEXTS * 3]))) == 15
    assert set(together) == {1}


def test_another_opener_may_stand_for_a_runtime(seal_for_engine, made_up_engine):
    asked = []
    with open_bundle(seal_for_engine(), runtime=lambda name: asked.append(name) or made_up_engine) as embedder:
        assert embedder.embed(["sat"]).shape == (1, 2)
    assert asked == ["fake"]


@pytest.mark.engine
def test_of_many_texts_only_the_answers_stay(tiny_bundle):
    texts = [f"{'the cat ' * (number % 9)}{number}" for number in range(20_000)]

    def peak(count: int) -> tuple[np.ndarray, int]:
        """The answers, and the most bytes that there were besides."""
        tracemalloc.start()
        try:
            rows = opened.embed(texts[:count])
            return rows, tracemalloc.get_traced_memory()[1] - rows.nbytes
        finally:
            tracemalloc.stop()

    with open_bundle(tiny_bundle) as opened:
        opened.embed(texts[:50])
        few, bytes_of_few = peak(device_model.WINDOW)
        many, bytes_of_many = peak(len(texts))
        pointers = 2 * 8 * len(texts)
        assert bytes_of_many < 1.1 * bytes_of_few + pointers
        assert np.array_equal(many[: device_model.WINDOW], few)
        chosen = [0, 8191, 8192, 16384, 19_999]
        assert np.allclose(many[chosen], [opened.embed([texts[row]])[0] for row in chosen], atol=1e-5)


def test_importing_leaves_the_environment_alone():
    code = "import os; before = dict(os.environ); import tightrope; tightrope.open; assert dict(os.environ) == before"
    bare = {key: value for key, value in os.environ.items() if not key.startswith("TOKENIZERS")}
    subprocess.run([sys.executable, "-c", code], check=True, env=bare)
