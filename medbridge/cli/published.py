"""``medbridge published``: what others report on a benchmark, where it was read, and how their protocol differs."""

import argparse

import numpy as np

from medbridge.studies.published import HEADING, published_benchmarks, published_results, published_table


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--benchmark", metavar="NAME", help=f"one of {', '.join(published_benchmarks())}; default all")
    parser.add_argument("--labels", action="store_true", help="the AUC of each label too")
    parser.add_argument("--csv", action="store_true", help="print CSV, with one column per label")


def run(args: argparse.Namespace) -> None:
    if args.csv:
        print(published_table(args.benchmark, labels=True).to_csv(index=False), end="")
        return
    print(HEADING)
    for r in published_results(args.benchmark):
        how = "stated" if np.isfinite(r.stated_mean) else f"mean of {len(r.auc)} labels"
        value = f"AUC {r.mean:.3f} ({how})" if r.has_numbers else "numbers not seen"
        print(f"\n{r.benchmark}: {r.method}: {value}\n  {r.citation}\n  read at {r.source}: {r.seen}\n  differs: {r.difference}")
        if args.labels and r.auc:
            print("  " + ", ".join(f"{label} {auc:g}" for label, auc in r.auc.items()))
