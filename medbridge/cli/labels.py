"""``medbridge labels``: the vocabulary of findings, and what each benchmark calls them."""

import argparse

import pandas as pd

from medbridge.data import label_names
from medbridge.data.labels import FINDINGS, canonical
from medbridge.support.text import text_table


def run(args: argparse.Namespace) -> None:
    names = label_names()
    table = pd.DataFrame("", index=pd.Index(FINDINGS, name="finding"), columns=list(names))
    for benchmark, labels in names.items():
        for label in labels:
            table.loc[canonical(label) or label, benchmark] = label
    table = table.fillna("").reset_index()
    if args.csv:
        print(table.to_csv(index=False), end="")
        return
    print(text_table([list(table.columns), *table.replace("", "-").to_numpy().tolist()]))
    print("\nOnly the same finding is paired; the names in a row are what `train on one, test on another` scores.")
