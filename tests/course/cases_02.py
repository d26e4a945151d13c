"""Cases of the exercises of notebook 02."""

import numpy as np

NAMES = {"2.1": "masked_prevalence", "2.2": "patients_in_two_splits", "2.3": "auc_by_pairs"}


def _splits(table):
    return table.groupby("patient_id", sort=False)["split"].nunique()


def _pairs(y, scores, tie):
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    return np.mean((difference > 0) + tie * (difference == 0)) if difference.size else np.nan


WRONG = [
    ("2.1", lambda v: np.nan_to_num(v).mean(axis=0), "counted as negative"),
    ("2.1", lambda v: v.mean(axis=0), "came out as NaN"),
    ("2.1", lambda v: np.nanmean(v), "one share per label"),
    ("2.1", lambda v: np.nan_to_num(v).sum(axis=0) / np.maximum(1, (v == v).sum(axis=0)), "nothing is known: return NaN"),
    ("2.1", lambda v: None, "returns nothing"),
    ("2.2", lambda t: sorted(t["patient_id"][t["patient_id"].duplicated()].unique()), "count different splits"),
    ("2.2", lambda t: list(_splits(t).loc[lambda n: n > 1].index), "not sorted"),
    ("2.2", lambda t: sorted(t["patient_id"][t["patient_id"].map(_splits(t)) > 1]), "more than once"),
    ("2.2", lambda t: list(_splits(t).loc[lambda n: n == 2].index), "look at all splits"),
    ("2.3", lambda y, s: _pairs(y, s, 0.0), "counted as lost"),
    ("2.3", lambda y, s: _pairs(y, s, 1.0), "counted as won"),
    ("2.3", lambda y, s: _pairs(1 - y, s, 0.5), "1 - AUC"),
    ("2.3", lambda y, s: _pairs(y, s, 0.5) if 0 < y.sum() < len(y) else 0.5, "there is no pair: return NaN"),
]
