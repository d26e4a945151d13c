"""``medbridge prompts LABEL...``: the sentences of each label, and how alike an expert finds them."""

import argparse
from collections.abc import Sequence

from torch import Tensor

from medbridge.experts import create_expert
from medbridge.prompts import class_prompts, encode_prompts


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labels", nargs="+", metavar="LABEL")
    parser.add_argument("--expert", default="tiny-vit", metavar="NAME", help="whose text space (default tiny-vit)")
    parser.add_argument("--weights", metavar="FILE", help="file of the expert's weights")


def run(args: argparse.Namespace) -> None:
    expert = create_expert(args.expert, weights=args.weights)
    for label in args.labels:
        prompts = class_prompts(label)
        print(label, *(f"  + {text}" for text in prompts.positive), *(f"  - {text}" for text in prompts.negative), sep="\n")
    print(f"\ncosine similarity of the mean prompts, text space of {expert.name}")
    print(similarity_table(args.labels, *encode_prompts(expert, args.labels)))


def similarity_table(labels: Sequence[str], positive: Tensor, negative: Tensor) -> str:
    """Cosine similarity of the labels' positive means, and in the last column of each label's two sides.

    Two labels that are nearly one here can only be told apart by what is learned; a label whose sides are nearly one gives
    zero-shot nothing to go by.
    """
    values = (positive @ positive.T).tolist()
    own = (positive * negative).sum(dim=1).tolist()
    first = max(map(len, labels))
    heads = [*labels, "own negative"]
    lines = ["  ".join([" " * first, *heads])]
    for label, row, opposite in zip(labels, values, own, strict=True):
        cells = [f"{value:>{len(head)}.3f}" for head, value in zip(heads, [*row, opposite], strict=True)]
        lines.append("  ".join([f"{label:<{first}}", *cells]))
    return "\n".join(lines)
