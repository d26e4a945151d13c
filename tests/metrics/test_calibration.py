"""Brier score, ECE, the reliability table and the temperature, each against a second way to the same number."""

import numpy as np
import pytest
from samples import draw
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from medbridge.errors import MedBridgeError
from medbridge.metrics.calibration import brier, ece, fit_temperature, reliability
from medbridge.viz import plots


def test_brier_and_ece():
    y, _, mask, _ = draw()
    p = np.random.default_rng(0).random(y.shape)
    assert brier(y, p, mask) == pytest.approx(brier_score_loss(y[mask], p[mask]))
    assert ece(y, y) == 0 and ece(y, 1 - y) == 1
    assert ece(np.array([0, 1, 0, 1]), np.full(4, 0.7)) == pytest.approx(0.2)
    edges = np.array([0.05, 0.05, 0.95, 1.0])
    assert ece(np.array([0, 1, 1, 1]), edges, bins=10) == pytest.approx((0.9 + 0.05) / 4)
    assert np.isnan(ece(y, p, np.zeros_like(mask))) and np.isnan(brier(y, p, np.zeros_like(mask)))
    with pytest.raises(MedBridgeError, match="probabilities"):
        ece(y, p * 3)


def test_reliability_is_scikit_learns_and_adds_up_to_ece():
    y, p, mask, _ = draw(n=300, ties=True)
    table = reliability(y, p, mask, bins=10)
    # scikit-learn's edges belong to the bin below, ours to the one above: compare where no score lies on an edge
    off = np.abs(p * 10 - np.rint(p * 10)) > 1e-9
    inner = reliability(y, p, mask & off, bins=10)
    observed, predicted = calibration_curve(y[mask & off], p[mask & off], n_bins=10)
    np.testing.assert_allclose(inner["observed"], observed)
    np.testing.assert_allclose(inner["predicted"], predicted)
    gaps = (table["observed"] - table["predicted"]).abs()
    assert (gaps * table["n"]).sum() / table["n"].sum() == pytest.approx(ece(y, p, mask, bins=10))
    assert table["n"].sum() == mask.sum()
    assert ((table["observed_lo"] <= table["observed"]) & (table["observed"] <= table["observed_hi"])).all()
    one = reliability(np.r_[np.ones(8), np.zeros(2)], np.full(10, 0.5))
    # Wilson's interval of 8 in 10: 0.490 to 0.943
    assert one[["lo", "n", "observed_lo", "observed_hi"]].round(3).iloc[0].tolist() == [0.467, 10, 0.49, 0.943]
    with pytest.raises(MedBridgeError, match="probabilities"):
        reliability(y, p + 1, mask)
    with pytest.raises(MedBridgeError, match="bins=0"):
        reliability(y, p, mask, bins=0)


def test_the_temperature_is_recovered():
    """Labels are drawn by sigmoid(z); logits that are 2.5 times too large ask for T = 2.5."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (4000, 2))
    y = (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(float)
    mask = rng.random(z.shape) > 0.2
    temperature = fit_temperature(y, 2.5 * z, mask)
    assert temperature == pytest.approx(2.5, rel=0.06)

    def loss(t):
        p = 1 / (1 + np.exp(-2.5 * z / t))
        return log_loss(y[mask], p[mask])

    assert loss(temperature) < min(loss(temperature * 0.99), loss(temperature * 1.01), loss(1.0))
    # what is not known is not looked at
    assert fit_temperature(np.where(mask, y, 1 - y), 2.5 * z, mask) == temperature
    with pytest.raises(MedBridgeError, match="with and without"):
        fit_temperature(np.zeros(5), np.arange(5.0))


def test_the_reliability_plot_shows_the_table():
    y, p, mask, _ = draw(n=300, ties=True)
    figure = plots.reliability_plot(y, {"one": p, "two": p**2}, mask, bins=5)
    table = reliability(y, p**2, mask, 5)
    np.testing.assert_allclose(figure.axes[1].lines[1].get_xydata(), table[["predicted", "observed"]])
    assert figure.axes[1].get_title() == f"two\nBrier {brier(y, p**2, mask):.3f}, ECE {ece(y, p**2, mask, 5):.3f}"
