"""The bench against workers that crash, hang and speak nonsense: each is an error with two lines, and none stays."""

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from tightrope.device.meter.bench import Bench
from tightrope.errors import BenchError, EngineError

FAKE = Path(__file__).with_name("fake_worker.py")


def fake(mischief: str = "none") -> str:
    return shlex.join([sys.executable, str(FAKE), mischief])


def test_answers_come_back_as_rows() -> None:
    with Bench(fake()) as bench:
        rows, seconds = bench.answers(["one", "two", "three"])
    assert rows.shape == (3, 2)
    assert rows[0].tolist() == pytest.approx([0.6, 0.8])
    assert seconds == 0.125


def test_goodbye_ends_the_process() -> None:
    bench = Bench(fake())
    bench.close()
    assert bench._process.returncode == 0
    with pytest.raises(BenchError, match="crashed"):
        bench.request("memory")


@pytest.mark.parametrize(
    ("mischief", "says", "hint"),
    [
        ("crash", r"crashed at 'embed': it was ended by SIGSEGV", "out of cheese"),
        ("quit", r"crashed at 'embed': it ended with code 3", "nothing on standard error"),
        ("nonsense", r"no message was sent: 'Segmentation of the corpus", "standard output"),
        ("huge", r"A line of more than 16,000,000 bytes was sent: 'xxxx", "standard output"),
        ("shout", r"ended with code 1", "last line"),
        ("short", r"crashed at 'embed'", "nothing"),
        ("greedy", r"A payload of 1000000000000000 bytes", "standard output"),
        ("odd", r"no error was sent: 'so odd'", "standard output"),
        ("misshapen", r"16 bytes to 1 inputs, as 7 rows of 4", "Update"),
    ],
)
def test_a_broken_worker_is_an_error_with_a_reason(mischief: str, says: str, hint: str) -> None:
    with Bench(fake(mischief), limit_s=20) as bench:
        with pytest.raises(BenchError, match=says) as caught:
            bench.answers(["one"])
        assert hint in caught.value.hint
        assert len(str(caught.value).splitlines()) == 2
    assert bench._process.returncode is not None


def test_a_worker_that_hangs_is_ended_with_all_it_started() -> None:
    with Bench(fake("hang"), limit_s=0.5) as bench:
        group = bench._process.pid
        with pytest.raises(BenchError, match=r"hung: it did not answer 'embed' within 0\.5 s") as caught:
            bench.answers(["one"])
    assert "thinking" in caught.value.hint
    for _ in range(100):  # the child is reaped by whoever adopted it
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        states = {p.parent.name: p.read_text().rpartition(")")[2].split() for p in Path("/proc").glob("[0-9]*/stat")}
        if all(fields[0] == "Z" for fields in states.values() if int(fields[2]) == group):
            return
        time.sleep(0.05)
    pytest.fail("something of the worker is still alive")


def test_the_workers_own_error_is_raised_as_what_it_is() -> None:
    with Bench(fake("error")) as bench:
        with pytest.raises(EngineError, match=r"It refused\.") as caught:
            bench.answers(["one"])
        assert caught.value.hint == "Ask nicely."
        assert bench.request("memory")[0]["bare"]  # an error is an answer: the conversation goes on


def test_a_login_shell_may_print_a_banner() -> None:
    with Bench(fake("banner")) as bench:
        assert bench.hello["tightrope"] == "0.0.1"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (fake("chatter"), "printed 100 lines and no greeting"),
        (fake("mute"), "crashed at 'hello': it ended with code 127"),
        (fake("version"), "speaks protocol 2, not 1"),
        ("/no/such/command --at all", "cannot be started"),
        ("'unfinished", "cannot be read"),
        ("   ", "is empty"),
    ],
)
def test_a_command_that_starts_no_worker_is_refused(command: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        Bench(command, limit_s=20)


def test_texts_that_fill_the_pipe_reach_a_worker_that_never_listens() -> None:
    deaf = shlex.join(
        [sys.executable, "-c", "import time; print('{\"tightrope_bench\": 1}', flush=True); time.sleep(60)"]
    )
    with Bench(deaf, limit_s=0.5) as bench, pytest.raises(BenchError, match="hung"):
        bench.answers(["x" * 5_000_000])
