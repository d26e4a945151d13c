"""``medbridge data``: get films (``get``), look at a benchmark's folder (``check``), make a small, fast copy (``prepare``)."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medbridge.cli.options import parse_options
from medbridge.data import Benchmark
from medbridge.data.audit import audit
from medbridge.data.get import get
from medbridge.data.prepare import prepare
from medbridge.data.tasks import BenchmarkRef
from medbridge.support.files import try_folder, write_atomic

TOLERANT = {"covidx": {"overlap": "drop-train"}}
"""Options with which `check` loads what a loader refuses by default; the audit then counts it as a fault."""


def _load(args: argparse.Namespace, defaults: Mapping[str, Any]) -> Benchmark:
    return BenchmarkRef(args.name, args.root, {**defaults, **parse_options(args.option, args.name)}).load()


def _check(args: argparse.Namespace) -> int:
    benchmark = _load(args, TOLERANT.get(args.name.lower(), {}))
    if args.out:
        try_folder(args.out)
    report = audit(benchmark, None if args.all else args.sample, args.seed, args.workers)
    text = json.dumps(report.to_dict(), indent=2)
    if args.out:
        from medbridge.viz.plots import audit_panels  # matplotlib, only where a picture is asked for

        write_atomic(args.out / "audit.json", text + "\n")
        write_atomic(args.out / "audit.png", partial(audit_panels(report).savefig, dpi=120))
    print(text if args.json else report.text())
    return 1 if report.faults else 0


def _prepare(args: argparse.Namespace) -> None:
    result = prepare(_load(args, {}), args.out, args.size, args.workers)
    kept = f", {result.kept:,} were there already" if result.kept else ""
    print(f"{result.out}: {result.written:,} films written{kept}; read it with --benchmark folder --root {result.out}")
    if result.unreadable:
        print(f"{len(result.unreadable):,} films cannot be read and are not in the copy ({result.out / 'unreadable.csv'}):",
              *(f"  {reason}" for _, reason in result.unreadable[:5]), sep="\n", file=sys.stderr)


def _get(args: argparse.Namespace) -> None:
    out = get(args.name, args.out or Path(os.environ.get("MEDBRIDGE_DATA") or ".") / args.name.lower(), args.size, args.part)
    loader = "folder" if args.name.lower() == "kermany" else args.name.lower()
    print(f"{out}: {args.name} is here; look at it with: medbridge data check {loader} {out}")
