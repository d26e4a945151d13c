"""The command line: ``medbridge adapt``, ``evaluate``, ``predict``, ``quickstart``; groups are in :mod:`medbridge.commands`."""

from __future__ import annotations

import argparse
import json
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from medbridge import __version__
from medbridge.adapt import adapt, comparison_table
from medbridge.benchmarks import Benchmark, list_benchmarks, load_benchmark
from medbridge.commands import course, data, experiment, experts, labels, leaderboard, prompts
from medbridge.commands.options import add_option, parse_options
from medbridge.errors import MedBridgeError
from medbridge.evaluate import evaluate
from medbridge.experts import create_expert
from medbridge.focal import FocalSampler
from medbridge.images import read_film
from medbridge.model import AdapterConfig
from medbridge.predict import predict, predict_film
from medbridge.tasks import BenchmarkRef, make_target, same_films, thin_training
from medbridge.train import TrainConfig

__all__ = ["add_settings", "main", "settings_of"]

NOTICE = "For research and education, not for clinical use."


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
    """The settings dataclass ``cls`` with what the command line says."""
    return cls(**{f.name: getattr(args, f.name) for f in fields(cls)})


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--benchmark", metavar="NAME", help=f"one of {', '.join(list_benchmarks())}")
    parser.add_argument("--root", help="folder that holds --benchmark")
    parser.add_argument("--test", action="append", metavar="NAME[=ROOT]",
                        help="score the test split of this benchmark over the labels that it shares; repeat for more. "
                             "Without ROOT: $MEDBRIDGE_DATA/NAME")
    add_option(parser)
    parser.add_argument("--cache", help="folder of the frozen features (default: MEDBRIDGE_CACHE or ~/.cache/medbridge)")
    parser.add_argument("--workers", type=int, help="processes that decode films")


def _ref(text: str, args: argparse.Namespace) -> BenchmarkRef:
    return BenchmarkRef.parse(text, parse_options(args.option, text.partition("=")[0].strip()))


def _named_benchmark(args: argparse.Namespace) -> BenchmarkRef:
    return _ref(args.benchmark if args.root is None else f"{args.benchmark}={args.root}", args)


def _source(args: argparse.Namespace) -> BenchmarkRef:
    if (args.train is None) == (args.benchmark is None) or (args.root is not None and args.benchmark is None):
        raise MedBridgeError("name the source once: --train NAME[=ROOT], or --benchmark NAME with --root ROOT")
    return _ref(args.train, args) if args.train else _named_benchmark(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medbridge", description=f"MedBridge (arXiv 2505.21698). {NOTICE}")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("adapt", help="adapt MedBridge to a benchmark and compare it with its baselines")
    one.add_argument("--train", metavar="NAME[=ROOT]", help="train on it; without --test, its own test split is scored")
    _add_benchmark(one)
    one.add_argument("--expert", action="append", required=True, metavar="NAME",
                     help="repeat for a mixture; see `medbridge experts`")
    experts.add_weights(one)
    one.add_argument("--out", help="folder of the run (default: runs/BENCHMARK, with the label fraction)")
    one.add_argument("--label-fraction", type=float, default=1.0, help="share of the training patients that is used, in (0, 1]")
    add_settings(one, AdapterConfig)
    add_settings(one, TrainConfig)
    add_settings(one, FocalSampler, skip=["seed"])

    one = commands.add_parser("evaluate", help="AUC of a saved adapter on a benchmark's split")
    one.add_argument("--adapter", required=True, help="folder that adapt wrote")
    experts.add_weights(one)
    _add_benchmark(one)
    one.add_argument("--split", default="test", help="train, val or test")
    one.add_argument("--json", action="store_true", help="print JSON")

    one = commands.add_parser("predict", help="label probabilities of films (PNG, JPEG, DICOM ...)")
    one.add_argument("--adapter", required=True, help="folder that adapt wrote")
    experts.add_weights(one)
    one.add_argument("--json", action="store_true", help="print JSON, one object a film in a list")
    one.add_argument("images", nargs="+", metavar="IMAGE")

    one = commands.add_parser("quickstart", help="the embedded default: synthetic films, shipped tiny experts, a report")
    one.add_argument("--out", default="runs/quickstart")
    one.add_argument("--films", type=int, default=900, help="synthetic films that are drawn")
    one.add_argument("--seed", type=int, default=0)

    for module in (course, data, experiment, experts, labels, leaderboard, prompts):
        module.register(commands)
    return parser


def _adapt(args: argparse.Namespace) -> None:
    source = _source(args)
    tests = [_ref(text, args) for text in args.test or ()]
    for test in tests:
        if overlap := same_films(source, test):
            print(f"note: {overlap}; a score across the two may be too good", file=sys.stderr)
    loaded = source.load()
    others = [loaded if test == source else test.load() for test in tests]
    benchmark = thin_training(loaded, args.label_fraction, args.seed)
    built = experts.build_experts(args.expert, args.weights)
    name = benchmark.name.split()[0].lower()
    out = args.out or f"runs/{name}" + (f"-{args.label_fraction:g}" if args.label_fraction != 1 else "")
    _run(benchmark, built, Path(out), settings_of(AdapterConfig, args), settings_of(TrainConfig, args),
         settings_of(FocalSampler, args), args.cache, args.workers, tests=others)


def _run(benchmark: Benchmark, experts: list, out: Path, *settings: Any, tests: Sequence[Benchmark] = ()) -> None:
    from medbridge.report import write_report  # matplotlib wants a writable folder: not where nothing is drawn

    result = adapt(benchmark, experts, out, *settings, tests=tests)
    write_report(result, out / "report.html")
    print(f"\n{comparison_table(result)}\n")
    print(f"adapter, metrics.json and report.html are in {out}/ . {NOTICE}")


def _evaluate(args: argparse.Namespace) -> None:
    if (args.benchmark is None) == (args.test is None) or (args.root is not None and args.benchmark is None):
        raise MedBridgeError("name what to score: --test NAME[=ROOT], repeated, or --benchmark NAME with --root ROOT")
    model = experts.load_model(args.adapter, args.weights)
    refs = [_ref(text, args) for text in args.test] if args.test else [_named_benchmark(args)]
    # all of them are loaded and checked before the first film is scored
    targets = [make_target(model.labels, ref.load(), args.adapter, split=args.split) for ref in refs]
    found = []
    for target in targets:
        p = predict(model, target.test, cache=args.cache, workers=args.workers).select(target.columns).probabilities
        y, mask = target.test.targets()
        result = evaluate(y, p, mask, target.test.table["patient_id"], target.test.labels)
        found.append({"benchmark": target.test.name, "split": args.split, "shared_labels": [asdict(s) for s in target.shared],
                      **result.to_dict()})
        if not args.json:
            shared = f"{len(target.shared)} of the adapter's {len(model.labels)} labels are shared"
            print(f"{target.test.name}, {args.split} split; {shared} (adapter = benchmark): {target.mapping()}")
            print(f"{result.table()}\n")
    if args.json:
        print(json.dumps(found if args.test else found[0], indent=2))


def _predict(args: argparse.Namespace) -> None:
    films = [read_film(path) for path in args.images]  # a bad file stops the command before a model is loaded
    model = experts.load_model(args.adapter, args.weights)
    rows = [predict_film(model, film) for film in films]
    if args.json:
        print(json.dumps([
            {"image": path, "probabilities": dict(zip(model.labels, (round(float(p), 6) for p in row), strict=True))}
            for path, row in zip(args.images, rows, strict=True)], indent=2))
        return
    width = max(len("image"), *(len(p) for p in args.images))
    print("  ".join([f"{'image':<{width}}", *model.labels]))
    for path, row in zip(args.images, rows, strict=True):
        print("  ".join([f"{path:<{width}}", *(f"{p:>{len(label)}.3f}" for p, label in zip(row, model.labels, strict=True))]))


def _quickstart(args: argparse.Namespace) -> None:
    print("MedBridge quickstart: SYNTHETIC films (PhantomCXR) and the shipped tiny experts; nothing is downloaded.")
    benchmark = load_benchmark("phantom", n_films=args.films, seed=args.seed)
    shipped = [create_expert("tiny-resnet"), create_expert("tiny-resnet-scenes")]
    # less patience than elsewhere: the last epochs would not be kept, and this command promises minutes
    _run(benchmark, shipped, Path(args.out), None, TrainConfig(seed=args.seed, patience=6))
    print("next: `make lab` opens the course in JupyterLab; start with notebooks/00_start_here.ipynb")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0; 1 where ``data check`` finds a fault; 2 for an error that names its fix; 130 when stopped by the user.
    """
    args = _parser().parse_args(argv)
    run = {"adapt": _adapt, "evaluate": _evaluate, "predict": _predict, "quickstart": _quickstart}
    try:
        return (getattr(args, "run", None) or run[args.command])(args) or 0
    except (MedBridgeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
