"""``medbridge prompts LABEL...``: the sentences of each label, and how alike an expert finds them."""

import argparse

from medbridge.cli.options import build_experts
from medbridge.prompts import class_prompts, encode_prompts
from medbridge.support.text import text_table


def run(args: argparse.Namespace) -> None:
    """Two labels that are nearly one here can only be told apart by what is learned; a label whose two sides are nearly one (last
    column) gives zero-shot nothing to go by."""
    [expert] = build_experts([args.expert], args.weights)
    for label in args.labels:
        prompts = class_prompts(label)
        print(label, *(f"  + {text}" for text in prompts.positive), *(f"  - {text}" for text in prompts.negative), sep="\n")
    print(f"\ncosine similarity of the mean prompts, text space of {expert.name}")
    positive, negative = encode_prompts(expert, args.labels)
    alike, own = (positive @ positive.T).tolist(), (positive * negative).sum(dim=1).tolist()
    rows = [[label, *(f"{value:.3f}" for value in (*alike[i], own[i]))] for i, label in enumerate(args.labels)]
    print(text_table([["", *args.labels, "own negative"], *rows], ["left", *["right"] * (len(rows) + 1)]))
