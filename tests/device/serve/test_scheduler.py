"""Who is admitted, who is next and what is predicted, with a clock that is an argument."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve.fair_queue import FairQueue, Part, Request
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.pace import Lane, Pace
from tightrope.device.serve.scheduler import Batch, Scheduler
from tightrope.errors import RefusedError

KNOWN = Pace().seen(1, 0.101).seen(100, 0.2)
"""0.1 s a batch, 1 ms a token."""
LANE = Lane(batch_tokens=100, batch_texts=50)


class Line:
    """A scheduler with one lane, and requests that count themselves."""

    def __init__(self, form: Lane = LANE, workers: int = 1, **limits: float) -> None:
        self.scheduler = Scheduler(Limits(**limits), workers=workers)  # type: ignore[arg-type]
        self.scheduler.add_lane("m", form)
        self.count = 0

    def ask(self, *lengths: int, now: float = 0.0, lane: str = "m", **given: object) -> Request:
        self.count += 1
        request = Request(number=self.count, lane=lane, lengths=lengths, **given)  # type: ignore[arg-type]
        self.scheduler.admit(request, now)
        return request

    def batch(self, now: float = 0.0) -> Batch:
        found = self.scheduler.next_batch(now)
        assert isinstance(found, Batch)
        return found

    def work(self, now: float = 0.0, seconds: float = 0.0) -> Batch:
        found = self.batch(now)
        self.scheduler.finished(found, now + seconds)
        return found


def numbers(batch: Batch) -> list[int]:
    return [part.request.number for part in batch.parts]


def test_an_idle_scheduler_has_nothing_and_a_lone_request_does_not_wait() -> None:
    line = Line()
    assert line.scheduler.next_batch(0.0) is None
    first = line.ask(5, 6)
    batch = line.batch()
    assert batch.parts == (Part(first, 0, 2),)
    assert (batch.tokens, batch.texts, len(line.scheduler.queue), line.scheduler.queue.tokens) == (11, 2, 0, 0)
    assert line.scheduler.next_batch(0.0) is None


def test_batches_are_filled_to_their_tokens_and_texts_and_large_requests_split() -> None:
    line = Line()
    large = line.ask(*[30] * 7)
    small = line.ask(10)
    found = [line.work() for _ in range(3)]
    assert [item.parts for item in found] == [
        (Part(large, 0, 3),),
        (Part(large, 3, 6),),
        (Part(large, 6, 7), Part(small, 0, 1)),
    ]
    alone = line.ask(500, 1)
    assert [line.work().parts for _ in range(2)] == [(Part(alone, 0, 1),), (Part(alone, 1, 2),)]
    singles = Line(Lane(batch_tokens=100, batch_texts=1))
    both = singles.ask(1, 1)
    assert [singles.work().parts for _ in range(2)] == [(Part(both, 0, 1),), (Part(both, 1, 2),)]


def test_a_small_request_of_another_key_waits_for_one_batch_at_most() -> None:
    line = Line()
    line.ask(*[50] * 40, key="greedy")
    line.work()
    line.work()
    modest = line.ask(20, key="modest")
    assert modest.number in numbers(line.work())


def test_keys_share_by_tokens_whatever_they_ask() -> None:
    line = Line(queue_requests=10_000, queue_tokens=10**9)
    for _ in range(1000):
        line.ask(10, key="short")
    for _ in range(100):
        line.ask(100, key="long")
    served: Counter[str] = Counter()
    while sum(served.values()) < 10_000:
        for part in line.work().parts:
            served[part.request.key] += sum(part.request.lengths[part.start : part.stop])
    assert abs(served["short"] - served["long"]) <= 200


def test_a_key_that_was_away_does_not_come_back_with_savings() -> None:
    line = Line(queue_tokens=10**9)
    for _ in range(50):
        line.ask(100, key="steady")
        line.work()
    for _ in range(20):
        line.ask(100, key="steady")
        line.ask(100, key="new")
    first = Counter(part.request.key for _ in range(10) for part in line.work().parts)
    assert first["steady"] == first["new"] == 5


def test_urgent_requests_get_more_and_slow_ones_do_not_starve() -> None:
    line = Line(queue_tokens=10**9, queue_requests=1000)
    for _ in range(300):
        line.ask(10, key="a", priority=0)
        line.ask(10, key="b", priority=1)
        line.ask(10, key="c", priority=99)
    served: Counter[int] = Counter()
    for _ in range(30):
        served.update(part.request.priority for part in line.work().parts)
    assert served[99] > 6 * served[1] > 6 * 3 * served[0] > 0
    assert sum(served.values()) == 300


def test_cancelled_and_expired_requests_are_never_chosen() -> None:
    line = Line()
    gone, late, kept = line.ask(10), line.ask(10, deadline_s=5.0), line.ask(10, deadline_s=50.0)
    half = line.ask(60, 60, 60, 60)
    assert line.scheduler.cancel(gone.number)
    assert not line.scheduler.cancel(gone.number)
    assert line.scheduler.expire(4.9) == ()
    assert line.scheduler.expire(5.0) == (late,)
    assert line.work(5.0).parts == (Part(kept, 0, 1), Part(half, 0, 1))
    assert line.work(5.0).parts == (Part(half, 1, 2),)
    assert line.scheduler.cancel(half.number)
    assert line.scheduler.queue.tokens == len(line.scheduler.queue) == 0
    assert line.scheduler.next_batch(6.0) is None
    assert line.scheduler.expire(100.0) == ()


def test_too_many_requests_or_tokens_are_refused_with_a_time_to_come_back() -> None:
    line = Line(Lane(batch_tokens=100, batch_texts=50, pace=KNOWN), queue_requests=3, queue_tokens=120, queue_s=1e9)
    for _ in range(3):
        line.ask(30)
    for ask in (lambda: line.ask(1), lambda: line.scheduler.check_room(0.0)):
        with pytest.raises(RefusedError, match="3 requests wait already") as caught:
            ask()
        assert caught.value.reason == "overloaded"
        assert caught.value.retry_after_s == 0.1
    line.work()
    line.ask(100)
    with pytest.raises(RefusedError, match="100 tokens wait already") as caught:
        line.ask(21)
    assert caught.value.reason == "overloaded"
    with pytest.raises(RefusedError, match="has 121 tokens; 120 is the most") as caught:
        line.ask(121)
    assert (caught.value.reason, caught.value.retry_after_s) == ("too_large", None)


def test_a_deadline_that_cannot_be_kept_is_refused_on_arrival() -> None:
    line = Line(Lane(batch_tokens=100, batch_texts=50, pace=KNOWN))
    assert line.scheduler.predicted_wait_s("m", [100], 0.0) == pytest.approx(0.2)
    with pytest.raises(RefusedError, match=r"in 0.2 s; the deadline is in 0.15 s") as caught:
        line.ask(100, deadline_s=0.15)
    assert caught.value.reason == "deadline"
    assert caught.value.retry_after_s == pytest.approx(0.05)
    line.ask(100, deadline_s=0.25)
    with pytest.raises(RefusedError, match=r"in 0\.4 s"):
        line.ask(100, deadline_s=0.25)
    with pytest.raises(RefusedError) as caught:
        line.ask(1, deadline_s=-1.0)
    assert (caught.value.reason, caught.value.retry_after_s) == ("deadline", None)
    running = line.batch(now=0.0)
    assert line.scheduler.predicted_wait_s("m", [100], 0.15) == pytest.approx(0.25)
    assert line.scheduler.drain_s(0.15) == pytest.approx(0.05)
    line.scheduler.finished(running, 0.2)
    assert line.scheduler.drain_s(0.2) == 0


def test_who_would_wait_too_long_is_refused_whatever_the_deadline() -> None:
    line = Line(Lane(batch_tokens=100, batch_texts=50, pace=KNOWN), queue_s=0.5)
    line.ask(*[100] * 5)  # its own work takes a second; it does not wait
    with pytest.raises(RefusedError, match="wait would be 1 s") as caught:
        line.ask(10)
    assert caught.value.reason == "overloaded"
    line.ask(10, key="other")


def test_a_prediction_counts_what_others_are_given_meanwhile() -> None:
    line = Line(Lane(batch_tokens=100, batch_texts=50, pace=KNOWN), queue_s=1e9)
    line.ask(*[100] * 20, key="greedy")
    ask = line.scheduler.predicted_wait_s
    assert ask("m", [100], 0.0, flow=("greedy", 0)) == pytest.approx(21 * 0.2)
    assert ask("m", [100], 0.0, flow=("modest", 0)) == pytest.approx(2 * 0.2)
    assert ask("m", [100], 0.0, flow=("modest", 1)) < 0.35
    assert ask("m", [100], 0.0, flow=("modest", -1)) == pytest.approx(9 * 0.2)
    assert Line(workers=2).scheduler.predicted_wait_s("m", [100], 0.0) == 0, "nothing is known yet"
    two = Line(Lane(batch_tokens=100, batch_texts=50, pace=KNOWN), workers=2, queue_s=1e9)
    two.ask(*[100] * 20)
    assert two.scheduler.drain_s(0.0) == pytest.approx(2.0)
    assert two.scheduler.predicted_wait_s("m", [100], 0.0, flow=("b", 0)) == pytest.approx(0.2)


def test_a_speed_is_learnt() -> None:
    pace = Pace()
    assert pace.seconds(100) == 0
    for tokens in (10, 50, 90, 30):
        pace = pace.seen(tokens, 0.02 + tokens * 0.001)
    assert pace.seconds(60) == pytest.approx(0.08)
    assert pace.seconds(120, batches=2) == pytest.approx(0.16)
    same = Pace().seen(10, 0.05).seen(10, 0.05)
    assert same.seconds(20) == pytest.approx(0.1), "batches of one size cannot tell: all is the tokens'"
    faster = Pace().seen(10, 0.5).seen(100, 0.1)
    assert faster.seconds(1) == faster.seconds(1000) > 0
    steep = Pace().seen(10, 0.001).seen(100, 0.1)
    assert 0 < steep.seconds(1) < steep.seconds(10)
    for _ in range(200):
        pace = pace.seen(50, 0.2).seen(60, 0.2)
    assert pace.seconds(55) == pytest.approx(0.2, rel=0.01), "what was long ago no longer counts"


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 10)), max_size=30), st.integers(0, 10**6))
def test_a_prediction_is_a_time(seen: list[tuple[int, float]], tokens: int) -> None:
    pace = Pace()
    for item in seen:
        pace = pace.seen(*item)
    assert 0 <= pace.seconds(tokens, batches=3) < float("inf")


def test_who_just_had_company_waits_a_moment_for_it() -> None:
    line = Line(batch_wait_s=0.004)
    for key in "abc":
        line.ask(10, key=key)
    first = line.batch(1.0)
    line.scheduler.finished(first, 2.0)
    line.ask(10, now=2.001)
    assert line.scheduler.next_batch(2.001) == pytest.approx(2.004)
    line.ask(10, now=2.002)
    assert line.scheduler.next_batch(2.002) == pytest.approx(2.004)
    line.ask(10, now=2.003)
    assert numbers(line.batch(2.003)) == [4, 5, 6], "as many as before: nobody else is expected"


def test_who_waited_in_vain_waits_less_and_an_idle_server_not_at_all() -> None:
    line = Line(batch_wait_s=0.004)
    waits = []
    for start in range(6):
        for key in "ab":
            line.ask(10, key=key, now=float(start))
        batch = line.scheduler.next_batch(float(start))
        assert isinstance(batch, Batch), "the last batch was long ago"
        line.scheduler.finished(batch, start + 0.5)
        line.ask(10, now=start + 0.5)
        until = line.scheduler.next_batch(start + 0.5)
        assert isinstance(until, float)
        waits.append(until - start - 0.5)
        assert len(line.work(until + 1e-9).parts) == 1
    assert waits == pytest.approx([0.004, 0.002, 0.001, 0.0005, 0.00025, 0.00025])


def test_a_full_batch_does_not_wait() -> None:
    line = Line(batch_wait_s=1.0)
    for key in "abc":
        line.ask(10, key=key)
    line.work(1.0)
    line.ask(100, now=1.0)
    assert line.batch(1.0).tokens == 100
    single = Line(Lane(batch_tokens=100, batch_texts=1), batch_wait_s=1.0)
    single.ask(1)
    single.work(1.0)
    single.ask(1)
    assert single.batch(1.0).texts == 1


def test_lanes_take_turns_and_one_that_cannot_run_twice_is_left_alone() -> None:
    line = Line(Lane(batch_tokens=100, batch_texts=50, parallel=False))
    line.scheduler.add_lane("n", LANE)
    line.ask(*[100] * 3)
    line.ask(*[100] * 3, lane="n", key="other")
    first, second, third = line.batch(), line.batch(), line.batch()
    assert [first.lane, second.lane, third.lane] == ["m", "n", "n"]
    line.scheduler.finished(first, 1.0)
    assert line.batch(1.0).lane == "m"


def test_a_lane_that_is_dropped_returns_what_waited() -> None:
    line = Line()
    line.scheduler.add_lane("n", LANE)
    kept, running = line.ask(10), line.ask(*[60] * 3, lane="n", key="b")
    assert line.work().parts == (Part(kept, 0, 1),)
    batch = line.batch()
    assert line.scheduler.drop_lane("n") == (running,)
    assert line.scheduler.queue.tokens == 0
    line.scheduler.finished(batch, 1.0)
    assert line.scheduler.drop_lane("n") == ()
    line.scheduler.add_lane("n", LANE)
    line.ask(10, lane="n")
    assert line.batch().lane == "n"


def test_a_lane_s_form_changes_and_its_speed_is_kept() -> None:
    line = Line()
    line.ask(100)
    line.work(0.0, seconds=1.0)
    line.scheduler.resize("m", 10)
    line.ask(5, 5, 5)
    assert line.batch().texts == 2
    assert line.scheduler.form("m").pace.seconds(100) == pytest.approx(1.0)
    assert line.scheduler.form("m").batch_tokens == 10


def test_a_failed_batch_says_nothing_about_the_speed() -> None:
    line = Line()
    line.ask(100)
    line.scheduler.finished(line.batch(), 9.0, failed=True)
    assert line.scheduler.drain_s(9.0) == line.scheduler.predicted_wait_s("m", [100], 9.0) == 0


def test_after_a_crash_texts_are_computed_alone_for_a_while() -> None:
    line = Line(batch_wait_s=1.0)
    line.ask(10, 10, 10)
    line.scheduler.finished(line.batch(), 5.0, crashed=True)
    assert line.scheduler.drain_s(5.0) == 0, "the time of a crash says nothing"
    for _ in range(4):
        line.ask(10, now=5.0)
    assert [line.work(now).texts for now in (5.0, 14.9)] == [1, 1]
    assert line.work(16.0).texts == 2


def test_many_keys_leave_no_trace() -> None:
    queue = FairQueue()
    for number in range(1000):
        queue.put(Request(number=number, lane="m", lengths=(5,), key=f"key {number}"))
        assert queue.take("m", 100, 10)[1:] == (5, 1)
        assert not queue._flows
    for number in range(1000):
        queue.put(Request(number=number, lane="m", lengths=(5,), key=f"key {number}"))
        queue.put(Request(number=1000 + number, lane="n", lengths=(5, 5), key="always"))
        assert queue.take("m", 100, 10)[2] == queue.take("n", 100, 1)[2] == 1
    assert len(queue) == 500
    assert len(queue._flows) <= 66


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_every_text_is_computed_once_and_in_order(chance: random.Random, steps: int) -> None:
    line = Line(Lane(batch_tokens=40, batch_texts=5), queue_requests=1000, queue_tokens=10**9)
    asked: dict[int, Request] = {}
    cancelled: set[int] = set()
    seen: dict[int, int] = {}
    for _ in range(steps):
        if chance.random() < 0.6:
            lengths = [chance.randint(1, 60) for _ in range(chance.randint(1, 8))]
            request = line.ask(*lengths, key=chance.choice("abc"), priority=chance.randint(-2, 2))
            asked[request.number] = request
        elif chance.random() < 0.2 and asked:
            number = chance.choice(list(asked))
            cancelled |= {number} if line.scheduler.cancel(number) else set()
        else:
            follow(line, seen)
    while line.scheduler.queue.tokens:
        follow(line, seen)
    assert len(line.scheduler.queue) == 0
    for number, request in asked.items():
        if number not in cancelled:
            assert seen[number] == len(request.lengths)


def follow(line: Line, seen: dict[int, int]) -> None:
    """Compute one batch, and check that it goes on where the last one of each request ended."""
    batch = line.scheduler.next_batch(0.0)
    if not isinstance(batch, Batch):
        assert line.scheduler.queue.tokens == 0
        return
    line.scheduler.finished(batch, -1e9)
    assert batch.texts == 1 or batch.tokens <= 40
    assert 1 <= batch.texts <= 5
    for part in batch.parts:
        assert seen.get(part.request.number, 0) == part.start < part.stop
        seen[part.request.number] = part.stop


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "k"]), st.integers(1, 200)), max_size=30))
def test_who_is_admitted_at_a_glance_would_have_been_admitted_anyway(asked: list[tuple[str, str, int]]) -> None:
    scheduler = Scheduler(Limits(queue_s=math.inf))
    for lane, seconds in (("a", 0.1), ("b", 0.3)):
        pace = Pace().seen(10, seconds).seen(100, 2 * seconds)
        scheduler.add_lane(lane, Lane(batch_tokens=64, batch_texts=4, pace=pace))
    for number, (lane, key, tokens) in enumerate(asked):
        request = Request(number=number, lane=lane, lengths=(tokens,), key=key)
        predicted = scheduler.predicted_wait_s(lane, request.lengths, 0.0, flow=request.flow)
        assert predicted <= scheduler._most_s(request, 0.0) + 1e-9
        scheduler.admit(request, 0.0)
        if number % 7 == 3:
            scheduler.next_batch(0.0)
