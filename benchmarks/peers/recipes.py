"""The peers' own best recipes. One step a run, inside the environment that can do it:

    python -m benchmarks.peers.recipes STEP MODELS CALIBRATION

`MODELS` is the folder that holds every model; `CALIBRATION` a text file, none of whose lines is measured.
"""

import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def reference(models: Path, texts: Path) -> None:
    """fp32 torch, one text at a time, so that no padding has any part in it: the truth for every cosine."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models / "original"), device="cpu")
    rows = [model.encode(text, show_progress_bar=False) for text in _lines(texts)]
    np.save(models / "reference.npy", np.stack(rows), allow_pickle=False)


def onnx(models: Path, calibration: Path) -> None:
    """Exported by sentence-transformers, then quantised by it for this processor."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    out, provider = models / "onnx", {"provider": "CPUExecutionProvider"}
    exported = SentenceTransformer(
        str(models / "original"), backend="onnx", device="cpu", model_kwargs={**provider, "export": True}
    )
    exported.save_pretrained(str(out))
    plain = SentenceTransformer(str(out), backend="onnx", device="cpu", model_kwargs=provider)
    kind = _quantisation_for_this_processor()
    export_dynamic_quantized_onnx_model(plain, kind, str(out))
    (out / "onnx" / f"model_qint8_{kind}.onnx").rename(out / "onnx" / "model_int8.onnx")


def openvino(models: Path, calibration: Path) -> None:
    """Exported by sentence-transformers, then quantised by it with the calibration texts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_static_quantized_openvino_model

    out, texts = models / "openvino", models / "calibration"
    texts.mkdir(exist_ok=True)  # a local data set, as the exporter takes no plain list of texts
    (texts / "train.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in _lines(calibration)))
    exported = SentenceTransformer(
        str(models / "original"), backend="openvino", device="cpu", model_kwargs={"device": "CPU", "export": True}
    )
    exported.save_pretrained(str(out))
    plain = SentenceTransformer(str(out), backend="openvino", device="cpu", model_kwargs={"device": "CPU"})
    export_static_quantized_openvino_model(
        plain,
        None,
        str(out),
        dataset_name=str(texts),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )


def onnxruntime(models: Path, calibration: Path) -> None:
    """The fused graph with dynamic int8."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    out = models / "onnxruntime"
    out.mkdir(exist_ok=True)
    options = FusionOptions("bert")
    options.enable_gelu_approximation = False
    source = str(models / "onnx" / "onnx" / "model.onnx")
    fused = optimize_model(source, model_type="bert", num_heads=12, hidden_size=384, optimization_options=options)
    fused.save_model_to_file(str(out / "fused.onnx"))
    quantize_dynamic(
        out / "fused.onnx",
        out / "dynamic_int8.onnx",
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # no shape inference reaches behind a fused operator
    )


def nncf(models: Path, calibration: Path) -> None:
    """OpenVINO's own quantiser: static int8, with smoothing and bias correction."""
    import nncf as quantiser
    import openvino as runtime
    from tokenizers import Tokenizer

    from benchmarks.peers.adapters.direct import MAX_TOKENS, padded

    tokenizer = Tokenizer.from_file(str(models / "original" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    feeds = []
    for line in _lines(calibration):
        ids, mask = padded([tokenizer.encode(line).ids])
        feeds.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    model = runtime.convert_model(models / "onnx" / "onnx" / "model.onnx")
    quantised = quantiser.quantize(
        model,
        quantiser.Dataset(feeds),
        model_type=quantiser.ModelType.TRANSFORMER,
        preset=quantiser.QuantizationPreset.MIXED,
        subset_size=len(feeds),
    )
    runtime.save_model(quantised, models / "nncf" / "int8.xml", compress_to_fp16=False)


def ctranslate2(models: Path, calibration: Path) -> None:
    """CTranslate2's converter with int8 weights."""
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(str(models / "original"))
    converter.convert(str(models / "ctranslate2"), quantization="int8", force=True)


def fastembed(models: Path, calibration: Path) -> None:
    """The exported fp32 graph and the tokenizer's files in one folder."""
    out = models / "fastembed"
    out.mkdir(exist_ok=True)
    shutil.copy(models / "onnx" / "onnx" / "model.onnx", out / "model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(models / "original" / name, out / name)


STEPS: dict[str, Callable[[Path, Path], None]] = {
    step.__name__: step for step in (reference, onnx, openvino, onnxruntime, nncf, ctranslate2, fastembed)
}


def _lines(path: Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _quantisation_for_this_processor() -> str:
    if platform.machine() in ("aarch64", "arm64"):
        return "arm64"
    info = Path("/proc/cpuinfo")
    return "avx512_vnni" if info.is_file() and "avx512_vnni" in info.read_text() else "avx2"


if __name__ == "__main__":
    STEPS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
