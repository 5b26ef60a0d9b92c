"""The native engine by itself: where its time goes, what its memory and its start are, what a second thread brings.

python -m benchmarks.native            # measure, store, write the tables of docs/techniques/native-engine.md
python -m benchmarks.native --write    # write the tables anew from what is stored
python -m benchmarks.native --check    # fail if the page says anything else
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import tightrope
from benchmarks.documents import RESULTS, ROOT, command, read_stored, store, update
from benchmarks.peers.limit import compile_limit, macs
from benchmarks.peers.results import processor
from tightrope.device import engine
from tightrope.workshop.texts import kinds_and_texts

MODEL, RECIPE = "all-MiniLM-L6-v2", "native -> native"
STORED = RESULTS / "native.json"
PAGE = ROOT / "docs" / "techniques" / "native-engine.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
BUILD = ROOT / "build" / "engine"
LENGTHS = ("12", "32", "128")
REPEATS = 5

FRESH = """
import sys, time
import tightrope
model = tightrope.open(sys.argv[1])
model.embed(["a sentence of a dozen tokens is what most people ask for first"])
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def pss():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:"))
one, shared = status("VmHWM:"), pss()
print("first", flush=True)
model.embed([line.strip() for line in open(sys.argv[2]) if line.strip()][:1000])
print(one, shared, status("VmHWM:"))
"""
THREADS = """
import sys, time
from statistics import median
import tightrope
model = tightrope.open(sys.argv[1], threads=int(sys.argv[3]))
texts = [line.strip() for line in open(sys.argv[2]) if line.strip()]
def took(given):
    start = time.perf_counter()
    model.embed(given)
    return time.perf_counter() - start
single = {}
for words in (10, 30, 126):
    text = [" ".join(" ".join(texts).split()[:words])]
    took(text)
    single[words] = median(took(text) for _ in range(100))
took(texts)
print(*single.values(), median(took(texts) for _ in range(3)))
"""


def measure() -> None:
    """Everything, on this machine as it is now."""
    programs = build()
    with tempfile.TemporaryDirectory() as folder:
        bundle = tightrope.compress(MODEL, recipe=RECIPE, out=Path(folder) / "native.bundle")
        file = next((bundle.path / "files").glob("*.tightrope"))
        corpus = Path(folder) / "texts.txt"
        corpus.write_text("\n".join(texts()))
        store(
            STORED,
            {
                "processor": processor(),
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "texts": len(texts()),
                "limit_macs_per_s": compile_limit(ROOT / "build" / "bench").measure(),
                "profiles": [profile(programs / "benches-phases", file, isa) for isa in profiled()],
                "fresh": fresh(bundle.path, corpus),
                "c_program": c_program(programs / "tightrope-embed", file),
                "threads": {count: threads(bundle.path, corpus, count) for count in ("1", "2")},
                "cores_together": cores_together(),
                "library_bytes": Path(engine.library()._name).stat().st_size,
                "artefact_bytes": file.stat().st_size,
            },
        )


def build() -> Path:
    """The engine's programs."""
    configure = ["cmake", "-S", str(ROOT / "engine"), "-B", str(BUILD), "-DTIGHTROPE_PROGRAMS=ON"]
    for line in (configure, ["cmake", "--build", str(BUILD), "--parallel", "2"]):
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return BUILD


def texts() -> list[str]:
    """A thousand texts: the built-in English ones, over and over."""
    return [text for _, text in kinds_and_texts("en") * 3][:1000]


def profiled() -> list[str]:
    """The instruction set in use, and the best one without matrix tiles."""
    here = engine.isas()
    return [here[0]] + [name for name in here[1:2] if here[0] == "amx"]


def profile(program: Path, file: Path, isa: str) -> Any:
    """Seconds by kernel of one pass, on one core."""
    return json.loads(_run([str(program), str(file), *LENGTHS], {"TIGHTROPE_ISA": isa}, core=True))


def fresh(bundle: Path, corpus: Path) -> dict[str, float]:
    """A Python process of its own: from its start to the first vector, and its memory; medians."""
    seen: list[tuple[float, ...]] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", FRESH, str(bundle), str(corpus)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        began = time.perf_counter() - start
        seen.append((began, *map(float, process.stdout.readline().split())))
        process.wait()
    names = ("first_vector_s", "one_text_bytes", "one_text_pss_bytes", "all_texts_bytes")
    return {name: median(values) for name, values in zip(names, zip(*seen, strict=True), strict=True)}


def c_program(program: Path, file: Path) -> dict[str, float]:
    """The command-line program on one text: seconds, and its peak memory."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], input=b'a sentence\\n', stdout=-3, check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    start = time.perf_counter()
    subprocess.run([str(program), str(file)], input=b"a sentence\n", stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - start
    # A child's peak counts its parent's pages until it is another program: a small parent, so that they do not matter.
    return {"seconds": seconds, "peak_bytes": float(_run([sys.executable, "-S", "-c", code, str(program), str(file)]))}


def threads(bundle: Path, corpus: Path, count: str) -> dict[str, float]:
    """Seconds for one text of each length, and for all, with so many threads."""
    found = map(float, _run([sys.executable, "-c", THREADS, str(bundle), str(corpus), count]).split())
    return dict(zip((*LENGTHS, "all"), found, strict=True))


def cores_together() -> float:
    """What two cores multiply together, beside one alone: what a second thread could bring at most."""
    program = compile_limit(ROOT / "build" / "bench").program
    both: list[float] = []
    for _ in range(REPEATS):
        alone = _rate(_run([str(program), "200"]))
        pair = [subprocess.Popen([str(program), "200"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        both.append(sum(_rate(item.communicate()[0]) for item in pair) / alone)
    return median(both)


def _rate(answer: str) -> float:
    return max(float(line.split()[1]) for line in answer.splitlines())


def _run(line: Sequence[str], environ: Mapping[str, str] | None = None, *, core: bool = False) -> str:
    pin = (lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})) if core else None
    done = subprocess.run(
        line, env={**os.environ, **(environ or {})}, check=True, capture_output=True, text=True, preexec_fn=pin
    )
    return done.stdout


# The page -----------------------------------------------------------------------------------------------


def block(found: Mapping[str, Any]) -> str:
    """What belongs between the markers, with them."""
    parts = [_profile(found, item) for item in found["profiles"]]
    return "\n".join([BEGIN, "\n\n".join([*parts, _costs(found), _threads(found)]), END])


def _profile(found: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    lengths = seen["lengths"]
    names = sorted(lengths["128"]["phases_s"], key=lambda name: -lengths["128"]["phases_s"][name])
    head = f"| `{seen['isa']}`, µs | 12 tokens | 32 | 128 |\n|---|---:|---:|---:|"
    rows = [_row(name, [lengths[tokens]["phases_s"].get(name, 0.0) for tokens in LENGTHS]) for name in names]
    rest = [lengths[tokens]["whole_s"] - sum(lengths[tokens]["phases_s"].values()) for tokens in LENGTHS]
    rows.append(_row("the rest, less the reading of clocks", [max(0.0, value) for value in rest]))
    rows.append(_row("**the whole**", [lengths[tokens]["whole_s"] for tokens in LENGTHS]))
    limits = found["limit_macs_per_s"]
    unit = max(limits, key=limits.__getitem__) if seen["isa"] == "amx" else min(limits, key=limits.__getitem__)
    least = [macs([int(tokens)]) / limits[unit] for tokens in LENGTHS]
    rows.append(_row(f"the limit of {unit}, {limits[unit] / 1e9:,.0f} billion multiply-adds a second", least))
    shares = [part / lengths[tokens]["whole_s"] for part, tokens in zip(least, LENGTHS, strict=True)]
    rows.append("| share of the limit | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    return "\n".join([head, *rows])


def _row(name: str, seconds: Sequence[float]) -> str:
    return f"| {name} | " + " | ".join(f"{1e6 * value:,.0f}" for value in seconds) + " |"


def _costs(found: Mapping[str, Any]) -> str:
    new, program = found["fresh"], found["c_program"]
    rows = [
        ("the model's file", f"{found['artefact_bytes'] / 1e6:.1f} MB"),
        ("the library", f"{found['library_bytes'] / 1e6:.2f} MB"),
        ("a Python process, start to first vector", f"{new['first_vector_s']:.2f} s"),
        ("its peak memory after one text", f"{new['one_text_bytes'] / 1e6:.0f} MB"),
        ("the same, pages shared with others divided (PSS)", f"{new['one_text_pss_bytes'] / 1e6:.0f} MB"),
        (f"its peak memory after {found['texts']:,} texts", f"{new['all_texts_bytes'] / 1e6:.0f} MB"),
        ("the C program, one text, start to end", f"{program['seconds']:.3f} s"),
        ("its peak memory", f"{program['peak_bytes'] / 1e6:.0f} MB"),
    ]
    return "\n".join(["| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])


def _threads(found: Mapping[str, Any]) -> str:
    one, two = (found["threads"][count] for count in ("1", "2"))
    ratios = ", ".join(f"{one[name] / two[name]:.2f}x" for name in LENGTHS)
    return (
        f"Two threads beside one: {ratios} for one text of 12, 32 and 128 tokens, {one['all'] / two['all']:.2f}x for "
        f"{found['texts']:,} texts. Two cores of this machine multiply {found['cores_together']:.2f} times what one "
        f"does alone, which is the most that a second thread can bring.\n\n{MODEL}, `{RECIPE.partition(' ')[0]}`; "
        f"{found['processor']}, {found['date']}. Times by kernel: medians of "
        f"{found['profiles'][0]['passes']} passes on a pinned core, ids in, vectors out."
    )


def write(*, check: bool = False) -> bool:
    """Whether the page said the same already. Raises `DataError` when there is no stored run."""
    return update(PAGE, block(read_stored(STORED, "python -m benchmarks.native makes one.")), check=check)


if __name__ == "__main__":
    sys.exit(command("the native engine's tables", write, measure))
