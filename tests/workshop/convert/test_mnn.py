"""MNN: its converter is called without what surrounds it, and stores our codes instead of its own."""

import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from tightrope.errors import UnsupportedError
from tightrope.workshop.converted import convert
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.reference import opened, reference

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _mnn(need_engine):
    need_engine("mnn")


CONFINED = """
import ctypes, struct, sys
forbidden = {"socket": 41, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322}
rules = [(0x20, 0, 0, 0)]
rules += [(0x15, len(forbidden) - index, 0, number) for index, number in enumerate(forbidden.values())]
rules += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x80000000)]
program = b"".join(struct.pack("<HBBI", *rule) for rule in rules)
held = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
filter = struct.pack("<HxxxxxxQ", len(rules), ctypes.addressof(held))
if libc.prctl(22, 2, filter, 0, 0):
    sys.exit(77)
if sys.argv[1:] == ["socket"]:
    import socket
    socket.socket()
import tempfile
from pathlib import Path
import numpy as np
from onnx import helper
from tightrope import plugins
from tightrope.workshop.converted import convert
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
ports = [helper.make_tensor_value_info(name, 1, ["rows", 8]) for name in "xy"]
proto = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), ir_version=10,
                          opset_imports=[helper.make_opsetid("", 21)])
graph = Graph(proto=proto, weights={"w": np.eye(8, dtype=np.float32)}, senses=TextSenses(tokenizer=b"", max_length=8),
              task=Task(name="embedding", width=8), origin="0" * 64, digest="0" * 64)
found = convert(graph, "mnn")
with tempfile.TemporaryDirectory() as folder:
    session = plugins.load("runtimes", "mnn").open_artefact(found.write(Path(folder)), found.settings, threads=1)
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    assert np.allclose(session.run({"x": x})["y"], x)
assert not [name for name in sys.modules if name.startswith("MNN.tools") or "aliyun" in name]
print("done")
"""


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="confines itself by the system calls' numbers"
)
def test_converting_and_running_start_no_process_and_open_no_socket():
    """The kernel ends a process at once that tries; that it does is tried too."""

    def confined(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CONFINED, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    caught = confined("socket")
    if caught.returncode == 77:
        pytest.skip("this system does not let a process confine itself")
    assert caught.returncode < 0
    done = confined()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


def test_a_file_of_the_converters_own_in_the_current_folder_is_neither_read_nor_written(
    tiny_bert, tmp_path, monkeypatch
):
    """Two conversions in one folder mixed up their weights there."""
    alone = convert(tiny_bert, "mnn").files
    monkeypatch.chdir(tmp_path)
    other = tmp_path / ".__convert_external_data.bin"
    other.write_bytes(b"the weights of another model")
    assert convert(tiny_bert, "mnn").files == alone
    assert other.read_bytes() == b"the weights of another model"
    assert list(tmp_path.iterdir()) == [other]


def test_the_codes_stored_are_ours(tiny_bert):
    name = "encoder.layer.0.output.dense.weight"
    weight = round_to_nearest(tiny_bert.weights[name], bits=8, block=None, symmetric=True)
    weight = replace(weight, scale=weight.scale * np.float32(1.1))  # its own rule would find other scales
    found = convert(tiny_bert.rewrite(weights={name: weight}), "mnn")
    assert weight.codes.tobytes() + weight.scale.tobytes() in found.files["weights"][1]
    assert list(found.approximations) == ["encoder.layer.0.output.dense"]
    assert not found.floats


def test_blocks_that_are_not_whole_stay_in_float_and_are_named(tiny_bert):
    name = "encoder.layer.0.output.dense.weight"
    weight = round_to_nearest(tiny_bert.weights[name], bits=8, block=48, symmetric=True)
    found = convert(tiny_bert.rewrite(weights={name: weight}), "mnn")
    assert "blocks of 48" in found.floats["encoder.layer.0.output.dense"]


def test_convolutions(cnn, answers_of):
    x = {"image": np.random.default_rng(1).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}
    expected = opened(reference(cnn), threads=1).run(None, x)[0]
    assert np.abs(answers_of(convert(cnn, "mnn"), x) - expected).max() <= 1e-5


def test_convolutions_with_codes(coded_cnn, answers_of):
    x = {"image": np.random.default_rng(1).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}
    expected = opened(reference(coded_cnn), threads=1).run(None, x)[0]
    found = convert(coded_cnn, "mnn")
    assert np.abs(answers_of(found, x) - expected).max() <= 1e-5
    assert found.precision == "wint8"
    # a batch norm behind a convolution is merged into its weights
    assert set(found.floats) <= {"stem"}
    assert {"depthwise", "pointwise", "grouped", "head"} <= set(found.approximations)


def test_what_it_cannot_read_is_refused_in_two_lines(cnn):
    proto = type(cnn.proto)()
    proto.CopyFrom(cnn.proto)
    for node in proto.graph.node:
        if node.op_type == "HardSwish":
            node.CopyFrom(helper.make_node("Hardmax", node.input, node.output, name=node.name))
    with pytest.raises(UnsupportedError, match="Hardmax") as caught:
        convert(replace(cnn, proto=proto), "mnn")
    assert len(str(caught.value).splitlines()) == 2


def test_nothing_reaches_the_standard_output(cnn, answers_of, capfd):
    answers_of(convert(cnn, "mnn"), {"image": np.zeros((1, 3, 16, 16), np.float32)})
    assert capfd.readouterr().out == ""
