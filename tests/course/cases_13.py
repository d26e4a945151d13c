"""Cases of the exercises of notebook 13."""

import numpy as np

NAMES = {"13.1": "overlap", "13.2": "nearest", "13.3": "best_threshold"}


def _both(a, b):
    known = ~np.isnan(a) & ~np.isnan(b)
    return a[known], b[known]


def _shared(a, b):
    a, b = _both(a, b)
    return (a * b).sum()


def _ignores_unknown(a, b):
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    return (a * b).sum() / (a + b > 0).sum() if (a + b).any() else 1.0


def _no_finding_is_zero(a, b):
    a, b = _both(a, b)
    return (a * b).sum() / max(1, (a + b > 0).sum())


def _cosine(q, v):
    return v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)


def _without(patient, patients, score):
    return np.where(patients == patient, -np.inf, score)


def _plain(d, change):
    tried = np.linspace(0, 4, 200)
    return tried[np.argmax([(np.where(np.abs(d) > t, np.sign(d), 0) == change).mean() for t in tried])]


WRONG = [
    ("13.1", _shared, "divide it by the number"),
    ("13.1", lambda a, b: np.mean(_both(a, b)[0] == _both(a, b)[1]), "shared absences are counted"),
    ("13.1", _ignores_unknown, "unknown"),
    ("13.1", _no_finding_is_zero, "wholly alike"),
    ("13.1", lambda a, b: None, "give one number"),
    ("13.1", lambda a, b: 0.7, "0.5 is right"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_cosine(q, v))[:k], "the query's own patient"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, _cosine(q, v)))[:k][::-1], "the nearest comes first"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, v @ q))[:k], "lengths count"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, -np.linalg.norm(v - q, axis=1)))[:k], "lengths count"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_cosine(q, v[ps != p]))[:k], "row numbers shifted"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, -_cosine(q, v)))[:k], "least alike"),
    ("13.2", lambda q, p, v, ps, k: None, "row numbers"),
    ("13.3", _plain, "nearly always right"),
    ("13.3", lambda d, c: 0.0, "has the recalls"),
    ("13.3", lambda d, c: -1.0, "not negative"),
    ("13.3", lambda d, c: [1.0], "one number"),
]
