"""``medbridge evaluate``: AUC of a saved adapter on a split of one benchmark or several."""

import argparse
import json
from dataclasses import asdict

from medbridge.cli.options import feature_cache, load_model, named_refs
from medbridge.data.copies import are_copies
from medbridge.data.tasks import make_target, without_copies
from medbridge.metrics.evaluate import evaluate, json_safe
from medbridge.predict import predict
from medbridge.support.processes import is_main


def run(args: argparse.Namespace) -> None:
    refs = named_refs(args, args.test or [], "name what to score: --test NAME[=ROOT], repeated")
    model = load_model(args.adapter, args.weights, args.precision)
    # all of them are loaded and checked before the first film is scored
    targets = [make_target(model.labels, ref.load(), args.adapter, split=args.split) for ref in refs]
    cache, results = feature_cache(args), []
    copies = [are_copies(cache.prints(target.test), model.trained_films) for target in targets]
    targets = [without_copies(target, known, args.adapter, args.split == "test")  # who scores training films means to
               for target, known in zip(targets, copies, strict=True)]
    for target, known in zip(targets, copies, strict=True):
        test, count = target.test, None if model.trained_films is None else int(known.sum())
        p = predict(model, cache.of(model, test)).select(target.columns).probabilities
        y, mask = test.targets()
        evaluation = evaluate(y, p, mask, test.table["patient_id"], test.labels)
        results.append({"benchmark": test.name, "split": args.split, "films_trained_on": count,
                        "shared_labels": [asdict(s) for s in target.shared], **json_safe(vars(evaluation))})
        if is_main() and not args.json:
            print(f"{test.name}, {args.split} split; {len(target.shared)} of the adapter's {len(model.labels)} labels are shared "
                  f"(adapter = benchmark): {target.mapping()}\n{evaluation.table()}\n")
    if is_main() and args.json:
        print(json.dumps(results if args.test else results[0], indent=2))
