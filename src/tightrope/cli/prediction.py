"""Commands that measure a device with models of their own, and predict others from that."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tightrope import bundle, plugins, target, units
from tightrope.cli.bundles import FORCE, JSON, THREADS, check_out, lengths_of
from tightrope.errors import DataError, UnknownNameError
from tightrope.plugins import import_optional

PRECISIONS = ("fp32", "fp16", "int8", "int4")


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="here.toml", show_default=True, help="The target file to write."
)
@click.option("--engines", default="", help="Engines to probe, as in native,onnxruntime; by default all installed.")
@click.option("--precision", "precisions", default="fp32,int8", show_default=True, help="Of fp32, fp16, int8 and int4.")
@click.option("--bench", help="A command that starts a bench elsewhere, as in 'ssh pi tightrope bench-worker'.")
@THREADS
@JSON
@FORCE
def probe(
    out: Path, engines: str, precisions: str, bench: str | None, threads: int, as_json: bool, force: bool
) -> None:
    """Measure this device with small models of its own, and write what was found as a target.

    A few minutes an engine. `tightrope predict --target FILE` then says how long a model will take here.
    """
    probing = import_optional("tightrope.workshop.prediction.probing", wanted_by="tightrope probe")
    predicting = import_optional("tightrope.workshop.prediction.predict", wanted_by="tightrope probe")
    run = import_optional("tightrope.device.meter.run", wanted_by="tightrope probe")
    wanted, known = _words(precisions, PRECISIONS, "precision"), plugins.names("runtimes")
    if out.suffix != ".toml":
        raise DataError(f"{out} does not end in .toml.", hint="Name a target file, as in --out here.toml.")
    check_out(out, force)
    found = probing.probe(
        _words(engines, known, "engine") or known,
        wanted,
        place=run.Place(command=bench),
        threads=threads,
        say=lambda text: click.echo(f"probing {text}", err=True),
    )
    device = predicting.as_target(out.stem, found)
    if not device.rates:
        reasons = "; ".join(f"{item.engine}: {item.missing}" for item in found.found)
        raise DataError(
            f"No engine could be probed. {reasons}", hint="Install one: pip install 'tightrope[onnxruntime]'"
        )
    try:
        bundle.write_atomic(out, target.written(device).encode())
    except OSError as error:
        raise bundle.cannot_write(out, error) from error
    click.echo(json.dumps(asdict(found), indent=2) if as_json else _told(found, out))


def _told(found: Any, out: Path) -> str:
    lines = [f"{'engine':<12} {'precision':<10} {'4 tokens':>14} {'250 tokens':>14} {'fit':>6}"]
    for item in found.found:
        if item.rates is None:
            lines.append(f"{item.engine:<12} {item.precision:<10} {item.missing}")
            continue
        small, large = (f"{rate / 1e9:.1f} GMAC/s" for rate in (item.small_per_s, item.large_per_s))
        lines.append(f"{item.engine:<12} {item.precision:<10} {small:>14} {large:>14} {item.rates.error:>5.0%}")
    start = units.show(found.start_s, "seconds")
    lines.append(f"memory: {found.copy_bytes_per_s / 1e9:.1f} GB/s copied; a worker starts in {start}")
    lines.append(f"target  {out}")
    return "\n".join(lines)


@click.command()
@click.argument("model")
@click.option(
    "--target", "name", required=True, help="A target's name (see `tightrope targets`), or the file of a probe."
)
@click.option("--engines", default="", help="By default all that are known of the target.")
@click.option("--precision", "precisions", default="fp32,int8", show_default=True, help="Of fp32, fp16, int8 and int4.")
@click.option("--lengths", default="12,32,128", show_default=True, help="Tokens of the texts.")
@JSON
def predict(model: str, name: str, engines: str, precisions: str, lengths: str, as_json: bool) -> None:
    """Predict the latency of MODEL on a device that is not here.

    From the file of `tightrope probe`, with the error that the probe found on its own models; or from the figures of a
    device's makers, whose error nobody knows. Only `tightrope measure` measures.
    """
    predicting = import_optional("tightrope.workshop.prediction.predict", wanted_by="tightrope predict")
    loading = import_optional("tightrope.workshop.load", wanted_by="tightrope predict")
    device, sizes = target.load(name), lengths_of(lengths)
    known = tuple(dict.fromkeys(key.rpartition(" ")[0] for key in device.rates)) or device.engines
    asked = tuple(part.strip() for part in engines.split(",") if part.strip()) or known
    loaded = loading.load(model)
    found = [
        item
        for engine in asked
        for precision in _words(precisions, PRECISIONS, "precision")
        for item in predicting.predict(loaded, device, engine, precision, sizes)
    ]
    if as_json:
        click.echo(json.dumps([predicting.to_json(item) for item in found], indent=2))
        return
    click.echo(f"Predicted for {device.name} ({device.description}), one thread. Nothing here was measured.")
    for item in found:
        what = "an image" if item.tokens is None else f"{item.tokens} tokens"
        sure = f"probe, off by {item.error:.0%} on its own models" if item.basis == "probe" else "from specifications"
        click.echo(
            f"  {item.engine:<12} {item.precision:<6} {what:>12}  {units.show(item.seconds, 'seconds'):>9}  {sure}"
        )


def _words(text: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for word in found:
        if word not in known:
            raise UnknownNameError(f"There is no {what} {word!r:.40}.", hint=f"Known: {', '.join(known)}.")
    return found
