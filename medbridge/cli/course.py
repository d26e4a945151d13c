"""``medbridge course progress``: which exercises are solved."""

import argparse
import json
from dataclasses import asdict

from medbridge.cli.options import add_options
from medbridge.course.progress import progress_file, summary
from medbridge.support.text import text_table


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("progress", help="which exercises are solved, how far each notebook is")
    add_options(one, "json")
    one.set_defaults(run=_progress)


def _progress(args: argparse.Namespace) -> None:
    notebooks = summary()
    marks = [{**dict.fromkeys(n.solved, "solved"), **dict.fromkeys(n.tried, "tried"), **dict.fromkeys(n.open, "open")}
             for n in notebooks]
    solved, total = sum(len(n.solved) for n in notebooks), sum(map(len, marks))
    ahead = next((number for of in marks for number in sorted(of, key=_order) if of[number] != "solved"), None)
    if args.json:
        print(json.dumps({"solved": solved, "exercises": total, "next": ahead, "file": str(progress_file()),
                          "notebooks": [asdict(n) for n in notebooks]}, indent=2))
        return
    rows = [[n.notebook, f"{len(n.solved)}/{len(of)}", ", ".join(f"{number} {of[number]}" for number in sorted(of, key=_order))]
            for n, of in zip(notebooks, marks, strict=True)]
    print(text_table([["notebook", "solved", "exercises"], *rows]))
    print(f"\n{solved} of {total} exercises solved; " + (f"next: exercise {ahead}" if ahead else "the course is done"))
    print(f"kept on this machine alone, in {progress_file()}")


def _order(number: str) -> list[int]:
    return [int(part) for part in number.split(".")]
