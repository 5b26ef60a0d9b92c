"""Who takes part: the peers, each at its best recipe, and ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

MODEL = "all-MiniLM-L6-v2"
REFERENCES = ("onnxruntime_int8", "openvino_int8")
"""The peers that ratios are taken against: what most people run, and the fastest on most processors."""
LEAN = "ctranslate2_int8_avx2"
WITHOUT_VNNI = "avx2"
"""The instruction set that older processors have: there the leanest peer is what ours is held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model, the library that runs it, and the environment that this library lives in (`None`: the project's)."""

    name: str
    label: str
    environment: str | None
    adapter: str
    options: Mapping[str, str]
    environ: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the library is to see."""

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
    found = [
        Candidate(name=name, label=label, environment=environment, adapter=adapter, options=options)
        for name, label, environment, adapter, options in rows
    ]
    lean = next(item for item in found if item.name == "ctranslate2_int8")
    forced = replace(
        lean,
        name=LEAN,
        label=f"{lean.label}, forced to AVX2",
        # Its matrix products are MKL's or oneDNN's, which have to be told as well.
        environ={"CT2_FORCE_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )
    return [*found, forced]


def ours(name: str, bundle: Path, isa: str | None = None) -> Candidate:
    """One of our bundles as a candidate; `isa` forces the native engine to an instruction set."""
    return Candidate(
        name=f"tightrope_{name}" + (f"_{isa}" if isa else ""),
        label=f"tightrope, {name.replace('_', ' ')}" + (f", forced to {isa}" if isa else ""),
        environment=None,
        adapter="tightrope",
        options={"bundle": str(bundle.resolve())},
        environ={"TIGHTROPE_ISA": isa} if isa else {},
    )
