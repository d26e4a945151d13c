"""``medbridge experts list | info | fetch | profile``."""

import argparse

from medbridge.cli.options import build_experts
from medbridge.data import load_benchmark
from medbridge.experts import ALIASES
from medbridge.experts.fetch import fetch_expert
from medbridge.experts.info import expert_info
from medbridge.features.budget import LARGE, cost_of_run, run_cost_table
from medbridge.features.cache import FeatureCache
from medbridge.features.cost import cost_table, expert_cost
from medbridge.model import AdapterConfig, map_reader
from medbridge.support.text import fill_template, text_table


def run(_: argparse.Namespace) -> None:
    print(text_table([[name, alias.licence, alias.note] for name, alias in ALIASES.items()]))


_list = run


def _info(args: argparse.Namespace) -> None:
    print(fill_template(__file__, "experts.txt.jinja", info=expert_info(args.name)), end="")


def _fetch(args: argparse.Namespace) -> None:
    files = fetch_expert(args.name, args.to)
    for path, checksum in files.items():
        print(f"{path}  {f'checksum {checksum} as the hub states it' if checksum else 'was here'}")
    if not files:
        print(f"{args.name} is shipped; nothing to fetch")


def _profile(args: argparse.Namespace) -> None:
    experts = build_experts(args.name, args.weights, args.device)
    costs = [expert_cost(expert, views=args.views) for expert in experts]
    print(cost_table(costs))
    if args.films:
        reader = map_reader(experts, AdapterConfig(), LARGE)
        pool, drawn = len(LARGE.training_boxes(1024, 1024, "")), len(LARGE.inference_boxes(1024, 1024))
        cost = cost_of_run(experts, reader.depths, args.films, pool, drawn, reader.bases)
        rates = FeatureCache().rates(reader, load_benchmark("phantom", n_films=24))
        print(f"\nwith `--overlap 0 --members 1`, decoding by synthetic films:\n{run_cost_table(cost, rates)}")
