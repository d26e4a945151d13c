"""AUC, AP, calibration and DeLong on random masked tables, against scikit-learn and a second published implementation each."""

import numpy as np
import pytest
import torch
from samples import draw
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from medbridge.metrics.calibration import brier, ece
from medbridge.metrics.delong import delong_auc, delong_difference
from medbridge.metrics.evaluate import auc, evaluate

SEEDS = range(12)


def _table(seed):
    """Few or many films, with ties or without, labels rare and frequent, a tenth to a half unknown."""
    rng = np.random.default_rng(seed)
    y, scores, _, _ = draw(n=int(rng.integers(40, 400)), c=3, seed=seed, ties=seed % 2 == 0)
    y = np.where(rng.random(y.shape) < rng.uniform(0, 0.4, 3), 1 - y, y)
    return y, scores, rng.random(y.shape) >= rng.uniform(0.1, 0.5)


def _columns(*tables, mask):
    return [[table[known, c] for table in tables] for c, known in enumerate(mask.T)]


@pytest.mark.parametrize("seed", SEEDS)
def test_auc_and_ap_of_each_label(seed):
    y, scores, mask = _table(seed)
    rows = evaluate(y, scores, mask, n_boot=2).per_label
    for (t, s), row in zip(_columns(y, scores, mask=mask), rows.itertuples(), strict=True):
        assert row.auc == pytest.approx(roc_auc_score(t, s), abs=1e-12)
        assert row.auc == pytest.approx(mannwhitneyu(s[t == 1], s[t == 0]).statistic / (t.sum() * (1 - t).sum()), abs=1e-12)
        assert row.ap == pytest.approx(average_precision_score(t, s), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_torchmetrics_says_the_same(seed):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    y, scores, mask = _table(seed)
    rows = evaluate(y, scores, mask, n_boot=2).per_label
    for (t, s), row in zip(_columns(y, scores, mask=mask), rows.itertuples(), strict=True):
        pair = torch.tensor(s), torch.tensor(t).long()
        assert row.auc == pytest.approx(functional.binary_auroc(*pair).item(), abs=1e-5)
        assert row.ap == pytest.approx(functional.binary_average_precision(*pair).item(), abs=1e-5)
    # its edges belong to the bin below, ours to the one above: no score may lie on an edge
    off = mask & (np.abs(scores * 15 - np.rint(scores * 15)) > 1e-6)
    theirs = functional.binary_calibration_error(torch.tensor(scores[off]), torch.tensor(y[off]).long(), n_bins=15, norm="l1")
    assert ece(y, scores, off) == pytest.approx(theirs.item(), abs=1e-5)
    assert brier(y, scores, mask) == pytest.approx(brier_score_loss(y[mask], scores[mask]), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_delong_is_mlstatkits(seed):
    delong = pytest.importorskip("MLstatkit.delong")
    y, a, mask = _table(seed)
    b = 0.7 * a + 0.3 * np.random.default_rng(seed + 100).random(a.shape)
    ours, singles = delong_difference(y, a, b, mask), delong_auc(y, a, mask)
    np.testing.assert_allclose(singles["auc"], auc(y, a, mask), atol=1e-12)
    for c, (t, s, other) in enumerate(_columns(y, a, b, mask=mask)):
        z, p, bounds, _, first, second, info = delong.Delong_test(t.astype(int), s, other)
        assert info["method"] == "delong"
        assert ours["diff"][c] == pytest.approx(first - second, abs=1e-9)
        assert -ours["diff"][c] / ours["se"][c] == pytest.approx(z, rel=1e-6)  # theirs is the second minus the first
        assert ours["p_value"][c] == pytest.approx(p, rel=1e-6)
        np.testing.assert_allclose(singles.loc[c, ["lo", "hi"]].astype(float), bounds, atol=1e-6)
