"""DeLong's variance against its definition, and against the bootstrap on independent films."""

import numpy as np
import pytest
from samples import draw
from sklearn.metrics import roc_auc_score

from medbridge.errors import MedBridgeError
from medbridge.metrics.delong import delong_auc, delong_difference
from medbridge.metrics.evaluate import auc, bootstrap_auc


def test_delong_is_its_definition():
    """Structural components pair by pair (DeLong et al. 1988, equations 3 to 5), ties counting half."""
    y, a, _, _ = draw(n=60, c=1, ties=True)
    b = draw(n=60, c=1, seed=5, ties=True)[1]
    runs, positive, negative = [a[:, 0], b[:, 0]], np.flatnonzero(y == 1), np.flatnonzero(y[:, 0] == 0)
    wins = [(s[positive][:, None] > s[negative]) + 0.5 * (s[positive][:, None] == s[negative]) for s in runs]
    cov = np.cov([w.mean(1) for w in wins]) / len(positive) + np.cov([w.mean(0) for w in wins]) / len(negative)
    for scores, variance in ((a, cov[0, 0]), (b, cov[1, 1])):
        table = delong_auc(y, scores)
        np.testing.assert_allclose(table["se"] ** 2, variance, atol=1e-12)
        np.testing.assert_allclose(table["auc"], roc_auc_score(y, scores), atol=1e-12)
    np.testing.assert_allclose(delong_difference(y, a, b)["se"] ** 2, cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], atol=1e-12)


def test_delong_and_the_bootstrap_agree_on_independent_films():
    y, a, mask, _ = draw(n=600)
    b = a + 0.2 * draw(n=600, seed=9)[1]
    table = delong_auc(y, a, mask)
    np.testing.assert_allclose(table["auc"], auc(y, a, mask), atol=1e-12)
    first = bootstrap_auc(y, a, mask, n_boot=600)
    np.testing.assert_allclose(table["se"], first.std(axis=0), rtol=0.12)
    np.testing.assert_allclose(table["hi"] - table["lo"], 2 * 1.959964 * table["se"])
    difference = delong_difference(y, a, b, mask)
    np.testing.assert_allclose(difference["se"], (first - bootstrap_auc(y, b, mask, n_boot=600)).std(axis=0), rtol=0.15)
    np.testing.assert_allclose(difference["diff"], auc(y, a, mask) - auc(y, b, mask), atol=1e-12)


def test_delong_of_the_same_scores_of_another_scale_and_of_too_few_films():
    y, a, mask, _ = draw(n=300, ties=True)
    same = delong_difference(y, a, 2 * a + 1, mask)
    assert (same["diff"] == 0).all() and (same["p_value"] == 1).all()
    clear = delong_difference(y, y, 1 - y)
    assert (clear["diff"] == 1).all() and (clear["p_value"] == 0).all()
    y[:, 0] = 0
    y[0, 0], mask[0, 0] = 1, True
    assert delong_auc(y, a, mask).iloc[0][["auc", "se", "lo"]].isna().all()
    with pytest.raises(MedBridgeError, match="b has shape"):
        delong_difference(y, a, a[:4])
