"""Ratios over rounds, and the rule that makes a run count."""

import math

import pytest
from benchmarks.peers.candidates import LEAN, peers
from benchmarks.peers.expected import EXPECTED, INSTRUCTIONS
from benchmarks.peers.limit import macs
from benchmarks.peers.ratios import FALL, interval, shares, shortfalls, speed_ratio, yardstick
from hypothesis import given
from hypothesis import strategies as st

QUANTITIES = ("12", "32", "128", "corpus")
HERE = yardstick(INSTRUCTIONS, {})


def as_expected(*, rounds=5):
    """Rounds in which everybody does as expected, on a machine that gets slower by and by."""
    return {
        name: {quantity: [row[quantity] * (1 + index) for index in range(rounds)] for quantity in QUANTITIES}
        for name, row in EXPECTED.items()
    }


def test_a_ratio_is_taken_inside_each_round():
    ratio = speed_ratio([1.0, 10.0, 100.0], [0.5, 5.0, 50.0])  # a clock that changes by 100 makes no difference
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == (2.0, 2.0, 2.0, 3)


def test_rounds_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        speed_ratio([1.0, 2.0], [1.0])


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_the_interval_holds_the_median_and_stays_within_the_values(values):
    found = interval(values)
    assert min(values) <= found.low <= found.value <= found.high <= max(values)
    assert interval(values) == found


def test_more_agreement_gives_a_narrower_interval():
    wild, calm = interval([1.0, 2.0, 3.0, 4.0, 5.0] * 2), interval([2.9, 3.0, 3.0, 3.0, 3.1] * 2)
    assert calm.high - calm.low < wild.high - wild.low


def test_one_wild_round_does_not_decide():
    assert speed_ratio([1.0] * 9 + [40.0], [0.5] * 10).value == 2.0


def test_peers_that_do_as_expected_are_not_found():
    assert shortfalls(as_expected(), QUANTITIES, HERE) == []


@pytest.mark.parametrize("peer", sorted(EXPECTED))
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_hampered_peer_is_found(peer, quantity):
    rounds = as_expected()
    rounds[peer][quantity] = [value / (1 - FALL) * 1.01 for value in rounds[peer][quantity]]
    (finding,) = shortfalls(rounds, QUANTITIES, HERE)
    assert (finding.peer, finding.quantity) == (peer, quantity)
    assert math.isclose(finding.share, (1 - FALL) / 1.01)


def test_a_peer_that_falls_a_little_is_not_found():
    rounds = as_expected()
    rounds["fastembed"]["12"] = [value / (1 - FALL) * 0.99 for value in rounds["fastembed"]["12"]]
    assert shortfalls(rounds, QUANTITIES, HERE) == []


def test_one_peer_on_a_good_day_does_not_make_the_others_look_slow():
    rounds = as_expected()
    rounds["onnxruntime_int8"]["32"] = [value / 2 for value in rounds["onnxruntime_int8"]["32"]]
    assert shortfalls(rounds, QUANTITIES, HERE) == []


def test_a_finding_says_who_where_and_how_much():
    rounds = as_expected()
    rounds["ctranslate2_int8"]["corpus"] = [value * 2 for value in rounds["ctranslate2_int8"]["corpus"]]
    (finding,) = shortfalls(rounds, QUANTITIES, HERE)
    assert str(finding) == "ctranslate2_int8 is 50 % slower on the corpus than it should be beside the others"


def test_only_quantities_that_were_measured_are_judged():
    rounds = as_expected()
    for row in rounds.values():
        row["corpus"] = []
    assert shortfalls(rounds, QUANTITIES[:-1], HERE) == []


def test_peers_that_took_no_part_are_not_judged():
    rounds = as_expected()
    del rounds["openvino_int8"]
    assert shortfalls(rounds, QUANTITIES, HERE) == []


def alone(*, visits=3):
    """What everybody does alone in a few fresh processes, one of which had a bad moment."""
    rounds = as_expected(rounds=1)
    return {
        peer: {quantity: [values[0]] * (visits - 1) + [9 * values[0]] for quantity, values in row.items()}
        for peer, row in rounds.items()
    }


def test_on_another_processor_the_yardstick_is_what_each_did_alone():
    found = yardstick("amx-int8", alone())
    assert (found.name, HERE.name) == ("alone", "expected")
    assert found.seconds == {peer: dict(row) for peer, row in EXPECTED.items()}  # a bad moment is no matter
    assert shortfalls(as_expected(), QUANTITIES, found) == []


def test_a_peer_hampered_by_its_neighbours_is_found():
    rounds = as_expected()
    rounds["openvino_int8"]["32"] = [value * 1.25 for value in rounds["openvino_int8"]["32"]]
    (finding,) = shortfalls(rounds, QUANTITIES, yardstick("amx-int8", alone()))
    assert str(finding) == "openvino_int8 is 20 % slower at 32 tokens than it was alone, beside the others"


def test_a_machine_that_is_slower_for_all_is_no_matter():
    rounds = {
        peer: {name: [3 * value for value in values] for name, values in row.items()}
        for peer, row in as_expected().items()
    }
    found = shares(rounds, QUANTITIES, yardstick("amx-int8", alone()))
    assert all(math.isclose(share, 1) for row in found.values() for share in row.values())


def test_something_is_expected_of_every_peer(tmp_path):
    assert {item.name for item in peers(tmp_path)} - {LEAN} == set(EXPECTED)


def test_the_work_of_a_text_grows_faster_than_its_length():
    assert macs([1]) == 10_616_832 + 4_608
    assert macs([12, 32]) == macs([12]) + macs([32])
    assert macs([128]) == 1_434_451_968
