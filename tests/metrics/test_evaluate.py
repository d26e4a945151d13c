"""Evaluation and paired difference against scikit-learn and common resamples, and the cases without an answer."""

import json

import numpy as np
import pytest
from samples import draw
from sklearn.metrics import average_precision_score, roc_auc_score

from medbridge.errors import MedBridgeError
from medbridge.metrics.evaluate import auc, bootstrap_auc, evaluate, json_safe, paired_difference


@pytest.mark.parametrize("ties", [False, True])
def test_point_estimates_equal_scikit_learn(ties):
    y, scores, mask, groups = draw(ties=ties)
    result = evaluate(y, scores, mask, groups, n_boot=50)
    for c in range(3):
        known = mask[:, c]
        assert result.per_label["auc"][c] == pytest.approx(
            roc_auc_score(y[known, c], scores[known, c]), abs=1e-12
        )
        assert result.per_label["ap"][c] == pytest.approx(
            average_precision_score(y[known, c], scores[known, c]), abs=1e-9, rel=0
        )
    assert result.macro["auc"] == pytest.approx(result.per_label["auc"].mean())
    assert result.macro["n_defined"] == 3 and result.macro["lo"] < result.macro["auc"] < result.macro["hi"]
    assert np.array_equal(auc(y, scores, mask), result.per_label["auc"])


def test_a_label_of_one_class_is_undefined_and_left_out():
    y, scores, mask, _ = draw()
    y[:, 1] = 0
    result = evaluate(y, scores, mask, labels=["Mass", "Hernia", "Nodule"], n_boot=100)
    row = result.per_label.iloc[1]
    assert np.isnan(row[["auc", "auc_lo", "auc_hi", "ap"]].astype(float)).all() and row["resamples"] == 0
    assert result.macro["n_defined"] == 2
    assert result.macro["auc"] == pytest.approx(result.per_label["auc"][[0, 2]].mean())
    text = result.table()
    assert "undefined" in text.splitlines()[2] and "0.500" not in text.splitlines()[2]
    assert "mean over 2 labels; 1 undefined (one class only) left out" in text
    saved = json.loads(json.dumps(json_safe(result), allow_nan=False))
    assert saved["per_label"][1]["auc"] is None and saved["per_label"][1]["label"] == "Hernia"


def test_nothing_is_defined():
    result = evaluate(np.zeros((5, 2)), np.zeros((5, 2)), n_boot=10)
    assert np.isnan(result.macro["auc"]) and result.macro["n_defined"] == 0 and "undefined" in result.table()
    compared = paired_difference(np.zeros((5, 2)), np.zeros((5, 2)), np.ones((5, 2)), n_boot=10)
    assert "undefined" in compared.verdict and np.isnan(compared.p_value)
    json.dumps(json_safe(compared), allow_nan=False)


def test_a_rare_label_counts_its_undefined_resamples():
    rng = np.random.default_rng(0)
    y = np.zeros((40, 1))
    y[0] = 1
    result = evaluate(y, rng.random((40, 1)), n_boot=400)
    # One positive is missed by a resample with probability (1 - 1/40)^40 = 0.363.
    assert 0.55 < result.per_label["resamples"][0] / 400 < 0.72


def test_unknown_targets_may_be_nan_and_their_scores_do_not_matter():
    y, scores, mask, groups = draw()
    as_nan = np.where(mask, y, np.nan)
    other = np.where(mask, scores, np.nan)
    a = json_safe(evaluate(y, scores, mask, groups, n_boot=30))
    assert a == json_safe(evaluate(as_nan, other, None, groups, n_boot=30))
    assert a == json_safe(evaluate(as_nan, scores, mask, groups, n_boot=30))
    assert a != json_safe(evaluate(y, scores, mask, groups, n_boot=30, seed=1))


def test_films_of_one_patient_widen_the_interval():
    y, scores, _, _ = draw(n=60, c=1, seed=5)
    copies = 10  # ten copies of each film are no new evidence
    many = [np.repeat(a, copies, axis=0) for a in (y, scores)]
    groups = np.repeat(np.arange(60), copies)

    def width(result):
        return result.macro["hi"] - result.macro["lo"]

    once = width(evaluate(y, scores, n_boot=500))
    by_patient = width(evaluate(*many, groups=groups, n_boot=500))
    by_film = width(evaluate(*many, n_boot=500))
    assert by_patient == pytest.approx(once) and by_film < 0.5 * once


def test_the_interval_covers_the_true_auc():
    """Two normals one standard deviation apart have AUC Phi(1 / sqrt 2) = 0.7602."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y = (np.arange(120) % 2).astype(float)
        macro = evaluate(y, rng.normal(size=120) + y, n_boot=200, seed=seed).macro
        held += macro["lo"] <= 0.7602 <= macro["hi"]
    assert 86 <= held <= 100


def test_paired_difference_sees_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    y = (rng.random((600, 3)) < 0.3).astype(float)
    noise = rng.normal(size=y.shape)
    better = paired_difference(y, noise + 2 * y, noise + y, n_boot=300)
    assert better.lo > 0 and better.p_value <= 2 / 301 + 1e-12 and "A is better" in better.verdict
    worse = paired_difference(y, noise + y, noise + 2 * y, n_boot=300)
    assert worse.diff == pytest.approx(-better.diff) and worse.hi < 0 and "B is better" in worse.verdict
    same = paired_difference(y, noise + y, noise + y, n_boot=300)
    assert (
        same.diff == same.lo == same.hi == 0 and same.p_value == 1 and "interval holds zero" in same.verdict
    )
    nearly = paired_difference(y, noise + y, noise + y + 1e-3 * rng.normal(size=y.shape), n_boot=300)
    assert "interval holds zero" in nearly.verdict and nearly.p_value > 0.05


def test_paired_difference_is_the_difference_of_common_resamples():
    y, a, mask, groups = draw(seed=1)
    b = draw(seed=2)[1]
    result = paired_difference(y, a, b, mask, groups, n_boot=150, seed=4)
    draws = [bootstrap_auc(y, s, mask, groups, 150, 4).mean(axis=1) for s in (a, b)]
    assert result.diff == pytest.approx(auc(y, a, mask).mean() - auc(y, b, mask).mean())
    assert [result.lo, result.hi] == pytest.approx(np.percentile(draws[0] - draws[1], [2.5, 97.5]).tolist())
    assert list(result.per_label.columns) == ["label", "diff", "lo", "hi"]
    json.dumps(json_safe(result), allow_nan=False)


def test_several_training_runs_are_averaged_by_their_auc():
    y, a0, mask, groups = draw(seed=1)
    a1, b0 = draw(seed=2)[1], draw(seed=3)[1]
    result = paired_difference(y, [a0, a1], [b0], mask, groups, n_boot=80)
    expected = np.mean([auc(y, a0, mask).mean(), auc(y, a1, mask).mean()]) - auc(y, b0, mask).mean()
    assert result.diff == pytest.approx(expected)
    assert (result.settings["runs_a"], result.settings["runs_b"]) == (2, 1)
    twice = paired_difference(y, [a0, a0], [b0, b0], mask, groups, n_boot=80)
    once = paired_difference(y, a0, b0, mask, groups, n_boot=80)
    assert (twice.diff, twice.lo, twice.hi) == pytest.approx((once.diff, once.lo, once.hi))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"scores": np.zeros((4, 2))}, r"scores has shape \(4, 2\), y has \(5, 2\)"),
        ({"mask": np.ones((5, 3))}, "mask has shape"),
        ({"y": np.full((5, 2), -1.0)}, "other than 0 and 1"),
        ({"scores": np.full((5, 2), np.nan)}, r"NaN.*column\(s\) \[0, 1\]"),
        ({"scores": np.full((5, 2), np.inf)}, "infinite"),
        ({"groups": ["a"] * 4}, "groups has 4 entries"),
        ({"groups": ["a", "b", None, "a", "b"]}, "blanks"),
        ({"labels": ["one"]}, "names 1 labels"),
        ({"n_boot": -1}, "n_boot=-1"),
        ({"y": np.zeros((0, 2)), "scores": np.zeros((0, 2))}, "at least one"),
    ],
)
def test_arguments_that_do_not_fit(change, words):
    arguments = {"y": np.eye(5)[:, :2], "scores": np.zeros((5, 2))} | change
    with pytest.raises(MedBridgeError, match=words):
        evaluate(**arguments)


def test_paired_difference_names_the_run_at_fault():
    y = np.eye(5)[:, :2]
    with pytest.raises(MedBridgeError, match=r"scores_b\[1\] has shape"):
        paired_difference(y, y, [y, y[:4]])
    with pytest.raises(MedBridgeError, match="scores_a is an empty list"):
        paired_difference(y, [], y)


def test_no_intervals_and_one_label():
    y, scores, _, _ = draw(c=1)
    result = evaluate(y[:, 0], scores[:, 0], n_boot=0)
    assert np.isnan(result.macro["lo"]) and not np.isnan(result.macro["auc"]) and "macro" in result.table()
