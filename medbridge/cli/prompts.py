"""``medbridge prompts LABEL...``: the sentences of each label, and how alike an expert finds them."""

import argparse

from medbridge.experts import create_expert
from medbridge.prompts import class_prompts, encode_prompts, similarity_table


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
