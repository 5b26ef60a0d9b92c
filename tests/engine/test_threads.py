"""Threads: many at once, none when idle, the interpreter's lock let go, models closed under way, forks."""

import threading
import time

import numpy as np
import pytest

from tightrope.device import engine
from tightrope.errors import DataError, EngineError

LENGTHS = (5, 64, 17, 1, 33, 8)


def test_a_hundred_threads_are_answered_right(file_of, opened, rows):
    texts = rows(LENGTHS)
    model = opened(file_of("rotated"), threads=2)
    expected, wrong = texts.answers(model).tobytes(), []
    start = threading.Barrier(100)

    def ask() -> None:
        start.wait()
        for _ in range(20):
            if texts.answers(model).tobytes() != expected:
                wrong.append(threading.get_ident())

    crowd = [threading.Thread(target=ask) for _ in range(100)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not wrong


def test_many_models_at_once_are_answered_right(file_of, rows):
    texts = rows(LENGTHS)

    def ask(form: str, found: dict[str, bytes]) -> None:
        for _ in range(30):
            with engine.Model.open(file_of(form), threads=3) as model:
                found[form] = texts.answers(model).tobytes()

    forms, found, alone = ("integers", "floats", "nibbles", "pruned"), dict[str, bytes](), dict[str, bytes]()
    for form in forms:
        ask(form, alone)
    crowd = [threading.Thread(target=ask, args=(form, found)) for form in forms]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert found == alone


@pytest.mark.usefixtures("plain_build")
def test_no_thread_runs_when_idle(file_of, opened, rows):
    model, texts = opened(file_of("integers"), threads=3), rows((64,) * 8)
    texts.answers(model)
    time.sleep(0.05)  # a helper looks for more work for some microseconds
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.02


def test_other_threads_go_on_meanwhile(file_of, opened, rows):
    model, texts = opened(file_of("floats")), rows((64,) * 3000)
    caller = threading.Thread(target=texts.answers, args=(model,))
    caller.start()
    steps = 0
    while caller.is_alive():
        time.sleep(0.001)
        steps += 1
    assert steps >= 20  # one if the lock were held from the call to its end


@pytest.mark.parametrize("threads", [1, 3])
def test_a_model_may_be_closed_during_a_call(file_of, rows, threads):
    texts = rows((64, 33) * 8)
    for attempt in range(10):
        model = engine.Model.open(file_of("integers"), threads=threads)
        expected, ends = texts.answers(model).tobytes(), []

        def ask(model: engine.Model = model, expected: bytes = expected, ends: list[str] = ends) -> None:
            try:
                while texts.answers(model).tobytes() == expected:
                    pass
                ends.append("another answer")
            except EngineError as error:
                ends.append(error.message)

        crowd = [threading.Thread(target=ask) for _ in range(3)]
        for thread in crowd:
            thread.start()
        time.sleep(0.002 * attempt)
        model.close()
        for thread in crowd:
            thread.join(timeout=60)
        assert ends == ["The model is closed."] * 3
        model.close()


FORK = """
import os, sys
from pathlib import Path
import numpy as np
from tightrope.device import engine
model = engine.Model.open(Path(sys.argv[1]), threads=int(sys.argv[2]))
ids, offsets = np.arange(512, dtype=np.int32) % 60, np.arange(0, 513, 64)
before = model.run(ids, offsets).tobytes()
child = os.fork()
same = model.run(ids, offsets).tobytes() == before
if child == 0:
    again = engine.Model.open(Path(sys.argv[1]), threads=2)
    same = same and again.run(ids, offsets).tobytes() == before
    model.close()
    again.close()
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
same = same and model.run(ids, offsets).tobytes() == before
model.close()
sys.exit(status or not same)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_parent_and_child_answer_right_after_a_fork(child, file_of, threads):
    done = child(FORK, file_of("rotated"), threads)
    assert done.returncode == 0, done.stderr


FORKS = """
import os, sys, threading
from pathlib import Path
import numpy as np
from tightrope.device import engine
path = Path(sys.argv[1])
model = engine.Model.open(path, threads=2)
ids, offsets = np.arange(2, 5, dtype=np.int32), np.array([0, 3])
before = model.run(ids, offsets).tobytes()
ends = threading.Event()
def work():
    while not ends.is_set():
        model.run(ids, offsets)
        engine.Model.open(path).close()
crowd = [threading.Thread(target=work) for _ in range(4)]
for thread in crowd:
    thread.start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(0 if model.run(ids, offsets).tobytes() == before else 1)
    assert os.waitpid(child, 0)[1] == 0
ends.set()
"""
"""Forks while other threads are in the engine: no lock of theirs is left in a child, which would wait for ever."""


def test_a_fork_in_the_midst_of_work_leaves_no_lock_behind(child, file_of):
    done = child(FORKS, file_of("integers"))
    assert done.returncode == 0, done.stderr


NO_ROOM = """
import resource, sys
from pathlib import Path
from tightrope.device import engine
from tightrope.errors import EngineError
engine.library()
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
try:
    engine.Model.open(Path(sys.argv[1]), threads=64)
except EngineError as error:
    print(error)
engine.Model.open(Path(sys.argv[1]), threads=1).close()
"""


@pytest.mark.usefixtures("plain_build")
def test_threads_that_the_system_refuses_are_an_error(child, file_of):
    done = child(NO_ROOM, file_of("integers"))
    assert done.returncode == 0, done.stderr
    what, hint = done.stdout.splitlines()
    assert "refused" in what and "fewer threads" in hint


# What the engine is asked that it cannot answer -----------------------------------------------------------


def test_no_rows_are_no_answers(form, file_of, opened):
    model = opened(file_of(form), threads=2)
    found = model.run(np.zeros(0, np.int32), np.zeros(1, np.int64))
    assert found.shape == (0, model.width)


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [
        ([1, 60], [0, 2], "There is no token 60; ids go from 0 to 59."),
        ([-1, 2], [0, 2], "There is no token -1"),
        ([2**31 - 1], [0, 1], "There is no token 2147483647"),
        ([1] * 65, [0, 65], "Row 0 has 65 tokens; the model reads 1 to 64."),
        ([1, 2], [0, 2, 2], "Row 1 has 0 tokens"),
        ([1, 2, 3], [0, 3, 1, 3], "The offsets go down at row 1."),
        ([1, 2], [0, -2, 2], "The offsets go down at row 0."),
        ([1, 2], [1, 2], "The first offset is 1, not 0."),
        ([1, 2], [-1, 2], "The first offset is -1, not 0."),
        ([1, 2], [0, 3], "2 ids do not fit their offsets."),
        ([1, 2], [], "2 ids do not fit their offsets."),
    ],
)
def test_what_the_model_does_not_have_is_refused(file_of, opened, ids, offsets, message):
    model = opened(file_of("integers"), threads=2)
    with pytest.raises(DataError, match=message.replace(".", r"\.")) as caught:
        model.run(np.array(ids, np.int32), np.array(offsets, np.int64))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("kind", [-1, 2, 2**31 - 1])
def test_token_types_out_of_range_are_refused(file_of, opened, kind):
    model = opened(file_of("scorer"))
    ids, offsets = np.ones(3, np.int32), np.array([0, 3])
    assert model.run(ids, offsets).tobytes() == model.run(ids, offsets, ids * 0).tobytes()
    with pytest.raises(DataError, match=f"There is no token type {kind}; the model has 2"):
        model.run(ids, offsets, np.full(3, kind, np.int32))
    with pytest.raises(DataError, match="do not fit"):
        model.run(ids, offsets, ids[:2])


def test_more_threads_than_anybody_has_are_refused(file_of):
    with pytest.raises(DataError, match="1025 threads are more than 1024"):
        engine.Model.open(file_of("integers"), threads=1025)
