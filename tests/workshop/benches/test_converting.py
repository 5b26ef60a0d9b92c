"""Converters in a process of their own: what they give arrives whole; what they do to themselves stays there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tightrope.errors import BenchError, EngineError, MissingExtraError, UnknownNameError, UnsupportedError
from tightrope.workshop.benches.converting import Converters
from tightrope.workshop.converted import convert
from tightrope.workshop.network import Network, lower

pytestmark = pytest.mark.engine

CONVERTER = """
import ctypes, os, signal, sys, time
from dataclasses import replace
from tightrope.errors import UnsupportedError
from toy import converter
{top}
def convert(model):
    made = replace(converter.convert(model), engine={name!r})
    {act}
    return made
"""
RUNTIME = "from toy.runtime import executed, open_artefact, version\n"
ACTS = {
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "null": "ctypes.string_at(0)",
    "ends": "os._exit(0)",
    "leaves": "raise SystemExit(0)",
    "fails": "os._exit(3)",
    "hang": "time.sleep(3600)",
    "nothing": "return None",
    "empty": "return replace(made, files={'model': ('onnx', b'')})",
    "raises": "raise ValueError('boom\\nand more')",
    "memory": "raise MemoryError",
    "refuses": "raise UnsupportedError('encoder.layer.0 has an Einsum.', hint='Take another engine.')",
    "noisy": "print('{\"verb\": 1}\\n' * 3); os.write(1, b'\\0\\xff garbage\\n'); sys.stdin.read()",
}
TOPS = {
    "import_crash": "os.kill(os.getpid(), signal.SIGKILL)",
    "import_missing": "import engine_that_is_not_here",
    "import_noise": "print('welcome'); print('to the tools', file=sys.stderr)",
}


@pytest.fixture
def converters(
    tmp_path: Path, toy_engine: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Converters]:
    """Converters that know an engine for each fault, with a short limit."""
    engines = {name: CONVERTER.format(name=name, top="", act=act) for name, act in ACTS.items()}
    engines |= {name: CONVERTER.format(name=name, top=top, act="pass") for name, top in TOPS.items()}
    environment = toy_engine(tmp_path, {name: (source, RUNTIME) for name, source in engines.items()})
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    with Converters(limit_s=30) as found:
        yield found


@pytest.mark.parametrize("engine", ["onnxruntime", "native"])
def test_what_is_converted_apart_is_what_is_converted_here(converters: Converters, tiny_bert: Network, engine: str):
    assert converters.convert(tiny_bert, engine) == convert(tiny_bert, engine)


def test_a_graph_is_refused_before_it_is_sent(converters: Converters, tiny_bert: Network) -> None:
    assert not converters.takes("native", lower(tiny_bert))
    with pytest.raises(UnsupportedError, match="known family"):
        converters.convert(lower(tiny_bert), "native")
    assert converters.takes("onnxruntime", lower(tiny_bert))


@pytest.mark.parametrize(
    ("engine", "error", "said"),
    [
        ("crash", BenchError, "The converter of crash crashed at 'convert': it was ended by SIGSEGV"),
        ("null", BenchError, "it was ended by SIGSEGV"),
        ("ends", BenchError, "it ended with code 0"),
        ("leaves", BenchError, "it ended with code 0"),
        ("fails", BenchError, "it ended with code 3"),
        ("nothing", EngineError, "The converter of nothing gave no output"),
        ("empty", EngineError, "The converter of empty gave no output"),
        ("raises", BenchError, "ValueError: boom"),
        ("memory", BenchError, "MemoryError"),
        ("refuses", UnsupportedError, "encoder.layer.0 has an Einsum"),
        ("import_crash", BenchError, "it was ended by SIGKILL"),
    ],
)
def test_a_fault_is_an_error_and_the_next_one_is_served(
    converters: Converters, tiny_bert: Network, engine: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        converters.convert(tiny_bert, engine)
    assert converters.convert(tiny_bert, "toy").files["model"][1]


def test_a_converter_that_hangs_is_ended(converters: Converters, tiny_bert: Network) -> None:
    assert converters.version("hang")
    converters.limit_s = 1.0
    with pytest.raises(BenchError, match="hung: it did not answer 'convert' within 1 s"):
        converters.convert(tiny_bert, "hang")
    converters.limit_s = 30.0
    assert converters.convert(tiny_bert, "toy").engine == "toy"


@pytest.mark.parametrize("engine", ["noisy", "import_noise"])
def test_what_a_converter_prints_is_no_answer(converters: Converters, tiny_bert: Network, engine: str) -> None:
    assert converters.convert(tiny_bert, engine).files == converters.convert(tiny_bert, "toy").files


def test_what_is_missing_says_how_to_get_it(converters: Converters) -> None:
    with pytest.raises(MissingExtraError, match="needs engine_that_is_not_here"):
        converters.about("import_missing")
    with pytest.raises(UnknownNameError, match="unheard"):
        converters.about("unheard")
