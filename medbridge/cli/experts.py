"""``medbridge experts list | info | fetch | profile``."""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from medbridge.cli.options import build_experts
from medbridge.data.images import read_film
from medbridge.experts import ALIASES
from medbridge.experts.fetch import fetch_expert
from medbridge.experts.info import expert_info
from medbridge.features.budget import LARGE, cost_of_run, run_cost_table
from medbridge.features.cache import features_folder
from medbridge.features.compact import MapBasis, MapFormat
from medbridge.features.cost import cost_table, expert_cost
from medbridge.features.encode import film_views
from medbridge.features.rates import measure_rates
from medbridge.support.text import text_table
from medbridge.support.threads import decode_threads


def run(_: argparse.Namespace) -> None:
    print(text_table([[name, alias.licence, alias.note] for name, alias in ALIASES.items()]))


_list = run


def _info(args: argparse.Namespace) -> None:
    info = expert_info(args.name)
    unknown = "known once its files are here"
    rows = {
        "name": info.name, "stands for": info.target,
        "licence": info.licence or "see the model's own card", "note": info.note,
        "input": f"{info.size} x {info.size} pixels" if info.size else unknown,
        "blocks": info.depth or unknown, "width": info.width or unknown,
        "vision tower": f"{info.parameters / 1e6:.1f} M parameters" if info.parameters else unknown,
        "weights": f"{info.here} ({info.bytes / 1e6:.0f} MB)" if info.here else
        f"not here; looked for as {info.wanted} in the folder that MEDBRIDGE_WEIGHTS names",
    }
    for key, value in rows.items():
        if value:
            print(f"{key:<13} {value}")


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
        boxes, kinds = LARGE.inference_boxes(1024, 1024), {e.view_kind for e in experts}
        with TemporaryDirectory() as place:
            path = Path(place) / "film.png"
            Image.effect_noise((1024, 1024), 8).save(path)
            rates = measure_rates(costs, features_folder(), decode_threads(), 10**6,
                                  lambda _: film_views(partial(read_film, path), boxes, kinds))
        bases = [MapBasis(e, c.depths, MapFormat()) for e, c in zip(experts, costs, strict=True)]
        pool = len(LARGE.training_boxes(1024, 1024, ""))
        cost = cost_of_run(experts, [c.depths for c in costs], args.films, pool, len(boxes), bases)
        print(f"\nwith `--overlap 0 --members 1`, films of 1024 x 1024:\n{run_cost_table(cost, rates)}")
