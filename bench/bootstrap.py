"""How long do intervals take at the size of NIH ChestX-ray14's test split? SYNTHETIC scores, no films.

    python bench/bootstrap.py [--films 25596] [--labels 14] [--patients 2797] [--resamples 1000]

Scores are random, labels as rare as NIH's (0.2 to 18 %), some unknown; patients are drawn whole. Prints seconds, and the largest
difference from scikit-learn on the same resamples for the first few of them.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from medbridge.metrics.bootstrap import group_codes
from medbridge.metrics.evaluate import bootstrap_auc, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=25_596)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--patients", type=int, default=2_797)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--compared", type=int, default=3, help="resamples that scikit-learn repeats")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (args.films, args.labels)
    y = (rng.random(shape) < np.geomspace(0.002, 0.18, args.labels)).astype(float)
    scores, mask = rng.random(shape) + 0.3 * y, rng.random(shape) > 0.02
    patients = rng.integers(args.patients, size=args.films)

    began = time.perf_counter()
    draws = bootstrap_auc(y, scores, mask, patients, args.resamples)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    evaluate(y, scores, mask, patients, n_boot=args.resamples)
    whole = time.perf_counter() - began

    codes = group_codes(patients, args.films)
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    again, worst = np.random.default_rng(0), 0.0
    began = time.perf_counter()
    for b in range(args.compared):
        rows = np.concatenate([members[g] for g in again.integers(len(members), size=len(members))])
        for c in range(args.labels):
            known = rows[mask[rows, c]]
            worst = max(worst, abs(roc_auc_score(y[known, c], scores[known, c]) - draws[b, c]))
    loop = (time.perf_counter() - began) / args.compared * args.resamples
    print(f"{args.films} films x {args.labels} labels, {args.resamples} resamples of {args.patients} patients, "
          f"{os.cpu_count()} cores")
    print(f"bootstrap {seconds:.1f} s; evaluate() with it {whole:.1f} s; "
          f"a plain loop over scikit-learn {loop:.0f} s (extrapolated)")
    print(f"largest difference from scikit-learn in {args.compared} resamples: {worst:.1e}")


if __name__ == "__main__":
    main()
