"""``medbridge published``: what others report on a benchmark, where it was read, and how their protocol differs."""

import argparse

import numpy as np

from medbridge.studies.published import HEADING, published_results, published_table


def run(args: argparse.Namespace) -> None:
    if args.csv:
        print(published_table(args.benchmark, labels=True).to_csv(index=False), end="")
        return
    print(HEADING)
    for r in published_results(args.benchmark).rename(columns={"protocol difference": "difference"}).itertuples():
        how = "stated" if r.mean_of == "stated" else f"mean of {r.mean_of}"
        value = f"AUC {r.auc:.3f} ({how})" if np.isfinite(r.auc) else "numbers not seen"
        print(f"\n{r.benchmark}: {r.method}: {value}\n  {r.citation}\n  read at {r.source}: {r.seen}\n  differs: {r.difference}")
        if args.labels and r.per_label:
            print("  " + ", ".join(f"{label} {auc:g}" for label, auc in r.per_label.items()))
