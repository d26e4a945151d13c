"""``medbridge data``: look at a benchmark's folder (``check``), and make a small, fast copy of it (``prepare``)."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medbridge.cli.options import add_option, parse_options
from medbridge.data import Benchmark, list_benchmarks, load_benchmark
from medbridge.data.audit import audit
from medbridge.data.prepare import prepare
from medbridge.errors import BenchmarkError

__all__ = ["register"]

_SHOWN = 5
_TOLERANT = {"covidx": {"overlap": "drop-train"}}
"""Options with which `check` loads what a loader refuses by default; the audit then counts it as a fault."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands ``data check`` and ``data prepare``."""
    group = commands.add_parser("data", help="check a benchmark's folder; prepare a resized copy of it")
    actions = group.add_subparsers(dest="action", required=True)

    one = actions.add_parser("check", help="counts, labels, missing and unreadable films, patients in two splits",
                             description="Exit status: 0 no fault, 1 a fault in the data, 2 a command that cannot run.")
    _add_benchmark(one)
    one.add_argument("--sample", type=int, default=200, metavar="N", help="films that are decoded in full (default 200)")
    one.add_argument("--all", action="store_true", help="decode every film")
    one.add_argument("--seed", type=int, default=0, help="of the sample")
    one.add_argument("--out", type=Path, metavar="DIR", help="write audit.json and audit.png there")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(run=_check)

    one = actions.add_parser("prepare", help="resized 8-bit PNG copy that `--benchmark folder` reads; resumable")
    _add_benchmark(one)
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the copy")
    one.add_argument("--size", type=int, default=512, metavar="PX", help="short side (default 512)")
    one.set_defaults(run=_prepare)


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(list_benchmarks())}")
    parser.add_argument("root", metavar="ROOT", nargs="?", help="folder that holds the benchmark")
    add_option(parser)
    parser.add_argument("--workers", type=int, help="threads (check) or processes (prepare); default: one a core")


@contextmanager
def _warnings_told() -> Iterator[None]:
    """What is warned of inside is printed on leaving, a line each, without file and line of this package."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            for warning in caught:
                print(f"warning: {warning.message}", file=sys.stderr)


def _load(args: argparse.Namespace, **defaults: Any) -> Benchmark:
    """The benchmark, by ``defaults`` and --option."""
    try:
        with _warnings_told():
            return load_benchmark(args.name, args.root, **(defaults | parse_options(args.option, args.name)))
    except TypeError as error:  # an option that this loader does not have
        raise BenchmarkError(f"benchmark {args.name!r}: {error}; --option takes the arguments of its loader") from None


def _check(args: argparse.Namespace) -> int:
    found = audit(_load(args, **_TOLERANT.get(args.name.lower(), {})), None if args.all else args.sample, args.seed, args.workers)
    if args.out:
        from medbridge.viz.plots import audit_panels  # matplotlib, only where a picture is asked for

        try:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "audit.json").write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
            audit_panels(found).savefig(args.out / "audit.png", dpi=120)
        except OSError as error:
            raise BenchmarkError(f"--out {args.out}: cannot write there: {error}") from error
    print(json.dumps(found.to_dict(), indent=2) if args.json else found.text())
    return 1 if found.faults else 0


def _prepare(args: argparse.Namespace) -> None:
    benchmark = _load(args)
    with _warnings_told():
        result = prepare(benchmark, args.out, args.size, args.workers)
    kept = f", {result.kept:,} were there already" if result.kept else ""
    print(f"{result.out}: {result.written:,} films written{kept}; read it with --benchmark folder --root {result.out}")
    if result.unreadable:
        print(f"{len(result.unreadable):,} films cannot be read and are not in the copy ({result.out / 'unreadable.csv'}):",
              file=sys.stderr)
        for _, reason in result.unreadable[:_SHOWN]:
            print(f"  {reason}", file=sys.stderr)
