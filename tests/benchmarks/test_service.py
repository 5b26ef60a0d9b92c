"""The table on memory and load is made of what was stored, and of nothing else."""

from benchmarks import service


def test_the_page_says_what_was_measured() -> None:
    assert service.write(check=True)


def test_a_row_is_a_stored_figure() -> None:
    figures = {"n": 5, "p50_s": 0.0001, "p95_s": 0.0002, "p99_s": 0.0003}
    times = {"admitted": figures, "refused": figures}
    found = {
        "conditions": {"command": "c", "machine": {"processor": "p", "cores": 2}},
        "overhead": {"1": figures, "4": figures},
        "burst": {"usual": times, "burst": times},
        "cuts": figures,
        "cycles": {"before_bytes": 10**6, "after_bytes": 3 * 10**6, "cycles": 1000},
    }
    text = service.block(found)
    assert "| outside the session, one client: p50, p99 | 0.10 ms, 0.30 ms | 5 |" in text
    assert "| growth after loading and unloading | 2.0 MB | 1,000 |" in text
    assert text.startswith(service.BEGIN) and text.endswith(service.END)
