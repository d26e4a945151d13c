"""``medbridge experiment FILE.yaml``: a grid of training runs, its tables and its figures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medbridge.studies.experiment import read_experiment, run_experiment
from medbridge.studies.experiment.tables import summary
from medbridge.support.processes import is_main

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the parser of the command."""
    one = commands.add_parser("experiment", help="run the tasks of a YAML file; resumes where it stopped")
    one.add_argument("file", metavar="FILE.yaml", help="see medbridge/studies/experiment_file.py and bench/phantom_tasks.yaml")
    one.add_argument("--out", help="folder of the experiment (default: runs/FILE)")
    one.add_argument("--cache", help="folder of the frozen features (default: MEDBRIDGE_CACHE or ~/.cache/medbridge)")
    one.add_argument("--workers", type=int, help="processes that decode films")
    one.set_defaults(run=_experiment)


def _experiment(args: argparse.Namespace) -> None:
    experiment = read_experiment(args.file)
    out = Path(args.out or f"runs/{Path(args.file).stem}")
    found = run_experiment(experiment, out, cache=args.cache, workers=args.workers)
    if not is_main():
        return
    from medbridge.viz.experiment import write_figures  # matplotlib wants a writable folder: only where something is drawn

    figures = write_figures(found.averages, out / "figures")
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"\n{summary(found.averages, found.differences)}\n")
    print(f"{found.trained} of {found.cells} runs were made now, the others were there. In {out}/ : results, averages and "
          f"differences (Parquet and CSV), {len(figures)} figures. For research and education, not for clinical use.")
