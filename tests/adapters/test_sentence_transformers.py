"""`encode` means what it means in sentence-transformers, or says that it cannot."""

import subprocess
import sys

import numpy as np
import pytest

import tightrope.adapters
from tightrope.adapters import SentenceTransformerAdapter
from tightrope.errors import DataError, MissingExtraError, UnsupportedError

TEXTS = ["red red green", "blue", "green blue blue blue"]


@pytest.fixture
def model(embedder) -> SentenceTransformerAdapter:
    return SentenceTransformerAdapter(embedder())


def test_a_list_gives_rows_in_order_and_a_string_one_row(model) -> None:
    rows = model.encode(TEXTS)
    assert rows.shape == (3, 8) and rows.dtype == np.float32
    assert rows[0].tolist() == [-0.5, 1.5, 0.5, -0.5, -0.5, -0.5, -0.5, -0.5]
    assert np.array_equal(model.encode(TEXTS[1]), rows[1])
    assert model.encode([TEXTS[1]]).shape == (1, 8)
    assert model.encode([]).shape == (0, 8)
    assert np.array_equal(model.encode(np.array(TEXTS)), rows)


def test_vectors_are_of_unit_length_only_when_asked(model) -> None:
    assert not np.allclose(np.linalg.norm(model.encode(TEXTS), axis=1), 1)
    assert np.allclose(np.linalg.norm(model.encode(TEXTS, normalize_embeddings=True), axis=1), 1)
    short = model.encode(TEXTS, truncate_dim=3, normalize_embeddings=True)
    assert short.shape == (3, 3) and np.allclose(np.linalg.norm(short, axis=1), 1)
    assert np.array_equal(model.encode(TEXTS, truncate_dim=3), model.encode(TEXTS)[:, :3])
    with pytest.raises(DataError, match="truncate_dim=9"):
        model.encode(TEXTS, truncate_dim=9)


def test_bits_are_packed_as_there(model) -> None:
    rows = model.encode(TEXTS)
    unsigned = model.encode(TEXTS, precision="ubinary")
    assert unsigned.dtype == np.uint8 and unsigned.tolist() == [[0b01100000], [0b00010000], [0b00110000]]
    assert np.array_equal(np.unpackbits(unsigned, axis=1).astype(bool), rows > 0)
    signed = model.encode(TEXTS, precision="binary")
    assert signed.dtype == np.int8 and (signed.astype(int) + 128 == unsigned).all()


def test_prompts_by_name_in_words_and_by_role(embedder) -> None:
    model = SentenceTransformerAdapter(embedder({"query": "find: ", "passage": "store: "}, default="query"))
    assert model.prompts == {"query": "find: ", "passage": "store: "} and model.default_prompt_name == "query"
    find, store = np.eye(8, dtype=np.float32)[4], np.eye(8, dtype=np.float32)[5]
    plain = model.encode("red", prompt="")
    assert np.array_equal(model.encode("red"), plain + find)  # the default prompt
    assert np.array_equal(model.encode("red", prompt_name="passage"), plain + store)
    assert np.array_equal(model.encode("red", prompt_name="passage", prompt="find: "), plain + find)
    assert np.array_equal(model.encode_query("red"), plain + find)
    assert np.array_equal(model.encode_document(["red"]), [plain + store])
    assert np.array_equal(model.encode_document("red", prompt=""), plain)
    with pytest.raises(DataError, match="no prompt 'title'"):
        model.encode("red", prompt_name="title")


def test_similarity_is_cosine(model) -> None:
    rows = model.encode(TEXTS)
    all_pairs = model.similarity(rows, rows)
    assert all_pairs.shape == (3, 3) and np.allclose(np.diag(all_pairs), 1)
    expected = rows[0] @ rows[2] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[2])
    assert all_pairs[0, 2] == pytest.approx(expected)
    assert np.allclose(model.similarity_pairwise(rows[:2], rows[1:]), [all_pairs[0, 1], all_pairs[1, 2]], atol=1e-6)
    assert model.similarity_fn_name == "cosine"


def test_what_it_knows_of_itself(model) -> None:
    assert model.get_sentence_embedding_dimension() == model.get_embedding_dimension() == 8
    assert model.max_seq_length == 16


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"output_value": "token_embeddings"}, "output_value='token_embeddings'"),
        ({"output_value": None}, "output_value=None"),
        ({"precision": "int8"}, "precision='int8'"),
        ({"device": "cuda"}, "device='cuda'"),
        ({"pool": object(), "chunk_size": 5}, "does not support pool, chunk_size"),
    ],
)
def test_what_a_bundle_cannot_do_is_refused(model, option: dict, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        model.encode(TEXTS, **option)


def test_what_has_no_effect_is_accepted(model) -> None:
    plain = model.encode(TEXTS)
    assert np.array_equal(model.encode(TEXTS, batch_size=1, show_progress_bar=True, device="cpu", pool=None), plain)


def test_what_is_not_text_is_refused(model) -> None:
    with pytest.raises(DataError, match="is not text"):
        model.encode(["red", 7])


def test_a_cross_encoder_and_a_missing_bundle_are_refused(tmp_path) -> None:
    class Scorer:
        def score(self, pairs): ...

    with pytest.raises(UnsupportedError, match="scores pairs"):
        SentenceTransformerAdapter(Scorer())
    with pytest.raises(Exception, match="does not exist"):
        SentenceTransformerAdapter(tmp_path / "none.bundle")


def test_without_torch_tensors_are_refused_with_the_install_line(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"tightrope\[torch\]"):
        model.encode(TEXTS, convert_to_tensor=True)


@pytest.mark.torch
def test_tensors(model) -> None:
    import torch

    rows = model.encode(TEXTS)
    tensor = model.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), rows)
    listed = model.encode(TEXTS, convert_to_numpy=False)
    assert [type(item) for item in listed] == [torch.Tensor] * 3
    assert isinstance(model.encode(TEXTS[0], convert_to_tensor=True), torch.Tensor)
    similar = model.similarity(tensor, tensor)
    assert isinstance(similar, torch.Tensor) and np.allclose(similar.numpy(), model.similarity(rows, rows), atol=1e-6)


def test_importing_the_adapters_loads_nothing_heavy() -> None:
    code = "import sys, tightrope.adapters; print([m for m in sys.modules if m.startswith(('numpy', 'torch', 'lang'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
    assert dir(tightrope.adapters) == ["LangChainEmbeddings", "SentenceTransformerAdapter"]
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = tightrope.adapters.Other
