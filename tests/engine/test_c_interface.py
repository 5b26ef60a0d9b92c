"""The C interface as programs in C meet it: every wrong argument is a status and two lines, never a crash."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tightrope.device import engine

ARGUMENT, FORMAT, FILE, UNSUPPORTED, CLOSED, MEMORY = range(1, 7)
SIZE_MAX = ctypes.c_size_t(-1).value


class Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_uint32),
        ("pinned", ctypes.c_uint32),
        ("half_attention", ctypes.c_uint32),
    )


class Description(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_uint32) for name in ("width", "max_length", "vocabulary", "types", "scores", "tokenizes")),
    )


@pytest.fixture(scope="module")
def lib():
    """The library with all its functions' types."""
    lib = engine.library()
    pointer, size, model = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    lib.tightrope_open.argtypes = (ctypes.c_char_p, pointer, pointer)
    for name in ("tightrope_embed", "tightrope_score"):
        getattr(lib, name).argtypes = (model, ctypes.POINTER(ctypes.c_char_p), pointer, size, pointer, pointer)
    return lib


@pytest.fixture
def handle(lib, file_of):
    """`handle(form)`: an open model, closed at the end."""
    handles = []

    def open_one(form: str = "rotated", options: Options | None = None) -> int:
        found = ctypes.c_uint64()
        given = None if options is None else ctypes.byref(options)
        assert lib.tightrope_open(os.fsencode(file_of(form)), given, ctypes.byref(found)) == 0, last(lib)
        handles.append(found.value)
        return found.value

    yield open_one
    for model in handles:
        lib.tightrope_close(model)


def last(lib) -> str:
    return lib.tightrope_last_error().decode()


def refused(lib, status: int, expected: int, *words: str) -> None:
    what, hint = last(lib).splitlines()
    assert status == expected and what and hint, (status, what, hint)
    assert all(word in what for word in words), what


def texts(*items: bytes | None):
    return (ctypes.c_char_p * len(items))(*items)


def test_texts_become_the_same_rows_as_ids(lib, handle):
    model, given = handle(), (b"the cat sat", b"", "é 漢字".encode())
    out, cut = np.empty((3, 32), np.float32), ctypes.c_size_t(9)
    assert lib.tightrope_embed(model, texts(*given), None, 3, out.ctypes.data, ctypes.byref(cut)) == 0
    assert cut.value == 0 and np.allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
    ids, offsets = np.empty(64, np.int32), np.empty(4, np.int64)
    status = lib.tightrope_tokenize(
        model, texts(*given), None, 3, 0, 64, ids.ctypes.data, None, 64, offsets.ctypes.data, None
    )
    again = np.empty_like(out)
    assert status == 0 and offsets[0] == 0 and offsets[2] - offsets[1] == 2
    assert lib.tightrope_run(model, ids.ctypes.data, None, offsets.ctypes.data, 3, again.ctypes.data) == 0
    assert again.tobytes() == out.tobytes()


def test_pairs_become_scores(lib, handle):
    model, out = handle("scorer"), np.empty((2, 1), np.float32)
    given = texts(b"the cat", b"sat", b"a", b"the cat sat")
    assert lib.tightrope_score(model, given, None, 2, out.ctypes.data, None) == 0
    assert ((out > 0) & (out < 1)).all()
    refused(lib, lib.tightrope_embed(model, given, None, 4, out.ctypes.data, None), ARGUMENT, "scores pairs")
    refused(lib, lib.tightrope_score(handle(), given, None, 2, out.ctypes.data, None), ARGUMENT, "does not score")


def test_sizes_tell_where_a_text_ends(lib, handle):
    model, out = handle(), np.empty((2, 32), np.float32)
    sizes = (ctypes.c_size_t * 2)(3, 3)
    assert lib.tightrope_embed(model, texts(b"the cat", b"the"), sizes, 2, out.ctypes.data, None) == 0
    assert out[0].tobytes() == out[1].tobytes()
    sizes = (ctypes.c_size_t * 2)(7, 6)
    assert lib.tightrope_embed(model, texts(b"the\0cat", b"thecat"), sizes, 2, out.ctypes.data, None) == 0
    assert out[0].tobytes() == out[1].tobytes()  # zero bytes are removed as control characters


def test_a_long_text_is_cut_and_counted(lib, handle):
    model, out, cut = handle(), np.empty((2, 32), np.float32), ctypes.c_size_t()
    given = texts(b"the " * 1000, b"the")
    assert lib.tightrope_embed(model, given, None, 2, out.ctypes.data, ctypes.byref(cut)) == 0 and cut.value == 1


@pytest.mark.parametrize("bad", [b"\xff", b"the \xc3", b"\xed\xa0\x80", b"\xc0\x80", b"a\x80", b"\xf4\x90\x80\x80"])
def test_invalid_utf_8_is_refused(lib, handle, bad):
    out = np.empty((2, 32), np.float32)
    refused(lib, lib.tightrope_embed(handle(), texts(b"the", bad), None, 2, out.ctypes.data, None), ARGUMENT, "UTF-8")
    ids, offsets = np.empty(64, np.int32), np.zeros(3, np.int64)
    status = lib.tightrope_tokenize(
        handle(), texts(b"the", bad), None, 2, 0, 64, ids.ctypes.data, None, 64, offsets.ctypes.data, None
    )
    refused(lib, status, ARGUMENT, "UTF-8")


def test_null_pointers_are_refused(lib, handle):
    model, out = handle(), np.empty((1, 32), np.float32)
    to, one = out.ctypes.data, texts(b"the")
    offsets, ids = np.array([0, 1]), np.ones(1, np.int32)
    at, of = offsets.ctypes.data, ids.ctypes.data
    for status in (
        lib.tightrope_open(None, None, ctypes.byref(ctypes.c_uint64())),
        lib.tightrope_open(b"/dev/null", None, None),
        lib.tightrope_open_descriptor(0, None, None),
        lib.tightrope_describe(model, None),
        lib.tightrope_embed(model, None, None, 1, to, None),
        lib.tightrope_embed(model, texts(None), None, 1, to, None),
        lib.tightrope_embed(model, one, None, 1, None, None),
        lib.tightrope_run(model, None, None, at, 1, to),
        lib.tightrope_run(model, of, None, None, 1, to),
        lib.tightrope_run(model, of, None, at, 1, None),
        lib.tightrope_tokenize(model, None, None, 1, 0, 64, of, None, 1, at, None),
        lib.tightrope_tokenize(model, one, None, 1, 0, 64, None, None, 1, at, None),
        lib.tightrope_tokenize(model, one, None, 1, 0, 64, of, None, 1, None, None),
    ):
        refused(lib, status, ARGUMENT)


def test_nothing_is_asked_of_no_texts(lib, handle):
    model, offsets = handle(), np.full(1, 7)
    assert lib.tightrope_embed(model, None, None, 0, None, None) == 0
    assert lib.tightrope_run(model, None, None, None, 0, None) == 0
    assert lib.tightrope_tokenize(model, None, None, 0, 1, 64, None, None, 0, offsets.ctypes.data, None) == 0
    assert offsets[0] == 0


def test_absurd_counts_are_refused(lib, handle):
    model, out = handle("scorer"), np.empty((1, 1), np.float32)
    for count in (SIZE_MAX, SIZE_MAX // 2 + 2, 1 << 60):
        refused(lib, lib.tightrope_score(model, texts(b"the"), None, count, out.ctypes.data, None), ARGUMENT)


def test_too_little_room_says_how_much_is_needed(lib, handle):
    model, ids, offsets = handle(), np.full(3, -7, np.int32), np.full(2, -7)
    tokenize = lib.tightrope_tokenize
    args = (ids.ctypes.data, None, 3, offsets.ctypes.data, None)
    refused(lib, tokenize(model, texts(b"the cat"), None, 1, 0, 64, *args), MEMORY, "room for 3 tokens of 4")
    assert offsets.tolist() == [-7, 4] and (ids == -7).all()
    refused(lib, tokenize(model, texts(b"the cat"), None, 1, 0, 1, *args), ARGUMENT)
    refused(lib, tokenize(model, texts(b"the", b"cat"), None, 1, 1, 2, *args), ARGUMENT)


@pytest.mark.parametrize("size", [0, 8, 20, 40, SIZE_MAX])
def test_structures_of_another_size_are_refused(lib, handle, file_of, size):
    model, path = ctypes.c_uint64(5), os.fsencode(file_of("rotated"))
    status = lib.tightrope_open(path, ctypes.byref(Options(size, 1)), ctypes.byref(model))
    refused(lib, status, ARGUMENT, "another version")
    assert model.value == 0
    about = Description(size)
    refused(lib, lib.tightrope_describe(handle(), ctypes.byref(about)), ARGUMENT, "another version")


def test_a_description_says_what_the_file_holds(lib, handle):
    about = Description(ctypes.sizeof(Description))
    assert lib.tightrope_describe(handle("scorer"), ctypes.byref(about)) == 0
    found = [getattr(about, name) for name, _ in Description._fields_[1:]]
    assert found == [1, 64, 60, 2, 1, 1]


def test_a_handle_that_was_closed_is_recognised(lib, handle):
    out, one = np.empty((1, 32), np.float32), texts(b"the")
    closed = handle()
    assert lib.tightrope_close(closed) == 0
    other = handle()
    for stale in (closed, 0, other + 1, 2**64 - 1):
        refused(lib, lib.tightrope_embed(stale, one, None, 1, out.ctypes.data, None), CLOSED)
        refused(lib, lib.tightrope_close(stale), CLOSED)
    assert lib.tightrope_embed(other, one, None, 1, out.ctypes.data, None) == 0


def test_a_path_that_cannot_be_opened_is_named(lib, tmp_path):
    model = ctypes.c_uint64(5)
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    for path, words in ((tmp_path / "none", "none cannot be opened"), (tmp_path, "not a file"), (fifo, "not a file")):
        status = lib.tightrope_open(os.fsencode(path), None, ctypes.byref(model))
        refused(lib, status, FILE, words)
    refused(lib, lib.tightrope_open_descriptor(-1, None, ctypes.byref(model)), FILE)
    (tmp_path / "empty").touch()
    refused(lib, lib.tightrope_open(os.fsencode(tmp_path / "empty"), None, ctypes.byref(model)), FORMAT, "empty")
    assert model.value == 0


def test_each_thread_has_an_error_of_its_own(lib, tmp_path):
    model, seen = ctypes.c_uint64(), []
    assert lib.tightrope_open(os.fsencode(tmp_path / "mine"), None, ctypes.byref(model)) == FILE
    thread = threading.Thread(target=lambda: seen.append(last(lib)))
    thread.start()
    thread.join()
    assert seen == [""] and "mine" in last(lib)


def test_pinned_threads_give_the_same_answers(lib, handle):
    out = np.empty((2, 32, 32), np.float32)
    given = texts(*[b"the cat sat " * 5] * 32)
    for pinned in (0, 1):
        model = handle(options=Options(ctypes.sizeof(Options), 3, pinned))
        assert lib.tightrope_embed(model, given, None, 32, out[pinned].ctypes.data, None) == 0
    assert out[0].tobytes() == out[1].tobytes()


UNLOADED = """
import _ctypes, ctypes, sys
lib = ctypes.CDLL(sys.argv[1])
print(lib.tightrope_open(b"/", None, None))
_ctypes.dlclose(lib._handle)
"""


def test_the_library_can_be_unloaded(lib):
    done = subprocess.run([sys.executable, "-c", UNLOADED, lib._name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
