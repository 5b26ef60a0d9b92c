"""What a converter hands back, and which models it takes."""

import hashlib

import pytest

from tightrope.workshop.converted import Converted, file_name, takes
from tightrope.workshop.network import Network, lower

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(("engine", "graphs"), [("native", False), ("onnxruntime", True)])
def test_an_engine_takes_networks_and_some_take_graphs(tiny_bert: Network, engine: str, graphs: bool) -> None:
    assert takes(engine, tiny_bert)
    assert takes(engine, lower(tiny_bert)) == graphs


def test_files_are_named_by_their_content(tmp_path) -> None:
    converted = Converted(
        engine="e", engine_version="1", precision="fp32", files={"model": ("bin", b"abc")}, inputs=(), outputs=()
    )
    (path,) = converted.write(tmp_path).values()
    assert path.name == file_name(b"abc", "bin") == f"{hashlib.sha256(b'abc').hexdigest()[:16]}.bin"
    assert path.read_bytes() == b"abc"
