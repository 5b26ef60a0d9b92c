"""Who takes part: the peers, each at its best recipe, and ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODEL = "all-MiniLM-L6-v2"
REFERENCES = ("onnxruntime_int8", "openvino_int8")
"""The peers that ratios are taken against: what most people run, and the fastest on most processors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model, the library that runs it, and the environment that this library lives in (`None`: the project's)."""

    name: str
    label: str
    environment: str | None
    adapter: str
    options: Mapping[str, str]

    @property
    def ours(self) -> bool:
        """Whether it is one of our bundles."""
        return self.adapter == "tightrope"


def peers(work: Path) -> list[Candidate]:
    """The peers, with their prepared models under the work folder."""
    at = work.resolve() / "models"
    model = str(at / "original")
    rows = [
        (
            "sentence_transformers",
            "sentence-transformers, torch",
            "torch",
            "sentence_transformers",
            {"folder": model, "backend": "torch", "file": "model.safetensors"},
        ),
        (
            "sentence_transformers_onnx_int8",
            "sentence-transformers, ONNX int8",
            "optimum",
            "sentence_transformers",
            {"folder": str(at / "onnx"), "backend": "onnx", "file": "onnx/model_int8.onnx"},
        ),
        (
            "sentence_transformers_openvino_int8",
            "sentence-transformers, OpenVINO int8",
            "optimum",
            "sentence_transformers",
            {
                "folder": str(at / "openvino"),
                "backend": "openvino",
                "file": "openvino/openvino_model_qint8_quantized.xml",
            },
        ),
        (
            "onnxruntime_int8",
            "onnxruntime, dynamic int8",
            "bare",
            "onnxruntime",
            {"file": str(at / "onnxruntime" / "dynamic_int8.onnx"), "model": model},
        ),
        (
            "openvino_int8",
            "OpenVINO, NNCF int8",
            "bare",
            "openvino",
            {"file": str(at / "nncf" / "int8.xml"), "model": model},
        ),
        (
            "ctranslate2_int8",
            "CTranslate2, int8",
            "bare",
            "ctranslate2",
            {"folder": str(at / "ctranslate2"), "model": model},
        ),
        ("fastembed", "fastembed, fp32", "fastembed", "fastembed", {"folder": str(at / "fastembed")}),
    ]
    return [
        Candidate(name=name, label=label, environment=environment, adapter=adapter, options=options)
        for name, label, environment, adapter, options in rows
    ]


def ours(name: str, bundle: Path) -> Candidate:
    """One of our bundles as a candidate."""
    return Candidate(
        name=f"tightrope_{name}",
        label=f"tightrope, {name.replace('_', ' ')}",
        environment=None,
        adapter="tightrope",
        options={"bundle": str(bundle.resolve())},
    )
