"""What the tests of the workshop share: models on disk, and the reference at work."""

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest

from tightrope.device.senses.text import Tokenizer
from tightrope.workshop.reference import reference


def answer(model, texts):
    """What the reference of a model answers, in one right-padded batch [texts, width]."""
    import onnxruntime

    encoded = Tokenizer(model.senses.tokenizer, model.senses.max_length).encode(texts)
    ids, mask = encoded.ids.padded()
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": encoded.types.padded()[0]}
    session = onnxruntime.InferenceSession(reference(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})[0]


@pytest.fixture
def answers():
    """`answers(model, texts)`: what the reference of a model answers to texts or pairs."""
    return answer


@pytest.fixture
def write_json():
    """`write_json(path, value)`: a JSON file, its folder made if need be."""

    def write(path: Path, value) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return write


@pytest.fixture
def bert_folder(tmp_path, encoder_folder, write_json) -> Path:
    """The tiny BERT as a folder in Hugging Face layout, with the modules of sentence-transformers."""
    folder = encoder_folder(tmp_path / "model")
    write_json(folder / "modules.json", modules("Transformer", "Pooling", "Normalize"))
    write_json(
        folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    )
    return folder


def modules(*kinds: str) -> list[dict[str, str]]:
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]


@pytest.fixture
def modules_of():
    """`modules_of("Transformer", "Pooling")`: the contents of a modules.json."""
    return modules


@pytest.fixture
def bert_onnx(bert_folder, tiny_bert) -> Path:
    """The tiny BERT as an ONNX file that gives last_hidden_state, with its tokenizer and settings beside it."""
    proto = reference(tiny_bert)
    del proto.graph.output[:]
    last = "encoder.layer.1.output.LayerNorm"
    for node in proto.graph.node:
        node.input[:] = ["last_hidden_state" if name == last else name for name in node.input]
        node.output[:] = ["last_hidden_state" if name == last else name for name in node.output]
    shape = ("b", "l", 32)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, shape))
    (bert_folder / "model.safetensors").unlink()
    onnx.save(proto, bert_folder / "model.onnx")
    return bert_folder / "model.onnx"


TEXTS = ("the cat sat", "a dog", "", "rain on the roof, all night long")


@pytest.fixture
def texts() -> tuple[str, ...]:
    """A few texts of unequal length, one of them empty."""
    return TEXTS


@pytest.fixture
def two_lines():
    """`two_lines(error)`: the lines of an error of ours, after checking that there are two and neither is empty."""

    def check(raised) -> list[str]:
        lines = str(raised.value).splitlines()
        assert len(lines) == 2 and all(len(line) > 10 for line in lines), lines
        return lines

    return check


@pytest.fixture
def close():
    """`close(a, b)`: the largest difference of two arrays of the same shape."""

    def largest(a, b) -> float:
        assert a.shape == b.shape, (a.shape, b.shape)
        return float(np.abs(a - b).max())

    return largest


@pytest.fixture
def sections():
    """`sections(data)`: the native engine's file by section: what its elements are, and its bytes."""

    def read(data: bytes) -> dict[str, tuple[int, bytes]]:
        found = {}
        for index in range(int.from_bytes(data[12:16], "little")):
            name, offset, size, element = struct.unpack_from("<32sQQI", data, 64 + 64 * index)
            found[name.rstrip(b"\0").decode()] = element, data[offset : offset + size]
        return found

    return read
