"""``medbridge published``: what others report on a benchmark, where it was read, and how their protocol differs."""

import argparse

from medbridge.studies.published import HEADING, published_results, published_table
from medbridge.support.text import fill_template


def run(args: argparse.Namespace) -> None:
    if args.csv:
        print(published_table(args.benchmark, labels=True).to_csv(index=False), end="")
        return
    results = published_results(args.benchmark).rename(columns={"protocol difference": "difference"})
    print(fill_template(__file__, "published.txt.jinja", heading=HEADING, results=results, labels=args.labels), end="")
