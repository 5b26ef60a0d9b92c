"""Numpy is held to one thread while recipes are made, and set free afterwards."""

import pytest

from tightrope.workshop.network import Network
from tightrope.workshop.search import blas
from tightrope.workshop.search.laboratory import Laboratory
from tightrope.workshop.search.question import ask_about


@pytest.fixture
def get():
    """What reads the number of threads, after two were asked for."""
    found = blas.threads()
    if found is None:
        pytest.skip("numpy brings no OpenBLAS here")
    get, put = found
    before = get()
    put(2)
    yield get
    put(before)


def test_one_thread_and_what_was_before_again(get) -> None:
    wanted = get()
    with blas.one_thread():
        assert get() == 1
    assert get() == wanted
    with pytest.raises(ZeroDivisionError), blas.one_thread():
        _ = 1 / 0
    assert get() == wanted


def test_a_laboratory_works_on_one_thread(get, tiny_bert: Network) -> None:
    wanted = get()
    with Laboratory.of("tiny", tiny_bert, ask_about(("en",), None, None, None)):
        assert get() == 1
    assert get() == wanted


def test_where_there_is_no_openblas_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "threads", lambda: None)
    with blas.one_thread():
        pass
