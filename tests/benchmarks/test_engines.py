"""The tables of the page on engines are those of the stored comparisons."""

from dataclasses import replace

import pytest

from benchmarks import engines
from tightrope.errors import DataError
from tightrope.workshop.comparison.outcome import Cell
from tightrope.workshop.report.run_file import read_comparison


def test_the_page_says_what_is_stored() -> None:
    assert engines.write(check=True)


def test_a_table_has_every_success_and_every_failure() -> None:
    found = read_comparison(engines.TEXTS)
    lost = Cell(engine=found.engines[0].name, precision="int4", state="failed", reason="It hung | for ever.")
    more = replace(found, cells=(*found.cells, lost))
    rows = engines.block("engines", more).splitlines()
    assert rows[0] == "<!-- engines:begin -->" and rows[-1] == "<!-- engines:end -->"
    measured = [cell for cell in found.cells if cell.measurement]
    assert sum(" ms" in row and row.startswith("| ") for row in rows) >= len(measured) > 0
    assert any("It hung / for ever." in row for row in rows)


def test_a_comparison_that_timed_nothing_makes_no_table() -> None:
    found = read_comparison(engines.TEXTS)
    empty = replace(found, cells=())
    with pytest.raises(DataError, match="timed nothing"):
        engines.block("engines", empty)
