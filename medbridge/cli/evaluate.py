"""``medbridge evaluate``: AUC of a saved adapter on a split of one benchmark or several."""

import argparse
import json
from dataclasses import asdict

from medbridge.cli.options import add_options, benchmark_ref, load_model, named_benchmark
from medbridge.data.tasks import make_target
from medbridge.errors import MedBridgeError
from medbridge.features.cache import FeatureCache
from medbridge.metrics.evaluate import evaluate, json_safe
from medbridge.predict import predict
from medbridge.support.processes import is_main


def register(parser: argparse.ArgumentParser) -> None:
    add_options(parser, "adapter weights precision benchmark root test option cache workers json", precision={"default": None})
    parser.add_argument("--split", default="test", help="train, val or test")


def run(args: argparse.Namespace) -> None:
    if (args.benchmark is None) == (args.test is None) or (args.root is not None and args.benchmark is None):
        raise MedBridgeError("name what to score: --test NAME[=ROOT], repeated, or --benchmark NAME with --root ROOT")
    model = load_model(args.adapter, args.weights, args.precision)
    refs = [benchmark_ref(text, args) for text in args.test] if args.test else [named_benchmark(args)]
    # all of them are loaded and checked before the first film is scored
    targets = [make_target(model.labels, ref.load(), args.adapter, split=args.split) for ref in refs]
    cache, results = FeatureCache(args.cache, args.workers), []
    for target in targets:
        test = target.test
        p = predict(model, cache.of(model, test)).select(target.columns).probabilities
        y, mask = test.targets()
        evaluation = evaluate(y, p, mask, test.table["patient_id"], test.labels)
        results.append({"benchmark": test.name, "split": args.split, "shared_labels": [asdict(s) for s in target.shared],
                        **json_safe(vars(evaluation))})
        if is_main() and not args.json:
            print(f"{test.name}, {args.split} split; {len(target.shared)} of the adapter's {len(model.labels)} labels are shared "
                  f"(adapter = benchmark): {target.mapping()}\n{evaluation.table()}\n")
    if is_main() and args.json:
        print(json.dumps(results if args.test else results[0], indent=2))
