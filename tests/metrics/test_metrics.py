"""Thresholds, DeLong, reliability, subgroups and localisation, each against a second way to the same number."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from medbridge.data import Benchmark
from medbridge.errors import MedBridgeError
from medbridge.metrics.bootstrap import bootstrap_means
from medbridge.metrics.calibration import fit_temperature, reliability
from medbridge.metrics.delong import delong_auc, delong_covariance, delong_difference
from medbridge.metrics.evaluate import auc, bootstrap_auc, brier, ece
from medbridge.metrics.localise import box_mask, localisation_table, localise_film
from medbridge.metrics.subgroups import age_band, subgroup_table
from medbridge.metrics.thresholds import f1_at, f1_thresholds, operating_points, sensitivity_at_specificity
from medbridge.model import MedBridge
from medbridge.viz import plots


def draw(n=300, c=3, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, c)) < 0.3).astype(float)
    scores = rng.random((n, c)) * 0.7 + 0.3 * y
    return y, np.round(scores, 2) if ties else scores, rng.random((n, c)) >= 0.2


def test_sensitivity_at_specificity_by_trying_every_threshold():
    y, scores, mask = draw()
    found = sensitivity_at_specificity(y, scores, mask, 0.8)
    for c in range(3):
        t, s = y[mask[:, c], c], scores[mask[:, c], c]
        best = 0.0
        for threshold in [*np.unique(s), np.inf]:
            (tn, fp), (fn, tp) = confusion_matrix(t, s >= threshold, labels=[0, 1])
            if tn / (tn + fp) >= 0.8:
                best = max(best, tp / (tp + fn))
        assert found[c] == pytest.approx(best)


def test_sensitivity_at_a_specificity_that_is_met_exactly():
    """Ten negatives 0.0 ... 0.9: a threshold of 0.9 lets exactly one through, 9 of 10 are told right."""
    y, scores = np.r_[np.zeros(10), 1, 1], np.r_[np.arange(10) / 10, 0.9, 0.75]
    assert sensitivity_at_specificity(y, scores, specificity=0.9)[0] == 0.5
    assert sensitivity_at_specificity(y, scores, specificity=0.8)[0] == 1.0
    assert sensitivity_at_specificity(y, scores, specificity=1.0)[0] == 0.0
    assert np.isnan(sensitivity_at_specificity(np.zeros(4), np.arange(4.0))[0])
    with pytest.raises(MedBridgeError, match="specificity=90"):
        sensitivity_at_specificity(y, scores, specificity=90)


def test_operating_points_are_scikit_learns():
    y, scores, mask = draw(c=1, seed=5)
    t, s = y[mask], scores[mask]
    table = operating_points(y, scores, [0.2, 0.37, 0.9], mask)
    for row in table.itertuples():
        told = s >= row.threshold
        assert [[row.tn, row.fp], [row.fn, row.tp]] == confusion_matrix(t, told).tolist()
        assert [row.sensitivity, row.precision, row.f1, row.accuracy, row.specificity] == pytest.approx([
            recall_score(t, told), precision_score(t, told), f1_score(t, told), accuracy_score(t, told),
            recall_score(t, told, pos_label=0)])
    none = operating_points(np.zeros(5), np.arange(5.0), 9.0).iloc[0]
    assert np.isnan(none[["sensitivity", "precision", "f1"]].astype(float)).all() and none["specificity"] == none["accuracy"] == 1
    with pytest.raises(MedBridgeError, match="2 labels"):
        operating_points(np.zeros((4, 2)), np.zeros((4, 2)), 0.5)


def test_f1_at_the_validation_threshold():
    y, scores, mask = draw(seed=1)
    thresholds = f1_thresholds(y, scores, mask)
    found = f1_at(y, scores, thresholds, mask)
    other, other_scores, other_mask = draw(seed=2)
    for c in range(3):
        t, s = y[mask[:, c], c], scores[mask[:, c], c]
        assert found[c] == pytest.approx(max(f1_score(t, s >= x) for x in np.unique(s)))
        t, s = other[other_mask[:, c], c], other_scores[other_mask[:, c], c]
        assert f1_at(other, other_scores, thresholds, other_mask)[c] == pytest.approx(f1_score(t, s >= thresholds[c]))
    y[:, 1] = 0
    assert np.isnan(f1_thresholds(y, scores, mask)[1]) and np.isnan(f1_at(y, scores, thresholds, mask)[1])
    with pytest.raises(MedBridgeError, match="one for each of the 3 labels"):
        f1_at(y, scores, thresholds[:2], mask)


def test_delong_is_its_definition():
    """Structural components pair by pair (DeLong et al. 1988, equations 3 to 5), ties counting half."""
    y, a, _ = draw(n=60, c=1)
    b = draw(n=60, c=1, seed=5)[1]
    runs, positive, negative = [a[:, 0], b[:, 0]], np.flatnonzero(y == 1), np.flatnonzero(y[:, 0] == 0)
    wins = [(s[positive][:, None] > s[negative]) + 0.5 * (s[positive][:, None] == s[negative]) for s in runs]
    cov = np.cov([w.mean(1) for w in wins]) / len(positive) + np.cov([w.mean(0) for w in wins]) / len(negative)
    aucs, found = delong_covariance(y[:, 0], runs)
    np.testing.assert_allclose(found, cov, atol=1e-12)
    np.testing.assert_allclose(aucs, [roc_auc_score(y[:, 0], s) for s in runs], atol=1e-12)


def test_delong_and_the_bootstrap_agree_on_independent_films():
    y, a, mask = draw(n=600, ties=False)
    b = a + 0.2 * draw(n=600, seed=9, ties=False)[1]
    table = delong_auc(y, a, mask, ["p", "q", "r"])
    np.testing.assert_allclose(table["auc"], auc(y, a, mask), atol=1e-12)
    first = bootstrap_auc(y, a, mask, n_boot=600)
    np.testing.assert_allclose(table["se"], first.std(axis=0), rtol=0.12)
    np.testing.assert_allclose(table["hi"] - table["lo"], 2 * 1.959964 * table["se"])
    difference = delong_difference(y, a, b, mask)
    np.testing.assert_allclose(difference["se"], (first - bootstrap_auc(y, b, mask, n_boot=600)).std(axis=0), rtol=0.15)
    np.testing.assert_allclose(difference["diff"], auc(y, a, mask) - auc(y, b, mask), atol=1e-12)


def test_delong_of_the_same_scores_of_another_scale_and_of_too_few_films():
    y, a, mask = draw()
    same = delong_difference(y, a, 2 * a + 1, mask)
    assert (same["diff"] == 0).all() and (same["p_value"] == 1).all()
    clear = delong_difference(y, y, 1 - y)
    assert (clear["diff"] == 1).all() and (clear["p_value"] == 0).all()
    y[:, 0] = 0
    y[0, 0], mask[0, 0] = 1, True
    assert delong_auc(y, a, mask).iloc[0][["auc", "se", "lo"]].isna().all()
    with pytest.raises(MedBridgeError, match="1 positive"):
        delong_covariance(y[:, 0], [a[:, 0]])
    with pytest.raises(MedBridgeError, match="scores_b has shape"):
        delong_difference(y, a, a[:4])


def test_reliability_is_scikit_learns_and_adds_up_to_ece():
    y, p, mask = draw()
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


def test_the_temperature_is_found_again():
    """Labels are drawn by sigmoid(z); logits that are told 2.5 times too large ask for T = 2.5."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (4000, 2))
    y = (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(float)
    mask = rng.random(z.shape) > 0.2
    found = fit_temperature(y, 2.5 * z, mask)
    assert found == pytest.approx(2.5, rel=0.06)

    def loss(t):
        p = 1 / (1 + np.exp(-2.5 * z / t))
        return log_loss(y[mask], p[mask])

    assert loss(found) < min(loss(found * 0.99), loss(found * 1.01), loss(1.0))
    # what is not known is not looked at
    assert fit_temperature(np.where(mask, y, 1 - y), 2.5 * z, mask) == found
    with pytest.raises(MedBridgeError, match="with and without"):
        fit_temperature(np.zeros(5), np.arange(5.0))


def test_the_reliability_plot_shows_the_table():
    y, p, mask = draw()
    figure = plots.reliability_plot(y, {"one": p, "two": p**2}, mask, bins=5)
    table = reliability(y, p**2, mask, 5)
    np.testing.assert_allclose(figure.axes[1].lines[1].get_xydata(), table[["predicted", "observed"]])
    assert figure.axes[1].get_title() == f"two\nBrier {brier(y, p**2, mask):.3f}, ECE {ece(y, p**2, mask, 5):.3f}"


@pytest.fixture
def people():
    """120 films of 60 patients; the scores tell men (AUC 1) and say nothing about women."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(120)], "patient_id": [f"p{i // 2}" for i in range(120)],
                          "split": "test"})
    table["a"], table["b"] = rng.integers(2, size=(2, 120)).astype(float)
    table["sex"] = np.where(np.arange(120) // 2 % 2 == 0, "M", "F")
    table["age"] = 20.0 + np.arange(120) // 2
    table.loc[[0, 1], ["sex", "age"]] = [None, np.nan]
    benchmark = Benchmark("people (synthetic)", ".", ("a", "b"), table, synthetic=True)
    y, _ = benchmark.targets()
    men = (table["sex"] == "M").to_numpy()[:, None]
    return benchmark, np.where(men, y, rng.random(y.shape))


def test_subgroups_are_their_own_evaluations(people):
    benchmark, scores = people
    table = subgroup_table(benchmark, scores, n_boot=200).set_index(["column", "group"])
    assert list(table.index) == [("sex", "F"), ("sex", "M"), ("age", "18-39"), ("age", "40-59"), ("age", "60-79")]
    assert table.loc[("sex", "M"), ["films", "patients", "labels", "auc", "lo", "hi"]].tolist() == [58, 29, 2, 1, 1, 1]
    women = (benchmark.table["sex"] == "F").to_numpy()
    y, _ = benchmark.targets()
    row = table.loc[("sex", "F")]
    assert row["auc"] == pytest.approx(auc(y[women], scores[women]).mean())
    draws = bootstrap_auc(y, scores, np.broadcast_to(women[:, None], y.shape), benchmark.table["patient_id"], 200)
    assert [row["lo"], row["hi"]] == pytest.approx(np.percentile(draws.mean(1), [2.5, 97.5]).tolist())
    assert row["gap"] == pytest.approx(row["auc"] - 1) and row["gap_hi"] < 0
    middle = table.loc[("age", "40-59")]
    assert middle["gap_lo"] < 0 < middle["gap_hi"]


def test_age_bands():
    assert age_band([0, 17, 18, 59.5, 60, 80, 101, np.nan, "x"]) == [
        "0-17", "0-17", "18-39", "40-59", "60-79", "80+", "80+", None, None]
    assert age_band([10, 30, 70], (18, 65)) == [None, "18-64", "65+"]


def test_subgroups_without_a_column_and_with_one_class(people):
    benchmark, scores = people
    with pytest.raises(MedBridgeError, match="has no column view"):
        subgroup_table(benchmark, scores, ["view"])
    flat = Benchmark("flat", ".", ("a",), benchmark.table.assign(a=1.0), synthetic=True)
    table = subgroup_table(flat, scores[:, :1], ["sex"], n_boot=20)
    assert table["auc"].isna().all() and table["gap"].isna().all() and (table["labels"] == 0).all()


def test_bootstrap_means_by_a_plain_loop():
    rng = np.random.default_rng(0)
    values, codes = rng.random((30, 2)), np.sort(np.r_[rng.integers(8, size=22), np.arange(8)])
    drawn = np.random.default_rng(3).integers(8, size=(5, 8))
    want = [values[np.concatenate([np.flatnonzero(codes == g) for g in line])].mean(0) for line in drawn]
    np.testing.assert_allclose(bootstrap_means(values, codes, 5, 3), want)


def test_localisation_by_hand():
    """A 4 x 4 map over a film of 40 x 80; the box holds 2 x 2 cells; 3 cells are told, 2 of them in the box."""
    heat = np.zeros((4, 4))
    heat[0, 0], heat[1, 0], heat[3, 3] = 1.0, 0.6, 0.5
    box = np.array([[0.0, 0.0, 40.0, 20.0]])
    assert box_mask(box, (40, 80), (4, 4)).sum() == 4 and box_mask(box, (40, 80), (4, 4))[:2, :2].all()
    found = localise_film(heat, box, (40, 80))
    assert found["hit"] == 1 and found["hit_chance"] == 4 / 16 and found["iou"] == pytest.approx(2 / 5)
    told, truth, ious = heat >= 0.5, box_mask(box, (40, 80), (4, 4)), []
    for dy in range(4):
        for dx in range(4):
            moved = np.roll(told, (dy, dx), (0, 1))
            ious.append((moved & truth).sum() / (moved | truth).sum())
    assert found["iou_chance"] == pytest.approx(np.mean(ious))
    assert localise_film(heat, box, (40, 80), share=0.9)["iou"] == 1 / 4
    flat = localise_film(np.ones((4, 4)), box, (40, 80))
    assert flat["hit"] == flat["hit_chance"] == flat["iou"] == flat["iou_chance"] == 0.25, "a map of nothing is chance"


def test_boxes_smaller_than_a_cell_and_several_boxes():
    assert np.argwhere(box_mask([[41, 31, 43, 33]], (40, 80), (4, 4))).tolist() == [[3, 2]]
    assert box_mask([[0, 0, 20, 10], [60, 30, 80, 40], [0, 0, 20, 10]], (40, 80), (4, 4)).sum() == 2


@pytest.mark.parametrize("change, words", [({"share": 0}, "share=0"), ({"boxes": np.zeros((0, 4))}, "at least one box"),
                                           ({"heat": np.full((2, 2), np.nan)}, "finite")])
def test_maps_that_cannot_be_compared(change, words):
    arguments = {"heat": np.ones((2, 2)), "boxes": np.array([[0, 0, 1, 1]]), "film": (4, 4)} | change
    with pytest.raises(MedBridgeError, match=words):
        localise_film(**arguments)


def test_localisation_of_a_model(squares, vit):
    model = MedBridge([vit], squares.labels, seed=0)
    part = squares.split("test")
    boxes = pd.DataFrame([{"image": image, "label": "wide", "x0": 0, "y0": 80, "x1": 128, "y1": 90}
                          for image, wide in zip(part.image_ids(), part.table["wide"], strict=True) if wide])
    with pytest.raises(MedBridgeError, match="has no boxes of bright, wide"):
        localisation_table(model, part)
    table = localisation_table(model, replace(part, boxes=boxes), n_boot=50, progress=False)
    assert table["label"].tolist() == ["wide"] and table["films"][0] == len(boxes)
    assert table["hit_chance"][0] == pytest.approx(10 / 96, abs=0.02)
    assert 0 <= table["iou_lo"][0] <= table["iou"][0] <= table["iou_hi"][0] <= 1
    gain = table["iou"][0] - table["iou_chance"][0]
    assert table["iou_gain_lo"][0] <= gain <= table["iou_gain_hi"][0]
    far = replace(part, boxes=boxes.assign(x0=500, x1=600))
    with pytest.raises(MedBridgeError, match=r"box of wide lies outside the film of 128 x 96 pixels.*scale their boxes"):
        localisation_table(model, far, progress=False)
