"""What importing costs, and what is public."""

import subprocess
import sys

import pytest

import tightrope


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_the_standard_library_only() -> None:
    extra = {name.partition(".")[0] for name in modules_after("import tightrope") - modules_after("pass")}
    assert extra - {"tightrope"} <= set(sys.stdlib_module_names)


def test_the_device_side_loads_neither_torch_nor_onnx() -> None:
    loaded = modules_after(
        "import tightrope; tightrope.open; import tightrope.device.proof, tightrope.device.meter.worker"
    )
    assert not loaded & {"torch", "onnx", "rich", "safetensors", "transformers", "tightrope.workshop"}


def test_the_public_names() -> None:
    assert sorted(tightrope.__all__) == dir(tightrope) == ["__version__", "compress", "fit", "open", "serve"]
    with pytest.raises(AttributeError):
        _ = tightrope.nothing
