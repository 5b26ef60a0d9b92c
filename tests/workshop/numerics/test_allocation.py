from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tightrope.workshop.numerics.allocation import Choice, moves, settle

REDUCED = st.builds(Choice, st.integers(1, 100), st.floats(0, 1, allow_subnormal=False))
CHOICES = st.lists(REDUCED, max_size=3).map(lambda reduced: [Choice(101, 0.0), *reduced])  # floats lose nothing
LAYERS = st.dictionaries(st.sampled_from("abc"), CHOICES, min_size=1)


def totals(choices, settled):
    chosen = [choices[layer][index] for layer, index in settled.items()]
    return sum(item.size_bytes for item in chosen), sum(item.loss for item in chosen)


@given(LAYERS)
def test_no_other_allocation_of_the_same_size_or_smaller_loses_less(choices):
    steps = moves(choices)
    everything = [
        dict(zip(choices, picks, strict=True)) for picks in product(*(range(len(c)) for c in choices.values()))
    ]
    for count in range(len(steps) + 1):
        size, loss = totals(choices, settle(choices, steps[:count]))
        rivals = [totals(choices, other) for other in everything]
        assert all(rival_loss >= loss - 1e-9 for rival_size, rival_loss in rivals if rival_size <= size)


@given(LAYERS)
def test_each_step_saves_bytes_and_the_last_leaves_the_smallest(choices):
    steps = moves(choices)
    assert all(step.saved_bytes > 0 for step in steps)
    smallest = sum(min(item.size_bytes for item in options) for options in choices.values())
    assert totals(choices, settle(choices, steps))[0] == smallest


def test_nothing_taken_leaves_every_layer_at_its_largest():
    choices = {"a": [Choice(1, 0.5), Choice(4, 0.0)], "b": [Choice(2, 0.0)]}
    assert settle(choices, ()) == {"a": 1, "b": 0}
