"""A machine as it describes itself, on systems that are not at hand."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tightrope.device import machine

X86 = """processor\t: 0
model name\t: Some Processor @ 3.00GHz
flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni avx_vnni avx512_bf16 hypervisor
"""
RASPBERRY = """processor\t: 3
Features\t: fp asimd evtstrm aes asimdrdm asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def root_with(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_an_x86_machine(tmp_path: Path) -> None:
    root = root_with(tmp_path, proc__cpuinfo=X86, proc__meminfo="MemTotal:  8000 kB\n")
    found = machine.this_machine(root)
    assert found.processor == "Some Processor @ 3.00GHz"
    assert found.isa == ("avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "sse4_2")
    assert found.memory_bytes == 8000 * 1024


def test_an_arm_board(tmp_path: Path) -> None:
    found = machine.this_machine(root_with(tmp_path, proc__cpuinfo=RASPBERRY))
    assert found.processor == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert found.isa == ("dotprod", "neon")


def test_another_makers_part_number_is_not_taken_for_arms(tmp_path: Path) -> None:
    text = RASPBERRY.replace("0x41", "0x48")
    assert machine.this_machine(root_with(tmp_path, proc__cpuinfo=text)).processor == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_control_group_limits_the_memory(tmp_path: Path) -> None:
    files = {"proc__meminfo": "MemTotal:  8000 kB\n", "sys__fs__cgroup__memory.max": "1000000\n"}
    assert machine.this_machine(root_with(tmp_path, **files)).memory_bytes == 1_000_000
    files["sys__fs__cgroup__memory.max"] = "max\n"
    assert machine.this_machine(root_with(tmp_path, **files)).memory_bytes == 8000 * 1024


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    found = machine.this_machine(tmp_path)
    assert found.processor
    assert found.cores >= 1
    assert found.architecture == machine.architecture(platform.machine())


def test_the_quietest_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_cores", lambda: (0, 1, 2))
    stat = "cpu  9 9 9 9 9\ncpu0 5 0 5 100 0 0\ncpu1 5 0 5 100 5 0\ncpu2 5 0 5 100 0 0\n"
    root = root_with(tmp_path, proc__stat=stat)

    def after(text: str) -> tuple[int, ...]:
        root_with(tmp_path, proc__stat=stat)
        return machine.quietest_cores(1, root, lambda: root_with(tmp_path, proc__stat=text) and None)

    assert after(stat.replace("cpu1 5 0 5 100 5", "cpu1 5 0 5 109 5")) == (1,)
    assert after(stat) == (2,)  # a tie: not the first, which serves interrupts
    assert machine.quietest_cores(3, root, lambda: None) == (0, 1, 2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_pinning_reaches_threads_that_exist_already() -> None:
    core = machine.allowed_cores()[0]
    code = f"""
import os, threading
from tightrope.device.machine import pin
started, done, seen = threading.Event(), threading.Event(), []
def body():
    started.set(); done.wait(); seen.append(os.sched_getaffinity(0))
thread = threading.Thread(target=body); thread.start(); started.wait()
assert pin(({core},)); done.set(); thread.join()
assert seen == [{{{core}}}], seen
assert not pin(())
assert not pin((60000,))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
