"""ExecuTorch's program: the model's own codes in it, for texts of all lengths, its work told as it was made."""

import pytest

from tightrope.errors import EngineError, UnsupportedError

pytestmark = pytest.mark.engine

QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def executorch(need_engine):
    """The converter and the runtime."""
    need_engine("executorch")
    from tightrope.device.runtimes import executorch as runtime
    from tightrope.workshop.convert import executorch as converter

    return converter, runtime


@pytest.fixture(scope="module")
def converted(executorch, mixed_bert):
    """The model for ExecuTorch."""
    return executorch[0].convert(mixed_bert)


@pytest.fixture
def session(executorch, converted, tmp_path):
    """An open session."""
    opened = executorch[1].open_artefact(converted.write(tmp_path), converted.settings, threads=1)
    yield opened
    opened.close()


def test_the_codes_in_the_file_are_the_models_own(converted, mixed_bert):
    assert mixed_bert.weights[QUERY].codes.tobytes() in converted.files["model"][1]


def test_it_tells_what_runs_in_which_precision(executorch, converted, tmp_path, texts):
    files = converted.write(tmp_path)
    found = executorch[1].executed(files, converted.settings, texts(1, 10))
    per_token = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    attention = 2 * 2 * 10 * 10 * 32
    total = 10 * per_token + attention
    assert found.share["wint8"] == pytest.approx(10 * 32 * 32 / total)
    assert found.share["wint4"] == pytest.approx(10 * 32 * 64 / total)
    assert found.attention == pytest.approx(attention / total)


def test_a_text_that_is_too_long_is_an_error(session, two_lines, texts):
    with pytest.raises(EngineError) as caught:
        session.run(texts(1, 60))
    assert "60 tokens" in two_lines(caught)[0]


def test_another_delegate_is_refused(executorch, converted, tmp_path, two_lines):
    with pytest.raises(UnsupportedError) as caught:
        executorch[1].open_artefact(converted.write(tmp_path), {**converted.settings, "delegate": "vulkan"}, threads=1)
    assert "vulkan" in two_lines(caught)[0]
