"""``medbridge experts list | info | fetch | profile | add | drop``, and the option ``--weights NAME=FILE`` of other commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medbridge.errors import AdapterError, ExpertError
from medbridge.experts import ALIASES, PRECISIONS, Expert, create_expert
from medbridge.experts.fetch import fetch_expert
from medbridge.experts.info import expert_info
from medbridge.features.cost import cost_table, expert_cost
from medbridge.model import MedBridge

__all__ = ["add_precision", "add_weights", "build_experts", "load_model", "register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command group."""
    group = commands.add_parser("experts", help="foundation models by name, and the experts of a mixture")
    group.set_defaults(run=_list)
    actions = group.add_subparsers(dest="action")
    actions.add_parser("list", help="the experts that have a short name").set_defaults(run=_list)
    one = actions.add_parser("info", help="licence, size, input resolution, depth, width, and whether the weights are here")
    one.add_argument("name", metavar="NAME")
    one.set_defaults(run=_info)
    one = actions.add_parser("fetch", help="download an expert's files into the weights folder, with checksums")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--to", metavar="FOLDER", help="weights folder (default: MEDBRIDGE_WEIGHTS)")
    one.set_defaults(run=_fetch)
    for action, text, run in (("add", "add an expert to a saved adapter's mixture", _add),
                              ("drop", "drop an expert from a saved adapter's mixture", _drop)):
        one = actions.add_parser(action, help=text)
        one.add_argument("name", metavar="NAME")
        one.add_argument("--adapter", required=True, help="folder that adapt wrote; it is not changed")
        one.add_argument("--out", required=True, help="folder of the new adapter")
        add_weights(one)
        one.set_defaults(run=run)
    one = actions.add_parser("profile", help="seconds and memory a view on this machine, and bytes in the cache")
    one.add_argument("names", nargs="+", metavar="NAME")
    one.add_argument("--views", type=int, default=4, help="views of a batch")
    one.add_argument("--device", default="cpu")
    add_weights(one)
    one.set_defaults(run=_profile)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option that names weights files by expert."""
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE",
                        help="file (or folder) of an expert's weights; repeat for more than one")


def add_precision(parser: argparse.ArgumentParser, trained: bool = False) -> None:
    """The option that says what the frozen towers compute in; ``trained``: by default what the adapter was trained with."""
    parser.add_argument("--precision", choices=PRECISIONS, default=None if trained else "float32",
                        help="what the frozen towers compute in; such features have a place of their own in the cache "
                             f"(default: {'as in training' if trained else 'float32'})")


def build_experts(
    names: Sequence[str], given: Sequence[str] = (), device: str = "cpu", precision: str | Sequence[str] = "float32",
) -> list[Expert]:
    """Experts by name, some of them with weights from ``NAME=FILE``; ``precision``: of all, or one each.

    Raises:
        ExpertError: an entry without ``=``, or of an expert that is not asked for.
    """
    files = _files(names, given)
    kinds = [precision] * len(names) if isinstance(precision, str) else precision
    return [create_expert(name, device, weights=files.get(name), precision=p) for name, p in zip(names, kinds, strict=True)]


def load_model(folder: str | Path, given: Sequence[str] = (), precision: str | None = None) -> MedBridge:
    """A saved adapter, with the weights of some of its experts from ``NAME=FILE``; ``precision``: another than in training."""
    if not given:
        return MedBridge.load(folder, precision=precision)
    path = Path(folder) / "adapter.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["experts"]
        names, kinds = [e["name"] for e in entries], [precision or e.get("precision", "float32") for e in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{path}: names no experts ({error}); give the folder that `medbridge adapt` wrote") from error
    return MedBridge.load(folder, build_experts(names, given, precision=kinds), precision)


def _files(names: Sequence[str], given: Sequence[str]) -> Mapping[str, str]:
    files = {}
    for entry in given:
        name, equals, file = entry.partition("=")
        if not equals or not file:
            raise ExpertError(f"--weights {entry}: write NAME=FILE, the expert's name and its file")
        if name not in names:
            raise ExpertError(f"--weights {entry}: no expert {name!r} here; the experts are {', '.join(names)}")
        files[name] = file
    return files


def _list(_: argparse.Namespace) -> None:
    width = max(map(len, ALIASES))
    licence = max(len(alias.licence) for alias in ALIASES.values())
    for name, alias in ALIASES.items():
        print(f"{name:<{width}}  {alias.licence:<{licence}}  {alias.note}")


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
    found = fetch_expert(args.name, args.to)
    for file in found:
        print(f"{file.path}  {'was here' if file.was_here else f'checksum {file.checksum} as the hub states it'}")
    if not found:
        print(f"{args.name} is shipped; nothing to fetch")


def _profile(args: argparse.Namespace) -> None:
    experts = build_experts(args.names, args.weights, args.device)
    print(cost_table([expert_cost(expert, views=args.views) for expert in experts]))


def _add(args: argparse.Namespace) -> None:
    own = [entry for entry in args.weights if entry.partition("=")[0] == args.name]
    model = load_model(args.adapter, [entry for entry in args.weights if entry not in own])
    _edited(model.with_expert(build_experts([args.name], own)[0]), args.out)


def _drop(args: argparse.Namespace) -> None:
    _edited(load_model(args.adapter, args.weights).without_expert(args.name), args.out)


def _edited(model: MedBridge, out: str) -> None:
    model.save(out)
    print(f"{model.card['edited'][-1]}\nadapter of {', '.join(e.name for e in model.experts)} is in {out}/")
