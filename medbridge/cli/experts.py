"""``medbridge experts list | info | fetch | profile | add | drop``."""

import argparse

from medbridge.adapter import save_adapter
from medbridge.cli.options import add_action, build_experts, load_model
from medbridge.experts import ALIASES
from medbridge.experts.fetch import fetch_expert
from medbridge.experts.info import expert_info
from medbridge.extras.mixture_edit import with_expert, without_expert
from medbridge.features.cost import cost_table, expert_cost
from medbridge.model import MedBridge
from medbridge.support.text import text_table


def register(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_list)
    actions = parser.add_subparsers(dest="action")
    edit = {"names": "adapter out weights", "adapter": {"help": "folder that adapt wrote; it is not changed"},
            "out": {"required": True, "help": "folder of the new adapter"}}
    add_action(actions, _list, "the experts that have a short name")
    info = add_action(actions, _info, "licence, size, input resolution, depth, width, and whether the weights are here")
    fetch = add_action(actions, _fetch, "download an expert's files into the weights folder, with checksums")
    add = add_action(actions, _add, "add an expert to a saved adapter's mixture", **edit)
    drop = add_action(actions, _drop, "drop an expert from a saved adapter's mixture", **edit)
    profile = add_action(actions, _profile, "seconds and memory per view on this machine, and bytes in the cache", "weights")
    for one in (info, fetch, add, drop, profile):
        one.add_argument("name", metavar="NAME", nargs="+" if one is profile else None)
    fetch.add_argument("--to", metavar="FOLDER", help="weights folder (default: MEDBRIDGE_WEIGHTS)")
    profile.add_argument("--views", type=int, default=4, help="views of a batch")
    profile.add_argument("--device", default="cpu")


def _list(_: argparse.Namespace) -> None:
    print(text_table([[name, alias.licence, alias.note] for name, alias in ALIASES.items()]))


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
    print(cost_table([expert_cost(expert, views=args.views) for expert in experts]))


def _add(args: argparse.Namespace) -> None:
    own = [entry for entry in args.weights if entry.partition("=")[0] == args.name]
    model = load_model(args.adapter, [entry for entry in args.weights if entry not in own])
    _save(with_expert(model, build_experts([args.name], own)[0]), args.out)


def _drop(args: argparse.Namespace) -> None:
    _save(without_expert(load_model(args.adapter, args.weights), args.name), args.out)


def _save(model: MedBridge, out: str) -> None:
    save_adapter(model, out)
    print(f"{model.card['edited'][-1]}\nadapter of {', '.join(e.name for e in model.experts)} is in {out}/")
