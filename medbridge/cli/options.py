"""What several commands share: options, and the benchmarks, experts, adapters and settings that they name."""

import argparse
import ast
import typing
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import yaml
from pydantic import Field

from medbridge.adapter import load_adapter, read_adapter
from medbridge.baselines import TRIES, list_methods
from medbridge.data import list_benchmarks
from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import BenchmarkError, ExpertError, MedBridgeError
from medbridge.experts import PRECISIONS, Expert, create_expert
from medbridge.features.cache import FEATURES, FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import CROSS_FITTED, AdapterConfig, MedBridge
from medbridge.studies.ablation import FACTORS
from medbridge.studies.published import published_benchmarks
from medbridge.support.settings import read_text
from medbridge.train import TrainConfig

NOTICE = "For research and education, not for clinical use."
COMMANDS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8"))
_SHARED = COMMANDS.pop("shared")
_VALUES = {"benchmarks": list_benchmarks(), "factors": FACTORS, "methods": list_methods(), "precisions": PRECISIONS,
           "features": FEATURES, "published": published_benchmarks(), "tries": [str(TRIES)]}
_TYPES = {"path": Path, "int": partial(read_text, int), "float": partial(read_text, float),
          "count": partial(read_text, Annotated[int, Field(ge=1)])}


def add_command(parser: argparse.ArgumentParser, command: dict[str, Any], module: ModuleType, function: str = "run") -> None:
    """The options and actions that ``commands.yaml`` has for a command; ``args.run`` is the module's function, or ``_ACTION``."""
    parser.set_defaults(run=getattr(module, function, None))
    texts = {name: ", ".join(values) for name, values in _VALUES.items()}
    for name, given in command.get("options", {}).items():
        option = {key: value.format(**texts) if isinstance(value, str) else value
                  for key, value in (_SHARED.get(name, {}) | (given or {})).items()}
        if "type" in option:
            option["type"] = _TYPES[option["type"]]
        if "choices" in option:
            option["choices"] = option["choices"].split(", ")
        parser.add_argument(name, **option)
    if "settings" in command:
        add_settings(parser, command["settings"])
    if "actions" in command:
        actions = parser.add_subparsers(dest="action", required=not hasattr(module, "run"))
        for name, action in command["actions"].items():
            description = action.get("description", action["help"])
            add_command(actions.add_parser(name, help=action["help"], description=description), action, module, f"_{name}")


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
            default = getattr(CROSS_FITTED, f.name) if cls is AdapterConfig else f.default
            group.add_argument(f"--{f.name.replace('_', '-')}", default=default, help=f"default {default}", **kind)


def settings_of(args: argparse.Namespace) -> list[Any]:
    """MedBridge's settings, in the order of MethodSettings, with what the command line says; defaults where it has no option."""
    return [replace(start, **{f.name: getattr(args, f.name) for f in fields(start) if hasattr(args, f.name)})
            for start in (CROSS_FITTED, FocalSampler(), TrainConfig())]


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


def named_refs(args: argparse.Namespace, texts: Sequence[str], request: str) -> list[BenchmarkRef]:
    """Those of ``texts``, or that of ``--benchmark`` and ``--root``; MedBridgeError with ``request`` for both or neither."""
    if bool(texts) != (args.benchmark is None) or (args.root is not None and args.benchmark is None):
        raise MedBridgeError(f"{request}, or --benchmark NAME with --root ROOT")
    own = args.benchmark if args.root is None else f"{args.benchmark}={args.root}"
    return [benchmark_ref(text, args) for text in texts or [own]]


def source_ref(args: argparse.Namespace) -> BenchmarkRef:
    """What is trained on: ``--train``, or ``--benchmark`` and ``--root``. MedBridgeError where it is not named once."""
    train = getattr(args, "train", None)
    return named_refs(args, [train] if train else [], "name the source once: --train NAME[=ROOT]")[0]


def feature_cache(args: argparse.Namespace) -> FeatureCache:
    """Where frozen features come from: ``--cache``, ``--workers`` and ``--features``."""
    return FeatureCache(args.cache, args.workers, features=args.features)


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
    experts = read_adapter(folder).experts
    built = build_experts([e.name for e in experts], weights, precision=[precision or e.precision for e in experts])
    model = load_adapter(folder, built, precision)
    if model.trained_films is None:
        warnings.warn(f"{folder}: made by an older version, which did not note the digests of its training films: whether it was "
                      f"trained on films that it scores here cannot be told; train it again to know", stacklevel=2)
    return model
