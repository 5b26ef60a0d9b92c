"""Memory is what the system counts."""

import mmap
import sys
from pathlib import Path

import pytest

from tightrope.device.meter import memory

STATUS = "Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nThreads:\t1\n"


def test_linux_tells_peak_now_and_the_fair_share(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "smaps_rollup").write_text("55e0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 200 kB\nPss:  150 kB\n")
    found = memory.read(tmp_path)
    assert found == memory.Memory(peak_bytes=300 * 1024, resident_bytes=200 * 1024, shared_fairly_bytes=150 * 1024)
    assert memory.resident_bytes(tmp_path) == 200 * 1024


def test_a_system_without_proc_tells_the_peak_at_most(tmp_path: Path) -> None:
    found = memory.read(tmp_path)
    assert found.resident_bytes is None
    assert memory.resident_bytes(tmp_path) is None
    assert found.shared_fairly_bytes is None
    assert found.peak_bytes is None or found.peak_bytes > 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_is_touched_is_counted() -> None:
    before = memory.read()
    block = mmap.mmap(-1, 40_000_000)  # pages of its own: an allocator may hand out ones that were touched before
    block.write(b"1" * 40_000_000)
    after = memory.read()
    assert before.resident_bytes is not None and after.resident_bytes is not None and after.peak_bytes is not None
    assert after.resident_bytes - before.resident_bytes > 35_000_000
    assert after.peak_bytes >= after.resident_bytes
    block.close()
