"""What holds for the doctests in src as well as for the tests."""

import sys
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module of an engine that is not installed is not left behind half-imported, which pytest does in this mode."""
    report = yield
    if report.skipped:
        for name, module in list(sys.modules.items()):
            if getattr(module, "__file__", None) == str(collector.path):
                del sys.modules[name]
                package, _, own = name.rpartition(".")
                if package in sys.modules:
                    vars(sys.modules[package]).pop(own, None)
    return report
