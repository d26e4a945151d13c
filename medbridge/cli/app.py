"""The command line: ``medbridge adapt``, ``evaluate``, ``predict``, ``quickstart``; groups are in :mod:`medbridge.cli`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medbridge import __version__
from medbridge.cli import ablate, cache, course, data, experiment, experts, labels, leaderboard, prompts, published
from medbridge.cli.options import add_benchmark, add_settings, benchmark_ref, named_benchmark, settings_of, source_ref
from medbridge.cli.stream import film_paths, predict_files
from medbridge.data import Benchmark, load_benchmark
from medbridge.data.images import probe_film
from medbridge.data.tasks import make_target, same_films, thin_training
from medbridge.errors import MedBridgeError
from medbridge.experts import create_expert
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import evaluate
from medbridge.model import AdapterConfig
from medbridge.predict import predict
from medbridge.studies.adapt import adapt
from medbridge.studies.comparison import comparison_table
from medbridge.support.processes import is_main, ranks
from medbridge.train import TrainConfig

__all__ = ["main"]

NOTICE = "For research and education, not for clinical use."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medbridge", description=f"MedBridge (arXiv 2505.21698). {NOTICE}")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("adapt", help="adapt MedBridge to a benchmark and compare it with its baselines")
    one.add_argument("--train", metavar="NAME[=ROOT]", help="train on it; without --test, its own test split is scored")
    add_benchmark(one)
    one.add_argument("--expert", action="append", required=True, metavar="NAME",
                     help="repeat for a mixture; see `medbridge experts`")
    experts.add_weights(one)
    experts.add_precision(one)
    one.add_argument("--out", help="folder of the run (default: runs/BENCHMARK, with the label fraction)")
    one.add_argument("--label-fraction", type=float, default=1.0, help="share of the training patients that is used, in (0, 1]")
    one.add_argument("--tensorboard", action="store_true", help="log to OUT/tensorboard; needs medbridge[log]")
    add_settings(one, AdapterConfig)
    add_settings(one, TrainConfig)
    add_settings(one, FocalSampler, skip=["seed"])

    one = commands.add_parser("evaluate", help="AUC of a saved adapter on a benchmark's split")
    one.add_argument("--adapter", required=True, help="folder that adapt wrote")
    experts.add_weights(one)
    experts.add_precision(one, trained=True)
    add_benchmark(one)
    one.add_argument("--split", default="test", help="train, val or test")
    one.add_argument("--json", action="store_true", help="print JSON")

    one = commands.add_parser("predict", help="label probabilities of films (PNG, JPEG, DICOM ...)")
    one.add_argument("--adapter", required=True, help="folder that adapt wrote")
    experts.add_weights(one)
    experts.add_precision(one, trained=True)
    one.add_argument("--json", action="store_true", help="print JSON, one object a film in a list")
    one.add_argument("--workers", type=int, help="threads that decode films ahead")
    one.add_argument("images", nargs="+", metavar="IMAGE", help="a film, or a folder of films")

    one = commands.add_parser("quickstart", help="the embedded default: synthetic films, shipped tiny experts, a report")
    one.add_argument("--out", default="runs/quickstart")
    one.add_argument("--films", type=int, default=900, help="synthetic films that are drawn")
    one.add_argument("--seed", type=int, default=0)

    for module in (ablate, cache, course, data, experiment, experts, labels, leaderboard, prompts, published):
        module.register(commands)
    return parser


def _adapt(args: argparse.Namespace) -> None:
    source = source_ref(args)
    tests = [benchmark_ref(text, args) for text in args.test or ()]
    for test in tests:
        if overlap := same_films(source, test):
            print(f"note: {overlap}; a score across the two may be too good", file=sys.stderr)
    loaded = source.load()
    others = [loaded if test == source else test.load() for test in tests]
    benchmark = thin_training(loaded, args.label_fraction, args.seed)
    built = experts.build_experts(args.expert, args.weights, precision=args.precision)
    name = benchmark.name.split()[0].lower()
    out = args.out or f"runs/{name}" + (f"-{args.label_fraction:g}" if args.label_fraction != 1 else "")
    _run(benchmark, built, Path(out), settings_of(AdapterConfig, args), settings_of(TrainConfig, args),
         settings_of(FocalSampler, args), args.cache, args.workers, tests=others, tensorboard=args.tensorboard)


def _run(benchmark: Benchmark, experts: list, out: Path, *settings: Any, tests: Sequence[Benchmark] = (),
         tensorboard: bool = False) -> None:
    from medbridge.viz.report import write_report  # matplotlib wants a writable folder: not where nothing is drawn

    result = adapt(benchmark, experts, out, *settings, tests=tests, tensorboard=tensorboard)
    if not is_main():
        return
    write_report(result, out / "report.html")
    print(f"\n{comparison_table(result)}\n")
    print(f"adapter, metrics.json and report.html are in {out}/ . {NOTICE}")


def _evaluate(args: argparse.Namespace) -> None:
    if (args.benchmark is None) == (args.test is None) or (args.root is not None and args.benchmark is None):
        raise MedBridgeError("name what to score: --test NAME[=ROOT], repeated, or --benchmark NAME with --root ROOT")
    model = experts.load_model(args.adapter, args.weights, args.precision)
    refs = [benchmark_ref(text, args) for text in args.test] if args.test else [named_benchmark(args)]
    # all of them are loaded and checked before the first film is scored
    targets = [make_target(model.labels, ref.load(), args.adapter, split=args.split) for ref in refs]
    found = []
    for target in targets:
        p = predict(model, target.test, cache=args.cache, workers=args.workers).select(target.columns).probabilities
        y, mask = target.test.targets()
        result = evaluate(y, p, mask, target.test.table["patient_id"], target.test.labels)
        found.append({"benchmark": target.test.name, "split": args.split, "shared_labels": [asdict(s) for s in target.shared],
                      **result.to_dict()})
        if not args.json and is_main():
            shared = f"{len(target.shared)} of the adapter's {len(model.labels)} labels are shared"
            print(f"{target.test.name}, {args.split} split; {shared} (adapter = benchmark): {target.mapping()}")
            print(f"{result.table()}\n")
    if args.json and is_main():
        print(json.dumps(found if args.test else found[0], indent=2))


def _predict(args: argparse.Namespace) -> None:
    if ranks()[1] > 1:
        raise MedBridgeError("predict runs in one process; start it once, or once for each folder of films")
    paths = film_paths(args.images)
    for path in args.images:
        if not Path(path).is_dir():
            probe_film(path)  # a mistyped name stops the command before a model is loaded; a folder may hold a bad film
    model = experts.load_model(args.adapter, args.weights, args.precision)
    rows, bad = [], []
    width = max(len("image"), *(len(str(p)) for p in paths))
    if not args.json:
        print("  ".join([f"{'image':<{width}}", *model.labels]))
    for path, row in predict_files(model, paths, args.workers):
        if isinstance(row, MedBridgeError):
            bad.append(row)
        elif args.json:
            scores = dict(zip(model.labels, (round(float(p), 6) for p in row), strict=True))
            rows.append({"image": str(path), "probabilities": scores})
        else:
            scores = (f"{p:>{len(label)}.3f}" for p, label in zip(row, model.labels, strict=True))
            print("  ".join([f"{path!s:<{width}}", *scores]))
    if args.json:
        print(json.dumps(rows, indent=2))
    if bad:
        raise MedBridgeError(f"{len(bad)} of {len(paths)} films could not be read:\n" + "\n".join(map(str, bad)))


def _quickstart(args: argparse.Namespace) -> None:
    print("MedBridge quickstart: SYNTHETIC films (PhantomCXR) and the shipped tiny experts; nothing is downloaded.")
    benchmark = load_benchmark("phantom", n_films=args.films, seed=args.seed)
    shipped = [create_expert("tiny-resnet"), create_expert("tiny-resnet-scenes")]
    _run(benchmark, shipped, Path(args.out), None, TrainConfig(seed=args.seed))
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
