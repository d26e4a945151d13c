"""Cases of the exercises of notebook 10."""

import math

import numpy as np
from cases_09 import bootstrap

NAMES = {"10.1": "trainings", "10.2": "holm_adjusted", "10.3": "interaction"}


def _steps(p, factor=lambda k: np.arange(k, 0, -1), back=True, monotone=True, cap=True):
    order = np.argsort(p)
    steps = p[order] * factor(len(p))
    steps = np.maximum.accumulate(steps) if monotone else steps
    out = np.empty(len(p))
    out[order if back else slice(None)] = steps
    return np.minimum(1, out) if cap else out


def _bh(p):
    order = np.argsort(p)
    out = np.empty(len(p))
    out[order] = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    return out


def _effect(*answer, of=lambda a: a[1][1] - a[0][1] - a[1][0] + a[0][0], **mistake):
    return bootstrap(*answer, of, **mistake)


WRONG = [
    ("10.1", lambda n, s: (s * math.prod(n), s * (1 + sum(n) - len(n))), "other way round"),
    ("10.1", lambda n, s: (1 + sum(n) - len(n), math.prod(n)), "for every seed"),
    ("10.1", lambda n, s: (s * sum(n), s * math.prod(n)), "share one default"),
    ("10.1", lambda n, s: (s * (sum(n) - len(n)), s * math.prod(n)), "trained too"),
    ("10.1", lambda n, s: (1 + s * (sum(n) - len(n)), s * math.prod(n)), "every seed too"),
    ("10.1", lambda n, s: (s * (1 + sum(n) - len(n)), s * sum(n)), "multiply in a factorial"),
    ("10.1", lambda n, s: (s * (1 + sum(n) - len(n)), s * 2 ** len(n)), "each combination"),
    ("10.1", lambda n, s: s * math.prod(n), "give two numbers"),
    ("10.2", lambda p: np.minimum(1, len(p) * p), "Bonferroni"),
    ("10.2", lambda p: _steps(p, monotone=False), "running maximum"),
    ("10.2", lambda p: _steps(p, back=False), "right and sorted; give them back"),
    ("10.2", lambda p: _steps(p, lambda k: np.arange(1, k + 1), monotone=False), "not by 1"),
    ("10.2", _bh, "Benjamini"),
    ("10.2", lambda p: p, "nothing was adjusted"),
    ("10.2", lambda p: None, "returns nothing"),
    ("10.2", lambda p: p[:2], "as many adjusted values as p-values"),
    ("10.2", lambda p: np.where(p > 0.2, p * 7, p), "Holm's of the p-values"),
    ("10.2", lambda p: _steps(p, cap=False), "a p-value cannot exceed 1"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[0][1] + v[1][0] - v[0][0] - v[1][1]), "sign is wrong"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1] - v[0][0]), "each brings alone"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1] - v[0][1]), "effect of the first factor"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1] - v[1][0]), "effect of the second factor"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1]), "(AUC11 - AUC01)"),
    ("10.3", lambda *a: _effect(*a, unpaired=True), "on the same resample"),
    ("10.3", lambda *a: _effect(*a, films=True), "draw patients"),
    ("10.3", lambda *a: _effect(*a, ends=(25, 75)), "too narrow"),
    ("10.3", lambda *a: _effect(*a, ends=(75, 97.5)), "does not hold the interaction"),
    ("10.3", lambda *a: _effect(*a, keep_nan=True), "leave such resamples out"),
    ("10.3", lambda *a: _effect(*a)[0], "give three numbers"),
]
