"""The user's own judge: found where the user said, called with the model, and never trusted to be right."""

from pathlib import Path

import numpy as np
import pytest

from tightrope.errors import DataError
from tightrope.workshop.verify.judges import figures, judge_by, load_judge


class Model:
    """Vectors that say how long the texts are."""

    truncated = 0
    prompts = ()

    def embed(self, texts: list[str], *, prompt: str | None = None) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_a_function_in_the_folder_is_found_and_called(tmp_path: Path) -> None:
    (tmp_path / "lengths_metric.py").write_text("def longest(embed):\n    return embed(['four', 'seven']).max() / 10\n")
    judge = load_judge("lengths_metric:longest", tmp_path)
    found = figures(judge, Model(), name="lengths_metric:longest")
    assert found.tolist() == [0.5]
    quality = judge_by(found * 0.9, found, name="lengths_metric:longest")
    assert quality.kind == "lengths_metric:longest" and quality.metric == "longest"
    assert quality.loss.value == pytest.approx(0.1)
    assert (quality.loss.low, quality.loss.high, quality.loss.n) == (quality.loss.value, quality.loss.value, 1)


def test_the_folder_does_not_stay_on_the_path(tmp_path: Path) -> None:
    import sys

    (tmp_path / "broken_metric.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(DataError, match="broken_metric cannot be imported"):
        load_judge("broken_metric:judge", tmp_path)
    assert str(tmp_path) not in sys.path


def test_figures_of_each_sample_give_a_paired_interval() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(0.5, 1, 200)
    after = before - generator.normal(0.02, 0.01, 200)
    found = judge_by(after, before, name="m:f", seed=3)
    assert found.n == 200 and found.original == pytest.approx(before.mean())
    assert found.loss.value == pytest.approx(0.02 / 0.75, rel=0.15)
    assert 0 < found.loss.low < found.loss.value < found.loss.high < 0.05


@pytest.mark.parametrize("name", ["metric", "metric:", ":judge", "../metric:judge", "m:f:g", "a b:c"])
def test_a_name_that_names_no_function(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not module:function"):
        load_judge(name, tmp_path)


def test_no_such_module_or_function(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be imported"):
        load_judge("no_such_metric_module:judge", tmp_path)
    with pytest.raises(DataError, match="has no function 'no_such'"):
        load_judge("json:no_such", tmp_path)


@pytest.mark.parametrize("given", ["many", None, float("nan"), [], [[1.0]]])
def test_what_is_no_figure_is_refused(given: object) -> None:
    with pytest.raises(DataError, match=r"m:f (gave|failed)"):
        figures(lambda embed: given, Model(), name="m:f")


def test_a_judge_that_fails_says_so_and_figures_must_match() -> None:
    with pytest.raises(DataError, match="m:f failed: ZeroDivisionError"):
        figures(lambda embed: 1 / 0, Model(), name="m:f")
    with pytest.raises(DataError, match="gave 3 and 2 figures"):
        judge_by(np.ones(2), np.ones(3), name="m:f")
    with pytest.raises(DataError, match="gives the original 0"):
        judge_by(np.ones(2), np.zeros(2), name="m:f")
