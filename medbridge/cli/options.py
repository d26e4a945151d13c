"""Options that several commands share: which benchmark, options of its loader, and the fields of settings."""

from __future__ import annotations

import argparse
import ast
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from medbridge.data import list_benchmarks
from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import BenchmarkError, MedBridgeError

__all__ = ["add_benchmark", "add_option", "add_settings", "benchmark_ref", "named_benchmark", "parse_options", "settings_of",
           "source_ref"]


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--option``, repeatable."""
    parser.add_argument(
        "--option", action="append", default=[], metavar="[BENCHMARK:]NAME=VALUE",
        help="option of a loader, e.g. uncertain=ones or chexpert:uncertain=ones; without BENCHMARK it is for all that are named")


def parse_options(pairs: Sequence[str], benchmark: str) -> dict[str, Any]:
    """The options that are meant for this benchmark: 'n_films=90' -> 90; what is no Python literal is text.

    Raises:
        BenchmarkError: an entry that is not ``[BENCHMARK:]NAME=VALUE``.
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


def add_settings(parser: argparse.ArgumentParser, cls: type, skip: Sequence[str] = ()) -> None:
    """One option for each field of a settings dataclass, so that the command line can never lag behind."""
    group = parser.add_argument_group(f"{cls.__name__} (see its docstring)")
    hints = typing.get_type_hints(cls)
    for f in fields(cls):
        if f.name in skip:
            continue
        hint = hints[f.name]
        if isinstance(hint, types.UnionType):
            hint = next(t for t in typing.get_args(hint) if t is not type(None))
        default = None if f.default is MISSING else f.default
        option: dict[str, Any] = {"dest": f.name, "default": default, "help": f"default {default}"}
        if hint is bool:
            group.add_argument(f"--{f.name.replace('_', '-')}", action=argparse.BooleanOptionalAction, **option)
        else:
            group.add_argument(f"--{f.name.replace('_', '-')}", type=hint, metavar=hint.__name__.upper(), **option)


def settings_of(cls: type, args: argparse.Namespace) -> Any:
    """The settings dataclass ``cls`` with what the command line says; defaults where it has no such option."""
    return cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Add the options that name what is scored, and how films are read."""
    parser.add_argument("--benchmark", metavar="NAME", help=f"one of {', '.join(list_benchmarks())}")
    parser.add_argument("--root", help="folder that holds --benchmark")
    parser.add_argument("--test", action="append", metavar="NAME[=ROOT]",
                        help="score the test split of this benchmark over the labels that it shares; repeat for more. "
                             "Without ROOT: $MEDBRIDGE_DATA/NAME")
    add_option(parser)
    parser.add_argument("--cache", help="folder of the frozen features (default: MEDBRIDGE_CACHE or ~/.cache/medbridge)")
    parser.add_argument("--workers", type=int, help="threads that decode films ahead")


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
