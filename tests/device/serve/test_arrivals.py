"""What threads have answered reaches the loop: all of it, in one wake-up for what was settled together."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from tightrope.device.serve.arrivals import Arrivals, together


def within(work: Callable[[Arrivals], None], futures: list["Future[int]"]) -> tuple[list[object], int]:
    """What a loop gets of futures that a thread settles by `work`, and how often it was woken."""
    woken = 0

    async def main() -> list[object]:
        nonlocal woken
        loop = asyncio.get_running_loop()
        arrivals, waking = Arrivals(loop), loop.call_soon_threadsafe

        def counted(*given: object) -> asyncio.Handle:
            nonlocal woken
            woken += 1
            return waking(*given)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        waiting = [arrivals.expect(future) for future in futures]
        thread = threading.Thread(target=work, args=(arrivals,))
        thread.start()
        found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        thread.join()
        return list(found)

    return asyncio.run(main()), woken


def test_what_is_settled_together_wakes_the_loop_once() -> None:
    futures: list[Future[int]] = [Future() for _ in range(20)]

    def work(_: Arrivals) -> None:
        with together():
            for number, future in enumerate(futures):
                future.set_result(number)

    assert within(work, futures) == (list(range(20)), 1)


def test_what_is_settled_alone_arrives_as_well() -> None:
    futures: list[Future[int]] = [Future() for _ in range(200)]

    def work(_: Arrivals) -> None:
        for number, future in enumerate(futures):
            future.set_result(number)

    found, woken = within(work, futures)
    assert found == list(range(200)) and 1 <= woken <= 200


def test_errors_and_cancellations_arrive_too() -> None:
    futures: list[Future[int]] = [Future() for _ in range(3)]

    def work(_: Arrivals) -> None:
        futures[0].set_exception(ValueError("wrong"))
        futures[1].cancel()
        futures[2].set_result(2)

    found, _ = within(work, futures)
    assert [type(item) for item in found] == [ValueError, asyncio.CancelledError, int]


def test_bells_ring_although_something_went_wrong() -> None:
    futures: list[Future[int]] = [Future()]

    def work(_: Arrivals) -> None:
        with pytest.raises(KeyError), together():
            futures[0].set_result(1)
            raise KeyError

    assert within(work, futures) == ([1], 1)


def test_what_nobody_waits_for_any_more_is_let_go() -> None:
    async def main() -> None:
        arrivals = Arrivals(asyncio.get_running_loop())
        future: Future[int] = Future()
        waiting = arrivals.expect(future)
        waiting.cancel()
        future.set_result(1)
        await asyncio.sleep(0.01)
        assert waiting.cancelled() and future.result() == 1

    asyncio.run(main())


def test_a_loop_that_has_ended_is_not_woken() -> None:
    future: Future[int] = Future()

    async def main() -> None:
        Arrivals(asyncio.get_running_loop()).expect(future)

    asyncio.run(main())
    future.set_result(1)
