"""``medbridge course progress``: which exercises are solved."""

import argparse

from medbridge.course.progress import progress_file, summary
from medbridge.support.text import text_table


def _progress(_: argparse.Namespace) -> None:
    notebooks = summary()
    states = {number: state for exercises in notebooks.values() for number, state in exercises.items()}
    solved = [number for number, state in states.items() if state == "solved"]
    ahead = next((number for number in states if number not in solved), None)
    rows = [[notebook, f"{len(of.keys() & solved)}/{len(of)}", ", ".join(f"{number} {state}" for number, state in of.items())]
            for notebook, of in notebooks.items()]
    print(text_table([["notebook", "solved", "exercises"], *rows]))
    print(f"\n{len(solved)} of {len(states)} exercises solved; " + (f"next: exercise {ahead}" if ahead else "the course is done"))
    print(f"kept on this machine alone, in {progress_file()}")
