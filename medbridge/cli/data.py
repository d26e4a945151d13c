"""``medbridge data``: look at a benchmark's folder (``check``), and make a small, fast copy of it (``prepare``)."""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from medbridge.cli.options import add_action, parse_options
from medbridge.data import Benchmark, list_benchmarks, load_benchmark
from medbridge.data.audit import audit
from medbridge.data.prepare import prepare
from medbridge.errors import BenchmarkError
from medbridge.support.files import write_atomic

TOLERANT = {"covidx": {"overlap": "drop-train"}}
"""Options with which `check` loads what a loader refuses by default; the audit then counts it as a fault."""


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    shared = {"names": "option workers", "workers": {"help": "threads (check) or processes (prepare); default: one per core"}}
    check = add_action(actions, _check, "counts, labels, missing and unreadable films, patients in two splits", **shared)
    check.description = "Exit status: 0 no fault, 1 a fault in the data, 2 a command that cannot run."
    copy = add_action(actions, _prepare, "resized 8-bit PNG copy that `--benchmark folder` reads; resumable", **shared)
    for one in (check, copy):
        one.add_argument("name", metavar="NAME", help=f"one of {', '.join(list_benchmarks())}")
        one.add_argument("root", metavar="ROOT", nargs="?", help="folder that holds the benchmark")
    check.add_argument("--sample", type=int, default=200, metavar="N", help="films that are decoded in full (default 200)")
    check.add_argument("--all", action="store_true", help="decode every film")
    check.add_argument("--seed", type=int, default=0, help="of the sample")
    check.add_argument("--out", type=Path, metavar="DIR", help="write audit.json and audit.png there")
    check.add_argument("--json", action="store_true", help="print JSON")
    copy.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the copy")
    copy.add_argument("--size", type=int, default=512, metavar="PX", help="short side (default 512)")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """What is warned of is printed as a line, without file and line of this package."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        yield


def _load(args: argparse.Namespace, **defaults: Any) -> Benchmark:
    try:
        return load_benchmark(args.name, args.root, **(defaults | parse_options(args.option, args.name)))
    except TypeError as error:  # an option that this loader does not have
        raise BenchmarkError(f"benchmark {args.name!r}: {error}; --option takes the arguments of its loader") from None


@_plain_warnings()
def _check(args: argparse.Namespace) -> int:
    benchmark = _load(args, **TOLERANT.get(args.name.lower(), {}))
    report = audit(benchmark, None if args.all else args.sample, args.seed, args.workers)
    text = json.dumps(report.to_dict(), indent=2)
    if args.out:
        from medbridge.viz.plots import audit_panels  # matplotlib, only where a picture is asked for

        try:
            write_atomic(args.out / "audit.json", text + "\n")
            write_atomic(args.out / "audit.png", partial(audit_panels(report).savefig, dpi=120))
        except OSError as error:
            raise BenchmarkError(f"--out {args.out}: cannot write there: {error}") from error
    print(text if args.json else report.text())
    return 1 if report.faults else 0


@_plain_warnings()
def _prepare(args: argparse.Namespace) -> None:
    result = prepare(_load(args), args.out, args.size, args.workers)
    kept = f", {result.kept:,} were there already" if result.kept else ""
    print(f"{result.out}: {result.written:,} films written{kept}; read it with --benchmark folder --root {result.out}")
    if result.unreadable:
        print(f"{len(result.unreadable):,} films cannot be read and are not in the copy ({result.out / 'unreadable.csv'}):",
              *(f"  {reason}" for _, reason in result.unreadable[:5]), sep="\n", file=sys.stderr)
