"""The service: the same answers whatever the batch, only the culprit fails, and nobody waits for what nobody wants."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.device.model import Embedder, Scorer, open_bundle
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.pace import Lane, Pace
from tightrope.device.serve.service import Answer, Service
from tightrope.device.session import Ragged
from tightrope.errors import DataError, RefusedError, TightropeError

SOON = 20.0
ANY = Lane(batch_tokens=1000, batch_texts=1000, parallel=False)
WORDS = ("the", "cat", "sat", "a", "on", "mat", "dogs", "no", "seven", "nine")


@contextmanager
def serving(limits: Limits | None = None, *, budget: int | None = None, **given: Any) -> Iterator[Service]:
    """A service whose ledger and metrics the test can see; in the end nothing may be held."""
    ledger, metrics = Ledger(budget, resident=lambda: 1000), Metrics()
    with Service(ledger, metrics, limits or Limits(cache_bytes=0), **given) as service:
        service.ledger, service.metrics = ledger, metrics  # type: ignore[attr-defined]
        yield service
    assert ledger.usage() == {"process": 1000}
    assert not service.lanes()


class Gate:
    """An engine's answer that waits until it may; it says when somebody is inside."""

    def __init__(self, engine: Any) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.answer = engine.answer
        engine.answer = self

    def __call__(self, feeds: Any) -> dict[str, Any]:
        self.inside.release()
        assert self.open.acquire(timeout=SOON)
        found: dict[str, Any] = self.answer(feeds)
        return found

    def wait(self) -> None:
        """Until a worker is inside."""
        assert self.inside.acquire(timeout=SOON)

    def let(self, many: int = 1) -> None:
        """Let so many through."""
        self.open.release(many)


@pytest.fixture
def made_up(seal_for_engine: Callable[..., Bundle], made_up_engine: Any) -> Iterator[Embedder]:
    """A model of the made-up engine: two numbers a text."""
    with open_bundle(seal_for_engine()) as model:
        assert isinstance(model, Embedder)
        yield model


@pytest.fixture
def native(native_bundle: Callable[..., Bundle], tmp_path: Path) -> Iterator[Embedder]:
    """A tiny real model of the native engine."""
    with open_bundle(native_bundle(tmp_path / "tiny.bundle")) as model:
        assert isinstance(model, Embedder)
        yield model


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 12 words, each different."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 13))) + f" {number}" for number in range(count)]


def result(future: "Future[Answer]") -> Answer:
    return future.result(SOON)


def refusal(future: "Future[Answer]") -> RefusedError:
    error = future.exception(SOON)
    assert isinstance(error, RefusedError)
    assert len(str(error).splitlines()) == 2
    return error


# Answers ----------------------------------------------------------------------------------------------------


def test_answers_are_the_same_to_the_bit_whatever_the_batch(native: Embedder) -> None:
    asked = texts(120)
    alone = np.concatenate([native.embed([text]) for text in asked])
    cuts = [0, 1, 2, 5, 30, 31, 90, 120]
    with serving(workers=2) as service:
        service.add("m", native)
        for _ in range(3):
            futures = [
                service.submit("m", asked[first:last], key=str(first % 3)) for first, last in itertools.pairwise(cuts)
            ]
            found = [result(future) for future in futures]
            assert np.array_equal(np.concatenate([item.rows for item in found]), alone)
        assert max(item.batch_texts for item in found) > 1
        assert sum(item.tokens for item in found) == len(native.encode(asked).ids.values)


def test_an_answer_says_what_it_took(native: Embedder) -> None:
    with serving() as service:
        service.add("m", native)
        answer = result(service.submit("m", ["the cat " * 100, "sat"]))
        assert answer.rows.shape == (2, native.width) and answer.rows.dtype == np.float32
        assert answer.truncated == 1
        assert answer.tokens == native.tokenizer.max_length + 3
        assert answer.queued_s >= 0 and answer.computed_s > 0
        empty = result(service.submit("m", []))
        assert empty.rows.shape == (0, native.width) and empty.tokens == 0
        assert service.metrics.batch_texts.values()[()].count >= 1  # type: ignore[attr-defined]


def test_prompts_and_lengths_are_those_of_the_model(made_up: Embedder) -> None:
    made_up.bundle.content.task["normalize"] = False  # type: ignore[index]
    with serving() as service:
        service.add("m", made_up, form=ANY)
        for prompt, normalize in itertools.product(("query", "", None), (True, False)):
            found = result(service.submit("m", ["cat", "the cat sat"], prompt=prompt, normalize=normalize))
            assert np.array_equal(found.rows, made_up.embed(["cat", "the cat sat"], prompt=prompt, normalize=normalize))


def test_pairs_are_scored(seal_for_engine: Any, made_up_engine: Any) -> None:
    with open_bundle(seal_for_engine(task="scoring")) as scorer, serving() as service:
        assert isinstance(scorer, Scorer)
        service.add("m", scorer, form=ANY)
        pairs = [("the cat", "sat"), ("a", "b")]
        assert np.array_equal(result(service.submit("m", pairs)).rows, scorer.score(pairs))
        with pytest.raises(DataError, match="not a pair"):
            service.submit("m", ["ab"])
        with pytest.raises(DataError, match="no prompt"):
            service.submit("m", pairs, prompt="query")


def test_token_ids_are_taken_as_they_are(native: Embedder) -> None:
    def ids(*rows: list[int]) -> Encoded:
        return Encoded(Ragged.of(rows), Ragged.of([]), 0)

    with serving() as service:
        service.add("m", native)
        encoded = native.encode(["the cat", "sat"])
        asked = ids(*(encoded.ids.slice(row, row + 1).values.tolist() for row in range(2)))
        assert np.array_equal(result(service.submit("m", asked)).rows, native.embed(["the cat", "sat"]))
        for wrong, words in (
            ([10**6], "no token 1000000"),
            ([-1], "no token -1"),
            ([], "has 0 tokens"),
            ([5] * 99, "99"),
        ):
            with pytest.raises(DataError, match=words):
                service.submit("m", ids([5], wrong))
        with pytest.raises(DataError, match="cannot be put before"):
            service.submit("m", asked, prompt="query")


# Failures ---------------------------------------------------------------------------------------------------


def test_only_the_poisonous_text_fails(made_up: Embedder, made_up_engine: Any) -> None:
    poison = int(made_up.tokenizer.encode(["sat"]).ids.values[1])
    good, calls = made_up_engine.answer, []

    def answer(feeds: Any) -> dict[str, Any]:
        calls.append(len(feeds["input_ids"]))
        if (feeds["input_ids"] == poison).any():
            raise RuntimeError("the engine chokes")
        found: dict[str, Any] = good(feeds)
        return found

    made_up.close()
    gate = Gate(made_up_engine)
    gate.answer = answer
    with open_bundle(made_up.bundle) as model, serving() as service:
        service.add("m", model, form=ANY)
        first = service.submit("m", ["cat"])
        gate.wait()
        futures = [service.submit("m", [word]) for word in ("cat", "the", "sat", "mat", "a", "no", "dogs", "nine")]
        many = service.submit("m", ["a", "b", "the sat", "c"])
        gate.let(100)
        result(first)
        for number, future in enumerate(futures):
            if number == 2:
                error = refusal(future)
                assert error.reason == "failed"
                assert "The input could not be answered: RuntimeError: the engine chokes" in str(error)
            else:
                assert result(future).rows.shape == (1, 2)
        assert "Input 2 (counted from 0)" in str(refusal(many))
        assert calls[1] == 12, "all of them were one batch first"
        assert len(calls) <= 16
        assert result(service.submit("m", ["cat"])).batch_texts == 1


def test_an_answer_that_is_no_number_fails_alone(made_up: Embedder, made_up_engine: Any) -> None:
    good = made_up_engine.answer

    def answer(feeds: Any) -> dict[str, Any]:
        rows = good(feeds)["rows"].copy()
        rows[feeds["attention_mask"].sum(1) > 6] = np.nan
        return {"rows": rows}

    made_up_engine.sessions[0]._answer = answer
    with serving() as service:
        service.add("m", made_up, form=ANY)
        short, long = service.submit("m", ["cat"]), service.submit("m", ["cat sat mat on no"])
        assert "not a number" in str(refusal(long))
        result(short)


def test_what_the_engine_finds_wrong_with_an_input_is_the_client_s(made_up: Embedder, made_up_engine: Any) -> None:
    def answer(_feeds: Any) -> dict[str, Any]:
        raise DataError("There is no token 7.", hint="Send others.")

    made_up_engine.sessions[0]._answer = answer
    with serving() as service:
        service.add("m", made_up, form=ANY)
        error = service.submit("m", ["cat"]).exception(SOON)
        assert isinstance(error, DataError) and "There is no token 7" in str(error)


def test_a_model_that_refuses_is_not_asked_again(made_up: Embedder, made_up_engine: Any) -> None:
    calls = []

    def answer(feeds: Any) -> dict[str, Any]:
        calls.append(feeds)
        raise RefusedError("The engine was restarted.", hint="Again.", reason="unavailable", retry_after_s=1.0)

    made_up_engine.sessions[0]._answer = answer
    with serving() as service:
        service.add("m", made_up, form=ANY)
        error = refusal(service.submit("m", ["cat", "sat", "the"]))
        assert (error.reason, error.retry_after_s, len(calls)) == ("unavailable", 1.0, 1)
        assert service.metrics.refused.total(reason="unavailable") == 1  # type: ignore[attr-defined]


def test_a_text_that_crashes_its_engine_does_so_alone_the_next_time(made_up: Embedder, made_up_engine: Any) -> None:
    poison = int(made_up.tokenizer.encode(["sat"]).ids.values[1])
    good = made_up_engine.answer
    gate = Gate(made_up_engine)

    def answer(feeds: Any) -> dict[str, Any]:
        if (feeds["input_ids"] == poison).any():
            raise RefusedError("It crashed.", hint="Again.", reason="unavailable", retry_after_s=1.0)
        found: dict[str, Any] = good(feeds)
        return found

    gate.answer = answer
    with open_bundle(made_up.bundle) as model, serving(workers=1) as service:
        service.add("m", model, form=ANY)
        for attempts, crowd in ((1, 4), (2, 1)):
            first = service.submit("m", ["cat"])
            gate.wait()
            futures = [service.submit("m", [word]) for word in ("the", "sat", "mat", "no")]
            gate.let(100)
            result(first)
            errors = [future.exception(SOON) for future in futures]
            assert len([error for error in errors if error]) == crowd, f"attempt {attempts}"
            gate.inside, gate.open = threading.Semaphore(0), threading.Semaphore(0)


def test_a_mistake_of_ours_ends_neither_the_worker_nor_the_wait(
    made_up: Embedder, monkeypatch: Any, logged: StringIO
) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError("a mistake")

    with serving() as service:
        service.add("m", made_up, form=ANY)
        with monkeypatch.context() as patched:
            patched.setattr("tightrope.device.serve.service.attempt", broken)
            assert "ZeroDivisionError: a mistake" in str(refusal(service.submit("m", ["cat"])))
        assert result(service.submit("m", ["cat"])).rows.shape == (1, 2)
    assert "service.fault" in logged.getvalue()


def test_wrong_inputs_are_refused_where_they_are_submitted(made_up: Embedder) -> None:
    with serving(Limits(inputs=2, cache_bytes=0)) as service:
        service.add("m", made_up, form=ANY)
        for wrong in ([5], [("a", "b")], ["fine", None]):
            with pytest.raises(DataError):
                service.submit("m", wrong)
        with pytest.raises(DataError, match="no prompt 'nope'"):
            service.submit("m", ["cat"], prompt="nope")
        with pytest.raises(RefusedError, match="has 3 inputs; 2 is the most") as caught:
            service.submit("m", ["a", "b", "c"])
        assert caught.value.reason == "too_large"
        with pytest.raises(RefusedError) as caught:
            service.submit("other", ["a"])
        assert caught.value.reason == "unavailable"
        assert service.metrics.refused.total(reason="too_large") == 1  # type: ignore[attr-defined]


# Time -------------------------------------------------------------------------------------------------------


def test_what_has_expired_is_never_computed(made_up: Embedder, made_up_engine: Any) -> None:
    now = [100.0]
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model, serving(clock=lambda: now[0]) as service:
        service.add("m", model, form=ANY)
        first = service.submit("m", ["cat"])
        gate.wait()
        late, kept = service.submit("m", ["sat"], deadline_s=2.0), service.submit("m", ["the"], deadline_s=60.0)
        now[0] += 2.0
        gate.let(2)
        assert refusal(late).reason == "deadline"
        result(kept), result(first)
        assert len(made_up_engine.sessions[-1].seen) == 2
        assert service.metrics.deadline_missed.total() == 1  # type: ignore[attr-defined]
        with pytest.raises(RefusedError) as caught:
            service.submit("m", ["cat"], deadline_s=0)
        assert caught.value.reason == "deadline"


def test_a_wait_that_is_too_long_is_refused_on_arrival(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    slow = Lane(batch_tokens=10, batch_texts=10, pace=Pace().seen(10, 1.0), parallel=False)
    with open_bundle(made_up.bundle) as model, serving(clock=lambda: 0.0) as service:
        service.add("m", model, form=slow)
        first = service.submit("m", ["the cat sat on"])
        gate.wait()
        assert service.predicted_wait_s("m", [10]) > 1.5
        started = time.perf_counter()
        with pytest.raises(RefusedError, match="the deadline is in 1 s") as caught:
            service.submit("m", ["the cat sat on"], deadline_s=1.0)
        assert time.perf_counter() - started < 1.0
        assert caught.value.reason == "deadline" and caught.value.retry_after_s
        gate.let(10)
        result(first)


def test_a_full_queue_refuses_and_recovers(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model, serving(Limits(queue_requests=3, cache_bytes=0)) as service:
        service.add("m", model, form=ANY)
        futures = [service.submit("m", ["cat"])]
        gate.wait()
        futures += [service.submit("m", [word]) for word in WORDS[:3]]
        assert service.queue_depth() == 3
        for _ in range(20):
            with pytest.raises(RefusedError) as caught:
                service.submit("m", ["cat"])
            assert caught.value.reason == "overloaded" and caught.value.retry_after_s
        gate.let(10)
        for future in futures:
            result(future)
        result(service.submit("m", ["cat"]))


# Going away -------------------------------------------------------------------------------------------------


def test_whoever_goes_away_is_not_computed(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model, serving() as service:
        service.add("m", model, form=ANY)
        first = service.submit("m", ["cat"])
        gate.wait()
        gone, kept = service.submit("m", ["sat"]), service.submit("m", ["the"])
        assert gone.cancel() and service.queue_depth() == 1
        gate.let(2)
        result(first), result(kept)
        assert len(made_up_engine.sessions[-1].seen[-1]["input_ids"]) == 1
        assert service.metrics.cancelled.total() == 1  # type: ignore[attr-defined]


def test_a_large_request_that_nobody_waits_for_stops_after_its_batch(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model, serving() as service:
        service.add("m", model, form=Lane(batch_tokens=10, batch_texts=2, parallel=False))
        large = service.submit("m", ["cat"] * 100)
        gate.wait()
        next_one = service.submit("m", ["the"], key="other")
        assert large.cancel()
        assert service.ledger.usage().get("requests", 0) < 500, "its memory is free at once"  # type: ignore[attr-defined]
        gate.let(2)
        result(next_one)
        assert len(made_up_engine.sessions[-1].seen) == 2


def test_a_lane_that_is_removed_finishes_its_batch_and_refuses_the_rest(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model, serving() as service:
        service.add("m", model, form=ANY)
        running = service.submit("m", ["cat"])
        gate.wait()
        waiting = service.submit("m", ["sat"])
        remover = threading.Thread(target=service.remove, args=("m",))
        remover.start()
        assert refusal(waiting).reason == "unavailable"
        assert remover.is_alive() and not running.done()
        gate.let()
        remover.join(SOON)
        assert result(running).rows.shape == (1, 2)
        service.remove("m")
        service.add("m", model, form=ANY)
        gate.let()
        result(service.submit("m", ["cat"]))


def test_one_model_in_two_lanes_is_asked_in_turn(made_up: Embedder, made_up_engine: Any) -> None:
    inside, most = [0], [0]
    good = made_up_engine.answer

    def answer(feeds: Any) -> dict[str, Any]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        inside[0] -= 1
        found: dict[str, Any] = good(feeds)
        return found

    made_up_engine.sessions[0]._answer = answer
    with serving(workers=3) as service:
        service.add("m", made_up, form=ANY)
        service.add("m#mirror", made_up, form=service.form("m"), cached=False)
        for future in [service.submit(lane, [word]) for word in WORDS for lane in ("m", "m#mirror")]:
            result(future)
    assert most[0] == 1


def test_closing_refuses_what_waits_and_answers_what_runs(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model:
        with serving() as service:
            service.add("m", model, form=ANY)
            running = service.submit("m", ["cat"])
            gate.wait()
            waiting = service.submit("m", ["sat"])
            closer = threading.Thread(target=service.close)
            closer.start()
            assert refusal(waiting).reason == "unavailable"
            gate.let()
            closer.join(SOON)
            result(running)
        with pytest.raises(RefusedError):
            service.submit("m", ["cat"])


# Memory and memories ----------------------------------------------------------------------------------------


def test_requests_reserve_what_they_hold(made_up: Embedder, made_up_engine: Any) -> None:
    gate = Gate(made_up_engine)
    with open_bundle(made_up.bundle) as model, serving(budget=20_000) as service:
        service.add("m", model, form=ANY)
        futures = [service.submit("m", ["cat"])]
        gate.wait()
        with pytest.raises(RefusedError) as caught:
            for _ in range(1000):
                futures.append(service.submit("m", ["the cat sat on the mat"] * 10))
        assert caught.value.reason == "memory" and caught.value.retry_after_s
        assert sum(service.ledger.usage().values()) <= 20_000  # type: ignore[attr-defined]
        gate.let(1000)
        wait_for(futures, SOON)
        assert "requests" not in service.ledger.usage()  # type: ignore[attr-defined]


def test_what_was_asked_before_is_remembered(native: Embedder) -> None:
    with serving(Limits()) as service:
        service.add("m", native)
        first = result(service.submit("m", ["the cat", "sat"]))
        batches = service.metrics.batch_texts.values()[()].count  # type: ignore[attr-defined]
        again = result(service.submit("m", ["THE  cat", "sat"]))
        assert np.array_equal(again.rows, first.rows)
        assert (again.tokens, again.batch_texts, again.computed_s) == (first.tokens, 0, 0.0)
        mixed = result(service.submit("m", ["mat", "sat", "the cat", "dogs"]))
        assert np.array_equal(mixed.rows, native.embed(["mat", "sat", "the cat", "dogs"]))
        assert mixed.batch_texts == 2
        assert service.metrics.batch_texts.values()[()].count == batches + 1  # type: ignore[attr-defined]
        assert service.metrics.cache_hits.total() == 4  # type: ignore[attr-defined]
        service.add("again", native, form=service.form("m"), cached=False)
        assert result(service.submit("again", ["the cat"])).batch_texts == 1


def test_what_is_remembered_is_not_yet_scaled(made_up: Embedder) -> None:
    made_up.bundle.content.task["normalize"] = False  # type: ignore[index]
    with serving(Limits()) as service:
        service.add("m", made_up, form=ANY)
        for normalize in (True, False, True, False):
            found = result(service.submit("m", ["the cat"], normalize=normalize))
            assert np.array_equal(found.rows, made_up.embed(["the cat"], normalize=normalize))


def test_the_gauges_show_the_books(native: Embedder) -> None:
    with serving(Limits(), budget=10**9) as service:
        service.add("m", native)
        result(service.submit("m", ["cat"]))
        shown = service.metrics.text()  # type: ignore[attr-defined]
        assert 'tightrope_memory_bytes{owner="batches"}' in shown
        assert "tightrope_memory_budget_bytes 1000000000" in shown
        assert "tightrope_queue_requests 0" in shown
        (choice,) = service.choices().values()
        assert choice.engine == "native" and choice.batch_tokens >= 64 and len(choice.reasons) == 2


# Crowds -----------------------------------------------------------------------------------------------------


def test_a_crowd_that_asks_cancels_and_fails_leaves_nothing_behind(native: Embedder) -> None:
    asked = texts(60, seed=3)
    alone = dict(zip(asked, native.embed(asked), strict=True))
    outcomes: list[str] = []

    def client(seed: int, service: Service) -> None:
        random = np.random.default_rng(seed)
        for _ in range(30):
            some = list(random.choice(asked, random.integers(1, 20)))
            try:
                future = service.submit("m", some, key=str(seed % 2), priority=int(random.integers(-2, 3)))
                if random.random() < 0.3:
                    future.cancel()
                if not future.cancelled():
                    assert np.array_equal(result(future).rows, np.stack([alone[text] for text in some]))
                    outcomes.append("answered")
            except TightropeError as error:
                outcomes.append(getattr(error, "reason", "data"))

    with serving(Limits(queue_requests=5, cache_bytes=10_000), workers=2) as service:
        service.add("m", native)
        threads = [threading.Thread(target=client, args=(seed, service)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        assert set(outcomes) <= {"answered", "overloaded"} and outcomes.count("answered") > 50
        assert service.queue_depth() == 0
