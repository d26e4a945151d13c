"""What several commands share: options, and the benchmarks, experts, adapters and settings that they name."""

import argparse
import ast
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from medbridge.adapter import load_adapter, read_adapter
from medbridge.data import list_benchmarks
from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import BenchmarkError, ExpertError, MedBridgeError
from medbridge.experts import PRECISIONS, Expert, create_expert
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.support.settings import read_text
from medbridge.train import TrainConfig

NOTICE = "For research and education, not for clinical use."
_SHARED: dict[str, dict[str, Any]] = {
    "train": {"metavar": "NAME[=ROOT]", "help": "train on it; without --test, its own test split is scored"},
    "benchmark": {"metavar": "NAME", "help": f"one of {', '.join(list_benchmarks())}"},
    "root": {"help": "folder that holds --benchmark"},
    "test": {"action": "append", "metavar": "NAME[=ROOT]",
             "help": "score the test split of this benchmark over the labels that it shares; repeat for more. "
                     "Without ROOT: $MEDBRIDGE_DATA/NAME"},
    "option": {"action": "append", "default": [], "metavar": "[BENCHMARK:]NAME=VALUE",
               "help": "option of a loader, e.g. uncertain=ones or chexpert:uncertain=ones; without BENCHMARK it is for all "
                       "that are named"},
    "cache": {"help": "folder of the frozen features (default: MEDBRIDGE_CACHE or ~/.cache/medbridge)"},
    "workers": {"type": int, "help": "threads that decode films ahead"},
    "expert": {"action": "append", "metavar": "NAME", "required": True, "help": "repeat for a mixture; see `medbridge experts`"},
    "weights": {"action": "append", "default": [], "metavar": "NAME=FILE",
                "help": "file (or folder) of an expert's weights; repeat for more than one"},
    "precision": {"choices": PRECISIONS, "default": "float32",
                  "help": "what the frozen towers compute in; such features have a place of their own in the cache "
                          "(default: float32, or as the adapter was trained)"},
    "adapter": {"required": True, "help": "folder that adapt wrote"},
    "out": {"help": "folder of the run"},
    "label-fraction": {"type": float, "default": 1.0, "help": "share of the training patients that is used, in (0, 1]"},
    "seeds": {"type": int, "default": 3, "help": "training seeds 0, 1, ... (default 3)"},
    "seed": {"type": partial(read_text, int), "default": 0, "metavar": "INT", "help": "of training and of its views (default 0)"},
    "json": {"action": "store_true", "help": "print JSON"},
}


def add_options(parser: argparse.ArgumentParser, names: str, **changes: dict[str, Any]) -> None:
    """Add the shared options of these names, separated by blanks; ``out={"help": ...}`` changes one of them."""
    for name in names.split():
        parser.add_argument(f"--{name}", **_SHARED[name] | changes.get(name, {}))


def add_action(actions: Any, run: Callable, text: str, names: str = "", **changes: dict[str, Any]) -> argparse.ArgumentParser:
    """Add what a command can do, named as the function that does it, with shared options as :func:`add_options` takes them."""
    parser = actions.add_parser(run.__name__.strip("_"), help=text)
    parser.set_defaults(run=run)
    add_options(parser, names, **changes)
    return parser


def add_settings(parser: argparse.ArgumentParser, training: Iterable[str] | None = None) -> None:
    """One option for each field of MedBridge's settings but the seed, so that the command line can never lag behind.

    ``training``: the fields of TrainConfig that become options, by default all.
    """
    for cls in (AdapterConfig, TrainConfig, FocalSampler):
        group, hints = parser.add_argument_group(f"{cls.__name__} (see its docstring)"), typing.get_type_hints(cls)
        for f in fields(cls):
            if f.name == "seed" or (cls is TrainConfig and training and f.name not in training):
                continue
            hint = next(iter(typing.get_args(hints[f.name])), hints[f.name])  # of 'int | None' the first
            kind = ({"action": argparse.BooleanOptionalAction} if hint is bool else
                    {"type": partial(read_text, hint), "metavar": hint.__name__.upper()})
            group.add_argument(f"--{f.name.replace('_', '-')}", default=f.default, help=f"default {f.default}", **kind)


def settings_of(args: argparse.Namespace) -> list[Any]:
    """MedBridge's settings, in the order of MethodSettings, with what the command line says; defaults where it has no option."""
    return [cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})
            for cls in (AdapterConfig, FocalSampler, TrainConfig)]


def seeds_of(args: argparse.Namespace) -> range:
    """The training seeds. ValueError for fewer than one."""
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds} must be at least 1")
    return range(args.seeds)


def parse_options(pairs: Sequence[str], benchmark: str) -> dict[str, Any]:
    """The options that are meant for this benchmark: 'n_films=90' -> 90; what is no Python literal is text.

    BenchmarkError for an entry that is not ``[BENCHMARK:]NAME=VALUE``.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        owner, colon, name = name.rpartition(":")
        if not mark or not name.isidentifier() or (colon and not owner):
            raise BenchmarkError(f"--option {pair!r}: write NAME=VALUE or BENCHMARK:NAME=VALUE, e.g. --option uncertain=ones")
        if owner and owner.lower() != benchmark.lower():
            continue
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def benchmark_ref(text: str, args: argparse.Namespace) -> BenchmarkRef:
    """The benchmark of ``NAME[=ROOT]``, with its options."""
    return BenchmarkRef.parse(text, parse_options(args.option, text.partition("=")[0].strip()))


def named_benchmark(args: argparse.Namespace) -> BenchmarkRef:
    """That of ``--benchmark`` and ``--root``."""
    return benchmark_ref(args.benchmark if args.root is None else f"{args.benchmark}={args.root}", args)


def source_ref(args: argparse.Namespace) -> BenchmarkRef:
    """What is trained on: ``--train``, or ``--benchmark`` and ``--root``. MedBridgeError where it is not named once."""
    if (args.train is None) == (args.benchmark is None) or (args.root is not None and args.benchmark is None):
        raise MedBridgeError("name the source once: --train NAME[=ROOT], or --benchmark NAME with --root ROOT")
    return benchmark_ref(args.train, args) if args.train else named_benchmark(args)


def build_experts(
    names: Sequence[str], weights: Sequence[str] = (), device: str = "cpu", precision: str | Sequence[str] = "float32",
) -> list[Expert]:
    """Experts by name, some of them with weights from ``NAME=FILE``; ``precision``: of all, or one each.

    ExpertError for an entry without ``=``, or of an expert that is not asked for.
    """
    files = {}
    for entry in weights:
        name, _, file = entry.partition("=")
        if not file:
            raise ExpertError(f"--weights {entry}: write NAME=FILE, the expert's name and its file")
        if name not in names:
            raise ExpertError(f"--weights {entry}: no expert {name!r} here; the experts are {', '.join(names)}")
        files[name] = file
    kinds = [precision] * len(names) if isinstance(precision, str) else precision
    return [create_expert(name, device, weights=files.get(name), precision=p) for name, p in zip(names, kinds, strict=True)]


def load_model(folder: str | Path, weights: Sequence[str] = (), precision: str | None = None) -> MedBridge:
    """A saved adapter, with the weights of some of its experts from ``NAME=FILE``; ``precision``: another than in training."""
    if not weights:
        return load_adapter(folder, precision=precision)
    saved = read_adapter(folder)
    kinds = [precision or e.precision for e in saved.experts]
    return load_adapter(folder, build_experts([e.name for e in saved.experts], weights, precision=kinds), precision)
