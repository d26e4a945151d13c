"""Cases of the exercises of notebook 07."""

import numpy as np
from sklearn.metrics import roc_auc_score

NAMES = {"7.1": "macro_auc", "7.2": "threshold_for", "7.3": "holm", "7.4": "miss_rates"}


def _each(y, s, m, undefined=np.nan):
    return np.array([roc_auc_score(y[k, c], s[k, c]) if len(set(y[k, c])) == 2 else undefined
                     for c, k in ((c, m[:, c]) for c in range(y.shape[1]))])


def _mean(found):
    found = found[~np.isnan(found)]
    return (found.mean() if len(found) else np.nan), len(found)


def _lowest(y, s, specificity, false=lambda negatives, t: negatives >= t, negative=0, take=0):
    good = [t for t in np.unique(s) if 1 - false(s[y == negative], t).mean() >= specificity - 1e-12]
    return good[min(take, len(good) - 1)] if good else np.inf


def _holm(p, running=True, cap=True, back=True):
    order = np.argsort(p)
    steps = (len(p) - np.arange(len(p))) * p[order]
    steps = np.maximum.accumulate(steps) if running else steps
    steps = np.minimum(1, steps) if cap else steps
    out = np.empty_like(p)
    out[order] = steps
    return out if back else steps


def _rates(y, p, mask, group, t, of=lambda y: y == 1, miss=lambda p, t: p < t, use_mask=True, empty=np.nan):
    found = {}
    for name in np.unique(group):
        films = (group == name) & of(y) & (mask if use_mask else True)
        found[name] = miss(p[films], t).mean() if films.any() else empty
    return found


WRONG = [
    ("7.1", lambda y, s, m: (np.mean(_each(y, s, m)), 3), "makes the whole mean NaN"),
    ("7.1", lambda y, s, m: (np.mean(_each(y, s, m, 0.5)), 4), "0.5 was put in"),
    ("7.1", lambda y, s, m: (np.mean(_each(y, s, m, 0.0)), 4), "0 was put in"),
    ("7.1", lambda y, s, m: _mean(_each(y, s, np.ones_like(m))), "unknown films were counted"),
    ("7.1", lambda y, s, m: (_mean(_each(y, s, m))[0], 4), "the second number"),
    ("7.1", lambda y, s, m: _mean(_each(y, -s, m)), "over its known films"),
    ("7.1", lambda y, s, m: _mean(_each(y, s, m)) if m.mean() < 1 else (0.0, 0), "return NaN and 0"),
    ("7.1", lambda y, s, m: 0.7, "give two numbers"),
    ("7.2", lambda y, s, w: float(np.quantile(s[y == 0], w)), "between two observed"),
    ("7.2", lambda y, s, w: _lowest(y, s, w, negative=1), "(y == 0)"),
    ("7.2", lambda y, s, w: _lowest(y, s, w, lambda n, t: n > t), "is a false alarm"),
    ("7.2", lambda y, s, w: _lowest(y, s, w, take=1), "a lower threshold is good enough"),
    ("7.2", lambda y, s, w: s.min(), "specificity is only"),
    ("7.2", lambda y, s, w: min(_lowest(y, s, w), s.max()), "return np.inf"),
    ("7.2", lambda y, s, w: None, "give one number"),
    ("7.3", lambda p: np.minimum(1, len(p) * p), "this is Bonferroni"),
    ("7.3", lambda p: _holm(p, back=False), "in the order in which"),
    ("7.3", lambda p: _holm(p, cap=False), "cannot exceed 1"),
    ("7.3", lambda p: _holm(p, running=False), "running maximum"),
    ("7.3", lambda p: p, "nothing was adjusted"),
    ("7.3", lambda p: p / 2, "multiply the smallest by m"),
    ("7.3", lambda p: 0.1, "give as many"),
    ("7.4", lambda y, p, m, g, t: _rates(y, p, m, g, t, miss=np.greater_equal), "one minus that"),
    ("7.4", lambda y, p, m, g, t: _rates(y, p, m, g, t, use_mask=False), "unknown films were counted"),
    ("7.4", lambda y, p, m, g, t: _rates(y, p, m, g, t, miss=np.less_equal), "it is no miss"),
    ("7.4", lambda y, p, m, g, t: _rates(y, p, m, g, t, of=lambda y: y == 0, miss=np.greater_equal), "false alarms"),
    ("7.4", lambda y, p, m, g, t: {n: ((p < t) & (y == 1))[m & (g == n)].mean() for n in np.unique(g)}, "divide by its positive"),
    ("7.4", lambda y, p, m, g, t: dict.fromkeys(np.unique(g), 0.1), "which share"),
    ("7.4", lambda y, p, m, g, t: _rates(y, p, m, g, t, empty=0.0), "nobody had been missed"),
    ("7.4", lambda y, p, m, g, t: (p[y == 1] < t).mean(), "a dictionary"),
]
