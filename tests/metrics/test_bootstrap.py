"""The bootstrap against a plain loop over resamples that scikit-learn scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import draw
from sklearn.metrics import roc_auc_score

from medbridge.metrics.bootstrap import bootstrap_means
from medbridge.metrics.evaluate import bootstrap_auc, evaluate, paired_difference


def plain_loop(y, scores, mask, groups, n_boot, seed):
    """The same resamples, each film repeated as often as its patient is drawn, scored by scikit-learn."""
    codes = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(len(y))
    order = dict.fromkeys(codes.tolist())  # patients in order of first appearance
    members = [np.flatnonzero(codes == code) for code in order]
    rng = np.random.default_rng(seed)
    out = np.full((n_boot, y.shape[1]), np.nan)
    for b in range(n_boot):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        for c in range(y.shape[1]):
            known = rows[mask[rows, c]]
            if len(set(y[known, c])) == 2:
                out[b, c] = roc_auc_score(y[known, c], scores[known, c])
    return out


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_bootstrap_equals_a_plain_loop_on_the_same_resamples(ties, grouped):
    y, scores, mask, groups = draw(n=90, ties=ties, seed=3)
    groups = groups if grouped else None
    fast = bootstrap_auc(y, scores, mask, groups, n_boot=100, seed=7)  # more than one chunk
    assert np.allclose(fast, plain_loop(y, scores, mask, groups, 100, 7), atol=1e-9, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 25),
    levels=st.integers(1, 6),
    prevalence=st.floats(0.05, 0.95),
    seed=st.integers(0, 10_000),
)
def test_bootstrap_equals_a_plain_loop_on_tiny_tied_samples(n, levels, prevalence, seed):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 2)) < prevalence).astype(float)
    scores = rng.integers(0, levels, (n, 2)).astype(float)
    mask, groups = rng.random((n, 2)) < 0.8, rng.integers(0, 5, n)
    fast = bootstrap_auc(y, scores, mask, groups, n_boot=20, seed=seed)
    slow = plain_loop(y, scores, mask, groups, 20, seed)
    assert np.array_equal(np.isnan(fast), np.isnan(slow))
    assert np.allclose(fast, slow, atol=1e-9, rtol=0, equal_nan=True)


def test_bootstrap_means_by_a_plain_loop():
    rng = np.random.default_rng(0)
    values, codes = rng.random((30, 2)), np.sort(np.r_[rng.integers(8, size=22), np.arange(8)])
    drawn = np.random.default_rng(3).integers(8, size=(5, 8))
    want = [values[np.concatenate([np.flatnonzero(codes == g) for g in line])].mean(0) for line in drawn]
    np.testing.assert_allclose(bootstrap_means(values, codes, 5, 3), want)


@pytest.mark.parametrize("positives", [[3], [3, 4], []])
def test_no_interval_is_drawn_from_one_patient(positives):
    """Film 3 and film 4 are of the same patient; whoever is resampled, the positive films are hers."""
    y, scores = np.zeros((12, 2)), np.random.default_rng(0).random((12, 2))
    y[positives, 0], y[:, 1] = 1, np.arange(12) % 2
    groups = [0, 1, 2, 3, 3, 5, 6, 7, 8, 9, 10, 11]
    thin, both = evaluate(y[:, :1], scores[:, :1], groups=groups), evaluate(y, scores, groups=groups)
    for found in (thin, both):
        assert found.per_label.loc[0, ["auc_lo", "auc_hi"]].isna().all()
    assert np.isnan(thin.macro["lo"]) and np.isnan(thin.macro["auc"]) == (not positives)
    assert both.macro["lo"] < both.macro["auc"] < both.macro["hi"] and both.per_label.loc[1, "auc_lo"] > 0
    assert "[" not in thin.table() and ("all of one patient" in thin.table()) == bool(positives)
    d = paired_difference(y[:, :1], scores[:, :1], 1 - scores[:, :1], groups=groups)
    assert np.isnan(d.lo) and ("no interval" if positives else "no label has both classes") in d.verdict
