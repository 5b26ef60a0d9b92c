"""The table of cases in README.md tells the truth: every case has tests, and every test that it names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = [*range(1, 25), *range(26, 33), *range(37, 44)]


def rows():
    """Each case and the tests that it names."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return {
        int(number): re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", rest)
        for number, rest in re.findall(r"^\| R(\d+) \|(.*)$", text, re.MULTILINE)
    }


def test_every_case_has_tests_that_are_there():
    found = rows()
    assert list(found) == CASES
    for number, named in found.items():
        assert named, f"R{number} names no test"
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}, f"{path}::{name}"
