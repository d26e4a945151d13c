"""``medbridge prompts LABEL...``: the sentences of each label, and how alike an expert finds them."""

from __future__ import annotations

import argparse

from medbridge.experts import create_expert
from medbridge.prompts import class_prompts, encode_prompts, similarity_table

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    one = commands.add_parser("prompts", help="the prompts of labels, and their similarity in an expert's text space")
    one.add_argument("labels", nargs="+", metavar="LABEL")
    one.add_argument("--expert", default="tiny-vit", metavar="NAME", help="whose text space (default tiny-vit)")
    one.add_argument("--weights", metavar="FILE", help="file of the expert's weights")
    one.set_defaults(run=_prompts)


def _prompts(args: argparse.Namespace) -> None:
    expert = create_expert(args.expert, weights=args.weights)
    for label in args.labels:
        ensemble = class_prompts(label)
        print(label)
        for sign, texts in (("+", ensemble.positive), ("-", ensemble.negative)):
            for text in texts:
                print(f"  {sign} {text}")
    print(f"\ncosine similarity of the mean prompts, text space of {expert.name}")
    print(similarity_table(args.labels, *encode_prompts(expert, args.labels)))
