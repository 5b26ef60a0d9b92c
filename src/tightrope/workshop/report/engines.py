"""What a comparison of engines says, in words and figures, before it is a table or a page."""

from collections import Counter
from collections.abc import Iterable

from tightrope import units
from tightrope.measurement import length
from tightrope.workshop.comparison.outcome import Cell, Comparison, latency, lengths, ratio
from tightrope.workshop.report.figures import UNMEASURED, conditions, show, show_interval

UNTOLD = "–"


def middle(found: Comparison) -> int | None:
    """The length that stands for all: of those timed the middle one."""
    timed = lengths(found.cells)
    return timed[len(timed) // 2] if timed else None


def ordered(found: Comparison) -> list[Cell]:
    """The cells that answer right, the fastest first; those that were not timed after them."""
    tokens = middle(found)

    def key(cell: Cell) -> float:
        seen = latency(cell, tokens) if tokens else None
        return seen.p50_s if seen else float("inf")

    return sorted((cell for cell in found.cells if cell.succeeded), key=key)


def headline(found: Comparison) -> str:
    """The answer in one sentence."""
    also = len({cell.engine for cell in found.in_state("interpreted")})
    right, engines = found.in_state("converted", "measured"), {cell.engine for cell in found.cells if cell.succeeded}
    said = f"{len(engines)} of {len(found.engines)} engines run it, in {len(right)} of {len(found.cells)} forms"
    said += f", {also} more {'is' if also == 1 else 'are'} interpreted" if also else ""
    tokens, first = middle(found), next(iter(ordered(found)), None)
    if tokens is None or first is None or (seen := latency(first, tokens)) is None:
        return said
    return f"{said}; the fastest with {length(tokens)} is {title(found, first)}: {units.show(seen.p50_s, 'seconds')}"


def title(found: Comparison, cell: Cell) -> str:
    """An engine and a precision as people read them."""
    return f"{found.engine(cell.engine).title} {cell.precision}"


def times(cell: Cell, tokens: int) -> str:
    """p50 and p95 of one length.

    The names of the lengths stand at the head of the column.
    """
    seen = latency(cell, tokens)
    return f"{units.show(seen.p50_s, 'seconds')} / {units.show(seen.p95_s, 'seconds')}" if seen else UNTOLD


def faster(cell: Cell, tokens: int) -> str:
    """How many times faster than the baseline, with its interval."""
    found = ratio(cell, tokens)
    return show_interval(found, "ratio") if found else UNTOLD


def cosines(cell: Cell) -> str:
    """Least, first percentile and mean."""
    close = cell.parity
    if close is None:
        return UNTOLD
    return " / ".join(f"{value:.4f}" for value in (close.cosine_min, close.cosine_p1, close.cosine_mean))


def difference(cell: Cell) -> str:
    """The largest difference of any number."""
    return f"{cell.parity.largest_difference:.2g}" if cell.parity else UNTOLD


def score(cell: Cell) -> str:
    """What the task says, or how far the similarities kept their order."""
    if cell.quality is None:
        return UNTOLD
    return f"{cell.quality.score:.4f} ({cell.quality.metric})"


def loss(cell: Cell) -> str:
    """The loss against the original with its interval."""
    return show_interval(cell.quality.loss, "fraction") if cell.quality else UNTOLD


def ran_in(cell: Cell) -> str:
    """The share of multiply-adds by precision, as the engine tells it."""
    if cell.executed is None:
        return "the engine does not tell"
    shares = sorted(cell.executed.items(), key=lambda item: -item[1])
    return ", ".join(f"{units.show(share, 'fraction')} {name}" for name, share in shares)


def costs(cell: Cell) -> tuple[str, str, str, str]:
    """Throughput, peak memory, cold start, and the size of the artefact."""
    seen = cell.measurement
    size = units.show(cell.artefact_bytes, "bytes") if cell.artefact_bytes else UNTOLD
    if seen is None:
        return UNTOLD, UNTOLD, UNTOLD, size
    return (
        show(seen.throughput_per_s, "rate"),
        show(seen.memory_peak_bytes, "bytes"),
        show(seen.cold_start_s, "seconds"),
        size,
    )


def fallbacks(cell: Cell) -> str:
    """How many layers run otherwise than they were annotated."""
    parts = []
    if cell.floats:
        parts.append(f"{len(cell.floats)} in float")
    if cell.approximations:
        parts.append(f"{len(cell.approximations)} by its own rule")
    return ", ".join(parts) or "none"


def counted(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Equal reasons once, with how often they came."""
    return Counter(reasons).most_common()


def failures(found: Comparison) -> list[tuple[str, str, str]]:
    """What is no success: name, state, reason; an engine that fares alike in all precisions comes once."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for cell in found.cells:
        if not cell.succeeded:
            rows.setdefault((found.engine(cell.engine).title, cell.state, cell.reason or ""), []).append(cell.precision)
    return [(f"{engine} {', '.join(which)}", state, reason) for (engine, state, reason), which in rows.items()]


def facts(found: Comparison) -> list[tuple[str, ...]]:
    """A row an engine: version, licence, wheels, and what it takes on disk."""
    return [
        (
            item.title,
            item.version or "not here",
            show(item.install_bytes, "bytes") if item.install_bytes else UNTOLD,
            item.license or UNTOLD,
            item.python or UNTOLD,
            item.architectures or UNTOLD,
        )
        for item in found.engines
    ]


def measured_how(found: Comparison) -> str:
    """The conditions of all figures in a few sentences."""
    first = next((cell.measurement for cell in found.cells if cell.measurement), None)
    if first is None:
        return "Nothing was timed."
    calls = [item.n for cell in found.cells if cell.measurement for item in cell.measurement.latencies]
    judged = next((cell.quality for cell in found.cells if cell.quality), None)
    quality = f" Quality: {judged.kind} on {judged.samples}, n = {judged.n}." if judged else ""
    machine = conditions(first.conditions).partition(";")[0].removeprefix("this machine: ")
    threads = f"{found.threads} {'pinned ' if first.conditions.pinned else ''}thread{'' if found.threads == 1 else 's'}"
    return (
        f"{machine}, {threads}. Each form in a process of its own, in turns with {found.baseline or UNMEASURED}; "
        f"ratios with 95 % intervals, {min(calls)} to {max(calls)} calls a length.{quality} Memory: the peak of a "
        "fresh process that opens the bundle and answers 64 inputs. Cosines: with the fp32 original."
    )
