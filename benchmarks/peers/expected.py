"""What the peers are expected to reach beside each other, so that a run in which one of them was hampered is noticed.

Measured on 2026-11-20 with one thread on one core of an AMD EPYC (Zen 5, AVX-512 VNNI), each peer alone, with the
versions and recipes of this benchmark; processor seconds, tokenizing, pooling and normalising included. Source:
`peers_embedding.md`, the tables "one thread" (latency, p50) and "Batching" (the best one of each peer). Only the ratios
are used, and only on processors with the same int8 instructions.
"""

from collections.abc import Mapping

INSTRUCTIONS = "avx512-vnni"


def _row(ms_12: float, ms_32: float, ms_128: float, texts_per_s: float) -> Mapping[str, float]:
    """Seconds by quantity; the corpus has 1,000 texts."""
    return {"12": ms_12 / 1e3, "32": ms_32 / 1e3, "128": ms_128 / 1e3, "corpus": 1000 / texts_per_s}


EXPECTED: Mapping[str, Mapping[str, float]] = {
    "sentence_transformers": _row(8.43, 13.23, 37.86, 73),
    "sentence_transformers_onnx_int8": _row(1.69, 3.07, 9.71, 315),
    "sentence_transformers_openvino_int8": _row(1.13, 1.81, 5.86, 401),
    "onnxruntime_int8": _row(0.90, 2.78, 9.76, 380),
    "openvino_int8": _row(0.77, 1.43, 5.63, 543),
    "ctranslate2_int8": _row(0.97, 2.17, 8.43, 424),
    "fastembed": _row(3.80, 6.03, 17.53, 36),
}
