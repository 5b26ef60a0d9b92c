"""Commands for a bundle that exists. They need the base install and the bundle's engine only."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tightrope import bundle, transport, units
from tightrope.bundle import Bundle
from tightrope.errors import DataError, OutputError
from tightrope.measurement import length

BUNDLE = click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
FORCE = click.option("--force", is_flag=True, help="Replace what lies there.")
THREADS = click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
ENGINE = click.option("--engine", help="Which of the bundle's engines to use; by default the first that runs here.")


@click.command()
@BUNDLE
@ENGINE
@THREADS
@click.option("--bench", help="Prove it there: a command that starts a worker, as in 'ssh pi tightrope bench-worker'.")
@click.option("--every-isa", is_flag=True, help="Prove it on each instruction set of this processor (native engine).")
@click.option("--emulate", type=click.Choice(["aarch64"]), help="Prove it on emulated processors, under QEMU.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Python and tightrope for --emulate; by default $TIGHTROPE_ARM64_ROOT.",
)
@JSON
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    path: Path,
    engine: str | None,
    threads: int,
    root: Path | None,
    as_json: bool,
    **elsewhere: Any,
) -> None:
    """Check every digest of BUNDLE, then its answers against those recorded in it.

    Here, or at each place that is asked for. Exits 3 if answers are further from the recorded ones than the bundle
    allows, or if there are none.
    """
    from tightrope.device.proof import prove

    source = bundle.read(path)
    if not as_json:
        click.echo(f"{path}: {len(source.content.files)} files as declared, digest {source.digest:.16}")
    if any(elsewhere.values()):
        outcomes = _proved_at(source, threads, engine, root, as_json, **elsewhere)
        ctx.exit(0 if all(outcome.holds for outcome in outcomes) else 3)
    proof = prove(source, threads=threads, engine=engine)
    if as_json:
        click.echo(json.dumps({"digest": source.digest, **asdict(proof)}, indent=2))
    else:
        click.echo(_agreement("recorded answers", proof.expected, "agree" if proof.holds else "DISAGREE"))
        if proof.original:
            click.echo(_agreement("original (fp32)", proof.original, "compared"))
        if proof.saturating_layers:
            click.echo(
                f"This processor has no VNNI: products of {proof.saturating_layers} layers may saturate. "
                "Weights of seven bits do not: int8(reduce_range=true)."
            )
    if not proof.holds:
        ctx.exit(3)


def _proved_at(
    source: Bundle,
    threads: int,
    engine: str | None,
    root: Path | None,
    as_json: bool,
    *,
    bench: str | None,
    every_isa: bool,
    emulate: str | None,
) -> list[Any]:
    """Prove a bundle at each place that was asked for, and say what came of it as it comes."""
    from tightrope.device.meter import elsewhere

    places = [elsewhere.Place(name="bench", command=bench)] if bench else []
    places += elsewhere.instruction_sets() if every_isa else ()
    places += elsewhere.emulated(root) if emulate else ()
    outcomes = []
    for place in places:
        outcome = elsewhere.prove_at(source, place, threads=threads, engine=engine)
        outcomes.append(outcome)
        if as_json:
            continue
        if outcome.proof is None:
            click.echo(f"{place.name}: FAILED. {outcome.error}")
        else:
            click.echo(_agreement(place.name, outcome.proof.expected, "agrees" if outcome.holds else "DISAGREES"))
    if as_json:
        told = [{"holds": outcome.holds, **asdict(outcome)} for outcome in outcomes]
        click.echo(json.dumps({"digest": source.digest, "places": told}, indent=2))
    return outcomes


def _agreement(what: str, found: Any, word: str) -> str:
    return (
        f"{what}: {word} on {found.n} texts; cosine {found.cosine_min:.5f} least, {found.cosine_mean:.5f} mean, "
        f"largest difference {found.largest_difference:.2g}"
    )


@click.command()
@BUNDLE
@click.option(
    "--against", type=click.Path(path_type=Path), help="A bundle of the original, timed in turns with this one."
)
@click.option("--lengths", default="12,32,128", show_default=True, help="Tokens of the texts to time.")
@click.option("--bench", help="A command that starts a bench elsewhere, as in 'ssh pi tightrope bench-worker'.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True, help="How long to measure.")
@THREADS
@click.option("--attach", is_flag=True, help="Keep the result in the bundle; its digest stays what it is.")
@JSON
def measure(path: Path, as_json: bool, attach: bool, **settings: Any) -> None:
    """Measure latency, throughput, memory, start and energy of BUNDLE in a process of its own."""
    from tightrope.device.meter.run import measure_bundle

    lengths = lengths_of(settings.pop("lengths"))
    source = bundle.read(path)
    found = measure_bundle(source, lengths=lengths, **settings)
    if attach:
        bundle.attach(source, {"measurement": found.to_json()})
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else _measurement_text(found))


def lengths_of(text: str) -> tuple[int, ...]:
    """Numbers of tokens as they are written, in ascending order. Raises `DataError` for anything else."""
    try:
        lengths = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        lengths = ()
    if not lengths or not all(3 <= length <= 8192 for length in lengths):
        raise DataError(
            f"The lengths {text!r} cannot be measured.", hint="Give numbers of tokens from 3 to 8192: 12,32,128."
        )
    return lengths


def _measurement_text(found: Any) -> str:
    conditions = found.conditions
    lines = [
        f"{conditions.engine} {conditions.engine_version} on {conditions.processor} ({conditions.architecture}), "
        f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}{', pinned' if conditions.pinned else ''}"
    ]
    for item in found.latencies:
        ratio = f", {item.speedup.value:.2f}x [{item.speedup.low:.2f}, {item.speedup.high:.2f}]" if item.speedup else ""
        times = ", ".join(
            f"{name} {units.show(getattr(item, f'{name}_s'), 'seconds')}" for name in ("p50", "p95", "p99")
        )
        lines.append(f"{length(item.tokens)}: {times} (n={item.n}){ratio}")
    rows = {
        "throughput": (found.throughput_per_s, "rate"),
        "peak memory": (found.memory_peak_bytes, "bytes"),
        "above the bare interpreter": (found.memory_above_interpreter_bytes, "bytes"),
        "cold start": (found.cold_start_s, "seconds"),
        "size": (found.size_bytes, "bytes"),
        "energy a text": (found.energy_j, "joules"),
    }
    for name, (value, dimension) in rows.items():
        lines.append(f"{name}: {'not measured' if value is None else units.show(value, dimension)}")
    return "\n".join(lines)


@click.command()
@BUNDLE
@JSON
def show(path: Path, as_json: bool) -> None:
    """Say what BUNDLE is: task, engine, recipe, where it comes from, what was measured.

    With --json all of it: also the run of its fit, in which each timed trial tells which layers ran in which precision.
    """
    source = bundle.read(path)
    if as_json:
        attachments = {Path(item.path).stem: source.attachment(Path(item.path).stem) for item in source.attachments}
        content = json.loads(bundle.canonical(asdict(source.content)))
        click.echo(json.dumps({"digest": source.digest, "content": content, "attachments": attachments}, indent=2))
        return
    for name, value in _facts(source):
        click.echo(f"{name:<12} {value}")


def _facts(source: Bundle) -> Iterator[tuple[str, str]]:
    content, lineage = source.content, source.content.lineage
    yield "digest", source.digest
    yield "task", ", ".join(f"{key} {value}" for key, value in content.task.items() if key != "labels")
    yield "made of", f"{lineage.get('source')} ({str(lineage.get('source_digest'))[:16]})"
    yield "recipe", content.recipe
    for item in content.models[0].artefacts:
        needs = ", ".join((*item.requires.architectures, *item.requires.isa)) or "any machine"
        yield "engine", f"{item.engine}, {item.precision}, for {needs}"
    yield "size", units.show(source.size_bytes, "bytes")
    yield "made with", ", ".join(f"{name} {version}" for name, version in lineage.get("tools", {}).items())
    quality, measurement = source.attachment("quality"), source.attachment("measurement")
    for trial in _chosen(source.attachment("run")):
        shares = (f"{units.show(share, 'fraction')} {name}" for name, share in (trial.get("executed") or {}).items())
        yield "ran in", ", ".join(shares) or "unknown: the engine does not tell"
    if quality:
        loss = quality["loss"]
        low, high = (units.show(loss[end], "fraction") for end in ("low", "high"))
        yield (
            "loss",
            f"{units.show(loss['value'], 'fraction')} [{low}, {high}] on {quality['samples']}, n={quality['n']}",
        )
    if measurement:
        for item in measurement["latencies"]:
            yield "latency", f"{length(item['tokens'])}: {units.show(item['p50_s'], 'seconds')} p50 (n={item['n']})"


def _chosen(run: Any) -> list[Any]:
    """The trial that became this bundle, if the run of its fit is attached."""
    return [trial for trial in run["trials"] if trial["recipe"] == run["chosen"]] if run else []


@click.command()
@BUNDLE
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="How many classes to name.")
@THREADS
@ENGINE
@JSON
def classify(path: Path, images: tuple[Path, ...], top: int, as_json: bool, **settings: Any) -> None:
    """Say what is on IMAGES: the likeliest classes of each, with their probabilities."""
    from tightrope.device.classifier import Classifier, open_any

    with open_any(path, **settings) as model:
        if not isinstance(model, Classifier):
            raise DataError(f"{path} is for text.", hint="Use `tightrope embed` or `tightrope score`.")
        for image in images:
            found = model.top([image], top)[0]
            if as_json:
                click.echo(json.dumps({"image": str(image), "classes": [list(item) for item in found]}))
            else:
                named = ", ".join(f"{name} {units.show(share, 'fraction')}" for name, share in found)
                click.echo(f"{image}: {named}")


@click.command()
@BUNDLE
@click.argument("texts", type=click.File("rb"))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write a float32 .npy file; without it, a JSON line a text."
)
@click.option("--prompt", help="Name of the model's prompt to put before each text.")
@THREADS
@ENGINE
@FORCE
def embed(path: Path, texts: Any, out: Path | None, prompt: str | None, force: bool, **settings: Any) -> None:
    """Embed TEXTS, one a line ('-' reads standard input), and write the vectors in the same order."""
    from tightrope.device.model import Embedder, open_bundle

    check_out(out, force)
    lines = _lines(texts)
    with open_bundle(path, **settings) as model:
        if not isinstance(model, Embedder):
            raise DataError(f"{path} scores pairs; it does not embed texts.", hint="Use `tightrope score`.")
        vectors = model.embed(lines, prompt=prompt)
        truncated = model.truncated
    _write(vectors, out)
    if truncated:
        click.echo(f"{truncated} of {len(lines)} texts were longer than the model's limit and were cut.", err=True)


@click.command()
@BUNDLE
@click.argument("pairs", type=click.File("rb"))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write a float32 .npy file; without it, a JSON line a pair."
)
@THREADS
@ENGINE
@FORCE
def score(path: Path, pairs: Any, out: Path | None, force: bool, **settings: Any) -> None:
    """Score PAIRS, two texts a line with a tab between ('-' reads standard input)."""
    from tightrope.device.model import Scorer, open_bundle

    check_out(out, force)
    rows: list[Any] = [tuple(line.split("\t")) for line in _lines(pairs)]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(
                f"Line {number} has {len(row)} columns.", hint="Write two texts a line, a tab between them."
            )
    with open_bundle(path, **settings) as model:
        if not isinstance(model, Scorer):
            raise DataError(f"{path} embeds texts; it does not score pairs.", hint="Use `tightrope embed`.")
        scores = model.score(rows)
    _write(scores, out)


def _lines(stream: Any) -> list[str]:
    try:
        text = stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The input is not UTF-8 at byte {error.start:,}.", hint="Convert it: iconv -t UTF-8."
        ) from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def check_out(out: Path | None, force: bool) -> None:
    """Before any work: a file that lies there is not replaced unasked, and its folder must be."""
    if out is not None and out.exists() and not force:
        raise bundle.exists(out)
    if out is not None and not out.parent.is_dir():
        raise OutputError(f"There is no folder {out.parent}.", hint="Make it first, or choose another --out.")


def _write(rows: Any, out: Path | None) -> None:
    import io

    import numpy as np

    if out is None:
        for row in rows:
            click.echo(json.dumps(np.round(row.astype(float), 7).tolist()))
        return
    stream = io.BytesIO()
    np.save(stream, rows, allow_pickle=False)
    try:
        bundle.write_atomic(out, stream.getvalue())
    except OSError as error:
        raise bundle.cannot_write(out, error) from error
    click.echo(f"{out}: float32 {list(rows.shape)}", err=True)


@click.command()
@BUNDLE
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@FORCE
def pack(path: Path, out: Path, force: bool) -> None:
    """Write BUNDLE as one file, for copying and sending."""
    written = transport.pack(bundle.read(path), out, force=force)
    click.echo(f"{written}: {units.show(written.stat().st_size, 'bytes')}")


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle's folder.")
@FORCE
def unpack(path: Path, out: Path, force: bool) -> None:
    """Unpack FILE into a bundle, verify it and put it in place."""
    found = transport.unpack(path, out, force=force)
    click.echo(f"{found.path}: digest {found.digest}")


@click.command("bench-worker")
def bench_worker() -> None:
    """Measure bundles on request, over standard input and output; `tightrope fit --bench` starts this."""
    from tightrope.device.meter.worker import main

    raise SystemExit(main())
