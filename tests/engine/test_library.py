"""The library as it is shipped: what it links, what it shows, how big it is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tightrope.device import engine

HEADER = Path(__file__).parents[2] / "engine" / "include" / "tightrope.h"
ALLOWED = r"(libc|libm|libstdc\+\+|libgcc_s|libpthread|ld-linux.*|libdl)\.so\.\d+"

pytestmark = [
    pytest.mark.usefixtures("plain_build"),
    pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf: apt-get install binutils"),
]


@pytest.fixture(scope="module")
def path() -> Path:
    return Path(engine.library()._name)


def read(path: Path, what: str) -> str:
    return subprocess.run(["readelf", "--wide", what, path], capture_output=True, text=True, check=True).stdout


def test_it_links_the_runtimes_of_c_and_cpp_only(path):
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", read(path, "--dynamic"))
    assert needed and all(re.fullmatch(ALLOWED, name) for name in needed), needed


def test_it_shows_what_the_header_declares_and_nothing_else(path):
    shown = set()
    for line in read(path, "--dyn-syms").splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[4] in ("GLOBAL", "WEAK", "UNIQUE") and fields[6] != "UND":
            shown.add(fields[7].partition("@")[0])
    assert shown == set(re.findall(r"TIGHTROPE_API [^;(]*?(tightrope_\w+)\(", HEADER.read_text()))


def test_it_is_small(path):
    if ".symtab" in read(path, "--sections"):
        pytest.skip("this build keeps its symbols")
    assert path.stat().st_size <= 1 << 20


def test_its_stack_cannot_be_executed(path):
    line = next(line for line in read(path, "--program-headers").splitlines() if "GNU_STACK" in line)
    assert " RWE " not in line and " RW " in line
