"""Cases of the exercises of notebook 09."""

import math

import numpy as np
from scipy.stats import rankdata

NAMES = {"9.1": "shared_pairs", "9.2": "patients_needed", "9.3": "paired_gap"}


def bootstrap(y, scores, patients, n_boot, rng, effect, films=False, unpaired=False, keep_nan=False, ends=(2.5, 97.5)):
    """``effect`` of the AUCs of ``scores``, with a percentile interval, as a reader writes it: rightly, or with one mistake."""

    def auc(rows, p):
        positive, ranks = y[rows] == 1, rankdata(p[rows])
        pairs = positive.sum() * (~positive).sum()
        return (ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs if pairs else np.nan

    def draw():
        if films:
            return rng.integers(len(y), size=len(y))
        people = np.unique(patients)
        return np.concatenate([np.flatnonzero(patients == p) for p in rng.choice(people, len(people))])

    def of(rows):
        return effect(np.apply_along_axis(lambda p: auc(draw() if rows is None else rows, p), -1, scores))

    draws = [of(None if unpaired else draw()) for _ in range(n_boot)]
    return of(np.arange(len(y))), *(np.percentile if keep_nan else np.nanpercentile)(draws, ends)


def _gap(y, home, away, patients, n_boot, rng, **mistake):
    return bootstrap(y, np.stack([home, away]), patients, n_boot, rng, lambda a: a[0] - a[1], **mistake)


WRONG = [
    ("9.1", lambda a, b, s: [(x, x) for x in a if x in b], "look both names up"),
    ("9.1", lambda a, b, s: [(x, x) for x in a if x in {s.get(y, y) for y in b}], "the test benchmark itself uses"),
    ("9.1", lambda a, b, s: [(x, y) for y in b for x in a if s.get(x, x) == s.get(y, y)], "keep the order of train"),
    ("9.1", lambda a, b, s: [(y, x) for x in a for y in b if s.get(x, x) == s.get(y, y)], "the other way round"),
    ("9.1", lambda a, b, s: [(x, y) for x in a for y in b if x == s.get(y, y)], "on the training side too"),
    ("9.1", lambda a, b, s: list(zip(a, b, strict=True)), "no pair of one finding"),
    ("9.1", lambda a, b, s: None, "returns nothing"),
    ("9.1", lambda a, b, s: ["Effusion"], "give a list of pairs"),
    ("9.2", lambda p, c: math.floor(math.log(1 - c) / math.log(1 - p)), "round up"),
    ("9.2", lambda p, c: math.floor(math.log(1 - c) / math.log(1 - p)) + 1, "already sure enough"),
    ("9.2", lambda p, c: math.ceil(math.log(c) / math.log(1 - p)), "nobody has the finding"),
    ("9.2", lambda p, c: math.ceil(1 / p), "on average"),
    ("9.2", lambda p, c: math.log(1 - c) / math.log(1 - p), "whole number"),
    ("9.3", lambda y, h, a, *r: _gap(y, a, h, *r), "wrong sign"),
    ("9.3", lambda *a: _gap(*a, unpaired=True), "on the same resample"),
    ("9.3", lambda *a: _gap(*a, films=True), "draw patients"),
    ("9.3", lambda *a: _gap(*a, ends=(25, 75)), "too narrow"),
    ("9.3", lambda *a: _gap(*a, ends=(75, 97.5)), "does not hold the gap"),
    ("9.3", lambda *a: _gap(*a, keep_nan=True), "leave such resamples out"),
    ("9.3", lambda *a: _gap(*a)[0], "give three numbers"),
]
