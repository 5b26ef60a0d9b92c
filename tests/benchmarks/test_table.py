"""The README's table of peers."""

import json

import pytest
from benchmarks.table import BEGIN, END, block, summary, table, write

from tightrope.errors import DataError


def share(value):
    return {"avx512-vnni": {"value": value, "low": value, "high": value, "n": 4}}


def quantity(seconds, ratio, *, engine=None):
    return {
        "p50_s": seconds,
        "limit_share": share(0.25),
        "engine_limit_share": share(engine) if engine else None,
        "speed_ratio": {"slow": {"value": ratio, "low": ratio - 0.1, "high": ratio + 0.1, "n": 4}},
    }


def candidate(label, *, ours=False, corpus_s=2.0, ratio=1.0):
    seconds = {"12": 0.00077, "32": 0.00143, "128": 0.0056, "corpus": corpus_s}
    return {
        "label": label,
        "ours": ours,
        "file_bytes": 23_300_000,
        "quantities": {
            name: quantity(value, ratio, engine=0.3 if ours and name != "corpus" else None)
            for name, value in seconds.items()
        },
        "memory": {"one_text_bytes": 101_400_000, "corpus_bytes": 202_000_000},
        "cold_start": {"wall_s": 0.173, "n": 3},
        "cosine": {"min": 0.96591, "mean": 0.99766},
    }


@pytest.fixture
def peers_run():
    return {
        "conditions": {
            "date": "2026-11-21",
            "model": "a model",
            "processor": "a processor",
            "threads": 1,
            "pinned": True,
            "seconds": "processor time",
            "texts": 1000,
            "tokens": 41004,
            "rounds": 24,
            "corpus_rounds": 8,
        },
        "references": ["slow"],
        "limit": {"instructions": "avx512-vnni", "macs_per_s": {"avx512-vnni": {"12": 489e9}}},
        "validity": {"valid": True, "yardstick": "expected", "reasons": []},
        "candidates": {
            "slow": candidate("The slow one"),
            "ours": candidate("Ours", ours=True, corpus_s=1.0, ratio=2.0),
        },
    }


@pytest.fixture
def stored(tmp_path, peers_run):
    peers = tmp_path / "peers.json"
    peers.write_text(json.dumps(peers_run))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\n{END}\n\nafter\n")
    return readme, peers


def rows(table):
    return [row for row in table.splitlines()[2:] if row]


def test_the_fastest_comes_first_and_ours_is_bold(peers_run):
    costs, ratios = map(rows, table(peers_run).split("\n\n"))
    for found in (costs, ratios):
        assert [row.split("|")[1].strip() for row in found] == ["**Ours**", "The slow one"]
    assert costs[0] == (
        "| **Ours** | 23.3 MB | 0.77 ms | 1.43 ms | 5.60 ms | 1000/s | 101 / 202 MB | 0.17 s "
        "| 0.9659 / 0.9977 | 30 / 30 / 30 / (25) % |"
    )
    assert ratios[0] == "| **Ours** |" + " 2.00× (1.90 – 2.10) |" * 4


def test_all_rows_of_a_table_have_the_same_cells(peers_run):
    for each in table(peers_run).split("\n\n"):
        assert len({row.count("|") for row in each.splitlines()}) == 1


def test_every_limit_and_every_reference_has_its_place(peers_run):
    peers_run["references"] = ["slow", "ours"]
    peers_run["limit"]["macs_per_s"]["amx-int8"] = {"12": 3165e9}
    for item in peers_run["candidates"].values():
        for each in item["quantities"].values():
            each["limit_share"]["amx-int8"] = {"value": 0.04, "n": 4}
            if each["engine_limit_share"]:
                each["engine_limit_share"]["amx-int8"] = {"value": 0.05, "n": 4}
            each["speed_ratio"]["ours"] = each["speed_ratio"]["slow"]
    costs, first, second = table(peers_run).split("\n\n")
    assert "| of amx-int8 | of avx512-vnni |" in costs
    assert "| 5 / 5 / 5 / (4) % | 30 / 30 / 30 / (25) % |" in costs
    assert first.startswith("| times as fast as The slow one |") and second.startswith("| times as fast as Ours |")
    assert "amx-int8 3,165, avx512-vnni 489 billion" in summary(peers_run)


def test_a_run_without_its_references_has_no_ratios(peers_run):
    peers_run["references"] = []
    assert "×" not in table(peers_run)


def test_one_round_has_no_interval(peers_run):
    peers_run["candidates"]["ours"]["quantities"]["corpus"]["speed_ratio"]["slow"]["n"] = 1
    assert "| 2.00× |" in table(peers_run)


def test_the_summary_has_the_conditions(peers_run):
    said = summary(peers_run)
    for fact in (
        "a processor (avx512-vnni)",
        "1 thread on a pinned core",
        "24 rounds",
        "41,004 tokens",
        "avx512-vnni 489 billion",
    ):
        assert fact in said


def test_a_run_that_does_not_count_says_so_first(peers_run):
    peers_run["validity"] = {"valid": False, "reasons": ["slow was slower than ever"]}
    assert summary(peers_run).startswith("**This run does not count:** slow was slower than ever.")


@pytest.mark.parametrize(
    ("valid", "yardstick", "says"),
    [(True, "expected", "its ratio to the others"), (True, "alone", "than alone"), (None, None, "Too few peers")],
)
def test_the_yardstick_is_told(peers_run, valid, yardstick, says):
    peers_run["validity"] = {"valid": valid, "yardstick": yardstick, "reasons": []}
    assert says in summary(peers_run)


def test_the_table_is_written_between_its_markers_and_stays(stored, peers_run):
    readme, peers = stored
    assert not write(readme, peers)
    assert readme.read_text() == f"before\n\n{block(peers_run)}\n\nafter\n"
    assert write(readme, peers)


def test_a_check_finds_a_stale_table_and_writes_nothing(stored):
    readme, peers = stored
    before = readme.read_text()
    assert not write(readme, peers, check=True)
    assert readme.read_text() == before
    write(readme, peers)
    assert write(readme, peers, check=True)
    readme.write_text(readme.read_text().replace("0.77 ms", "0.07 ms"))
    assert not write(readme, peers, check=True)


def test_of_a_run_that_does_not_count_only_the_reason_is_written(stored, peers_run):
    readme, peers = stored
    peers.write_text(json.dumps(peers_run | {"validity": {"valid": False, "reasons": ["slow was slower than ever"]}}))
    assert not write(readme, peers)
    assert "does not count, so its table is not shown: slow was slower than ever." in readme.read_text()
    assert "| 2.00×" not in readme.read_text()
    assert write(readme, peers, check=True)


def test_without_a_stored_run_there_is_a_way_out(tmp_path):
    with pytest.raises(DataError, match="no stored run") as caught:
        write(tmp_path / "README.md", tmp_path / "peers.json")
    assert caught.value.hint == "make bench makes one."
