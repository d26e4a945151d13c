"""``medbridge course progress``: which exercises are solved."""

import argparse
import json

from medbridge.cli.options import add_action
from medbridge.course.progress import progress_file, summary
from medbridge.support.text import text_table


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add_action(actions, _progress, "which exercises are solved, how far each notebook is", "json")


def _progress(args: argparse.Namespace) -> None:
    notebooks = summary()
    states = {number: state for exercises in notebooks.values() for number, state in exercises.items()}
    solved = [number for number, state in states.items() if state == "solved"]
    ahead = next((number for number in states if number not in solved), None)
    if args.json:
        groups = [{"notebook": notebook} | {state: [number for number in exercises if states[number] == state]
                                            for state in ("solved", "tried", "open")}
                  for notebook, exercises in notebooks.items()]
        print(json.dumps({"solved": len(solved), "exercises": len(states), "next": ahead, "file": str(progress_file()),
                          "notebooks": groups}, indent=2))
        return
    rows = [[notebook, f"{len(of.keys() & solved)}/{len(of)}", ", ".join(f"{number} {state}" for number, state in of.items())]
            for notebook, of in notebooks.items()]
    print(text_table([["notebook", "solved", "exercises"], *rows]))
    print(f"\n{len(solved)} of {len(states)} exercises solved; " + (f"next: exercise {ahead}" if ahead else "the course is done"))
    print(f"kept on this machine alone, in {progress_file()}")
