"""``medbridge labels``: the vocabulary of findings, and what each benchmark calls them."""

from __future__ import annotations

import argparse

import pandas as pd

from medbridge.data import label_names
from medbridge.data.labels import FINDINGS, canonical

__all__ = ["register", "vocabulary"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command ``labels``."""
    one = commands.add_parser("labels", help="the findings that benchmarks share, by each benchmark's own names")
    one.add_argument("--csv", action="store_true", help="print CSV")
    one.set_defaults(run=_labels)


def vocabulary() -> pd.DataFrame:
    """One row a finding, one column a benchmark with its own name of it ('' where it has none)."""
    names = label_names()
    table = pd.DataFrame("", index=pd.Index(FINDINGS, name="finding"), columns=list(names))
    for benchmark, labels in names.items():
        for label in labels:
            table.loc[canonical(label) or label, benchmark] = label
    return table.fillna("")


def _labels(args: argparse.Namespace) -> None:
    table = vocabulary().reset_index()
    if args.csv:
        print(table.to_csv(index=False), end="")
        return
    rows = [list(table.columns), *table.to_numpy().tolist()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell or '-':<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nOnly the same finding is paired; the names in a row are what `train on one, test on another` scores.")
