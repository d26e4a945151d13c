"""``medbridge course progress``: which exercises are solved."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from medbridge.course.progress import progress_file, summary

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    group = commands.add_parser("course", help="the exercises of the notebooks").add_subparsers(dest="action", required=True)
    one = group.add_parser("progress", help="which exercises are solved, how far each notebook is")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(run=_progress)


def _progress(args: argparse.Namespace) -> None:
    notebooks = summary()
    solved, total = (sum(len(getattr(n, part)) for n in notebooks for part in parts)
                     for parts in (("solved",), ("solved", "tried", "open")))
    ahead = next((number for n in notebooks for number in sorted((*n.tried, *n.open), key=_order)), None)
    if args.json:
        print(json.dumps({"solved": solved, "exercises": total, "next": ahead, "file": str(progress_file()),
                          "notebooks": [asdict(n) for n in notebooks]}, indent=2))
        return
    print("notebook  solved  exercises")
    for n in notebooks:
        marks = {**dict.fromkeys(n.solved, "solved"), **dict.fromkeys(n.tried, "tried"), **dict.fromkeys(n.open, "open")}
        count = f"{len(n.solved)}/{len(marks)}"
        print(f"{n.notebook:<8}  {count:<6}  {', '.join(f'{number} {marks[number]}' for number in sorted(marks, key=_order))}")
    print(f"\n{solved} of {total} exercises solved; " + (f"next: exercise {ahead}" if ahead else "the course is done"))
    print(f"kept on this machine alone, in {progress_file()}")


def _order(number: str) -> tuple[int, int]:
    notebook, exercise = number.split(".")
    return int(notebook), int(exercise)
