"""``medbridge prompts LABEL...``: the sentences of each label, and how alike an expert finds them."""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from medbridge.experts import create_expert
from medbridge.prompts import class_prompts, encode_prompts
from medbridge.support.text import text_table


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
    values = torch.cat([positive @ positive.T, (positive * negative).sum(dim=1, keepdim=True)], dim=1).tolist()
    rows = [[label, *(f"{value:.3f}" for value in row)] for label, row in zip(labels, values, strict=True)]
    return text_table([["", *labels, "own negative"], *rows], ["left", *["right"] * (len(labels) + 1)])
