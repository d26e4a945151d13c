"""``medbridge course progress``: which exercises are solved."""

import argparse
import json
from dataclasses import asdict

from medbridge.cli.options import add_options
from medbridge.course.progress import progress_file, summary


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("progress", help="which exercises are solved, how far each notebook is")
    add_options(one, "json")
    one.set_defaults(run=_progress)


def _progress(args: argparse.Namespace) -> None:
    notebooks = summary()
    solved = sum(len(n.solved) for n in notebooks)
    total = sum(len([*n.solved, *n.tried, *n.open]) for n in notebooks)
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
