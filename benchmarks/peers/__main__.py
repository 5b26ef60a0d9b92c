"""`python -m benchmarks.peers`: environments, models, one interleaved run, its JSON, and the table on the terminal."""

import argparse
import sys
from pathlib import Path

from benchmarks.documents import store
from benchmarks.peers import candidates
from benchmarks.peers.candidates import Candidate
from benchmarks.peers.corpus import corpus_folder, read_corpus
from benchmarks.peers.limit import compile_limit
from benchmarks.peers.prepare import original, prepare
from benchmarks.peers.promised import NATIVE_AVX2, elsewhere, promised
from benchmarks.peers.results import results
from benchmarks.peers.rounds import Plan, Run, pin
from benchmarks.table import PEERS, summary, table
from tightrope.errors import TightropeError, UnknownNameError


def main() -> int:
    """Run the benchmark; 1 if something is missing or the run does not count."""
    given = _arguments()
    try:
        return _bench(given)
    except TightropeError as error:
        print(error, file=sys.stderr)
        return 1


def _bench(given: argparse.Namespace) -> int:
    work, texts = given.work.resolve(), corpus_folder()
    prepare(work, texts, _say)
    if given.prepare_only:
        return 0
    chosen = _chosen(candidates.peers(work), given.only)
    bundles = dict(given.bundle) if given.bundle else promised(work, _say)
    chosen += [candidates.ours(name, path) for name, path in bundles.items() if name != NATIVE_AVX2]
    for name, isas in elsewhere().items():
        chosen += [candidates.ours(name, bundles[name], isa) for isa in isas if name in bundles]
    corpus = read_corpus(texts, original(work) / "tokenizer.json")
    corpus_rounds = min(given.corpus_rounds, given.rounds)
    plan = Plan(rounds=given.rounds, corpus_rounds=corpus_rounds, cold_starts=given.cold_starts)
    run = Run(work, corpus, plan, compile_limit(work), _say)
    core = pin(given.core)
    run.measure(chosen)
    found = results(run, core)
    store(given.out, found)
    print(table(found), summary(found), f"Stored in {given.out}.", sep="\n")
    return 0 if found["validity"]["valid"] is not False else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="environments and models (4.6 GB)")
    parser.add_argument("--out", type=Path, default=PEERS, help="where the results are stored")
    parser.add_argument("--bundle", type=_named, action="append", metavar="NAME=PATH", help="ours; may be repeated")
    parser.add_argument("--only", action="append", metavar="PEER", help="only this peer; may be repeated")
    parser.add_argument("--rounds", type=_count, default=24, help="of latency")
    parser.add_argument("--corpus-rounds", type=_count, default=8, help="how many of them embed the corpus")
    parser.add_argument("--cold-starts", type=_count, default=3, help="fresh processes of each")
    parser.add_argument("--core", type=int, help="the core to stay on; the last one otherwise")
    parser.add_argument("--prepare-only", action="store_true", help="stop before the run")
    return parser.parse_args()


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH with a bundle at PATH")
    return name, Path(path)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _chosen(everybody: list[Candidate], only: list[str] | None) -> list[Candidate]:
    names = [item.name for item in everybody]
    for name in only or ():
        if name not in names:
            raise UnknownNameError(f"There is no peer {name!r}.", hint=f"Known: {', '.join(names)}.")
    return [item for item in everybody if not only or item.name in only]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
