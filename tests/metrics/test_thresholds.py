"""Operating points against scikit-learn and against trying every threshold."""

import numpy as np
import pytest
from samples import draw
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from medbridge.errors import MedBridgeError
from medbridge.metrics.thresholds import f1_at, f1_thresholds, operating_points, sensitivity_at_specificity


def test_sensitivity_at_specificity_by_trying_every_threshold():
    y, scores, mask, _ = draw(n=300, ties=True)
    highest = sensitivity_at_specificity(y, scores, mask, 0.8)
    for c in range(3):
        t, s = y[mask[:, c], c], scores[mask[:, c], c]
        best = 0.0
        for threshold in [*np.unique(s), np.inf]:
            (tn, fp), (fn, tp) = confusion_matrix(t, s >= threshold, labels=[0, 1])
            if tn / (tn + fp) >= 0.8:
                best = max(best, tp / (tp + fn))
        assert highest[c] == pytest.approx(best)


def test_sensitivity_at_a_specificity_that_is_met_exactly():
    """Ten negatives 0.0 ... 0.9: a threshold of 0.9 lets exactly one through, 9 of 10 are right."""
    y, scores = np.r_[np.zeros(10), 1, 1], np.r_[np.arange(10) / 10, 0.9, 0.75]
    assert sensitivity_at_specificity(y, scores, specificity=0.9)[0] == 0.5
    assert sensitivity_at_specificity(y, scores, specificity=0.8)[0] == 1.0
    assert sensitivity_at_specificity(y, scores, specificity=1.0)[0] == 0.0
    assert np.isnan(sensitivity_at_specificity(np.zeros(4), np.arange(4.0))[0])
    with pytest.raises(MedBridgeError, match="specificity=90"):
        sensitivity_at_specificity(y, scores, specificity=90)


def test_operating_points_are_scikit_learns():
    y, scores, mask, _ = draw(n=300, c=1, seed=5, ties=True)
    t, s = y[mask], scores[mask]
    table = operating_points(y, scores, [0.2, 0.37, 0.9], mask)
    for row in table.itertuples():
        predicted = s >= row.threshold
        assert [[row.tn, row.fp], [row.fn, row.tp]] == confusion_matrix(t, predicted).tolist()
        assert [row.sensitivity, row.precision, row.f1, row.accuracy, row.specificity] == pytest.approx([
            recall_score(t, predicted), precision_score(t, predicted), f1_score(t, predicted), accuracy_score(t, predicted),
            recall_score(t, predicted, pos_label=0)])
    none = operating_points(np.zeros(5), np.arange(5.0), 9.0).iloc[0]
    assert np.isnan(none[["sensitivity", "precision", "f1"]].astype(float)).all() and none["specificity"] == none["accuracy"] == 1
    with pytest.raises(MedBridgeError, match="2 labels"):
        operating_points(np.zeros((4, 2)), np.zeros((4, 2)), 0.5)


def test_f1_at_the_validation_threshold():
    y, scores, mask, _ = draw(n=300, seed=1, ties=True)
    thresholds = f1_thresholds(y, scores, mask)
    best = f1_at(y, scores, thresholds, mask)
    other, other_scores, other_mask, _ = draw(n=300, seed=2, ties=True)
    for c in range(3):
        t, s = y[mask[:, c], c], scores[mask[:, c], c]
        assert best[c] == pytest.approx(max(f1_score(t, s >= x) for x in np.unique(s)))
        t, s = other[other_mask[:, c], c], other_scores[other_mask[:, c], c]
        assert f1_at(other, other_scores, thresholds, other_mask)[c] == pytest.approx(f1_score(t, s >= thresholds[c]))
    y[:, 1] = 0
    assert np.isnan(f1_thresholds(y, scores, mask)[1]) and np.isnan(f1_at(y, scores, thresholds, mask)[1])
    with pytest.raises(MedBridgeError, match="one for each of the 3 labels"):
        f1_at(y, scores, thresholds[:2], mask)
