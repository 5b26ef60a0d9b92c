"""Pickled weights made into safetensors by torch's weights-only loader."""

import pickle

import pytest

from tightrope.errors import SourceError
from tightrope.workshop.load import load

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture
def pickled_folder(bert_folder, tiny_bert):
    """The tiny BERT with its weights in pytorch_model.bin, two of them one tensor."""
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value.copy()) for name, value in tiny_bert.weights.items()}
    tensors["cls.decoder.weight"] = tensors["embeddings.word_embeddings.weight"]
    torch.save(tensors, bert_folder / "pytorch_model.bin")
    (bert_folder / "model.safetensors").unlink()
    return bert_folder


def test_weights_are_written_beside_the_pickle(pickled_folder, tiny_bert):
    from tightrope.workshop.sources import pickled

    assert pickled.convert(pickled_folder) == [pickled_folder / "model.safetensors"]
    model = load(str(pickled_folder))
    assert all((model.weights[name] == value).all() for name, value in tiny_bert.weights.items())


def test_shards_and_modules_are_converted_too(pickled_folder, tiny_bert, write_json):
    import torch

    from tightrope.workshop.sources import pickled

    tensors = torch.load(pickled_folder / "pytorch_model.bin", weights_only=True)
    names = sorted(tensors)
    for file, part in (("a.bin", names[:9]), ("b.bin", names[9:])):
        torch.save({name: tensors[name] for name in part}, pickled_folder / file)
    (pickled_folder / "pytorch_model.bin").unlink()
    index = {"weight_map": {name: "a.bin" if name in names[:9] else "b.bin" for name in names}}
    write_json(pickled_folder / "pytorch_model.bin.index.json", index)
    (pickled_folder / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.ones(8, 32)}, pickled_folder / "2_Dense" / "pytorch_model.bin")
    places = (pickled_folder, pickled_folder / "2_Dense")
    assert pickled.convert(pickled_folder) == [place / "model.safetensors" for place in places]
    assert load(str(pickled_folder)).task.width == 32


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_code_in_a_pickle_never_runs(pickled_folder, two_lines):
    import torch

    from tightrope.workshop.sources import pickled

    for save in (lambda path: torch.save({"a": Evil()}, path), lambda path: path.write_bytes(pickle.dumps(Evil()))):
        save(pickled_folder / "pytorch_model.bin")
        with pytest.raises(SourceError, match="more than tensors") as raised:
            pickled.convert(pickled_folder)
        two_lines(raised)
    assert not list(pickled_folder.glob("*model.safetensors*"))


def test_what_holds_no_tensors_or_is_not_there_is_refused(pickled_folder, two_lines):
    import torch

    from tightrope.workshop.sources import pickled

    torch.save([torch.ones(2)], pickled_folder / "pytorch_model.bin")
    for folder, said in ((pickled_folder, "no named tensors"), (pickled_folder / "1_Pooling", "no pytorch_model.bin")):
        with pytest.raises(SourceError, match=said) as raised:
            pickled.convert(folder)
        two_lines(raised)
