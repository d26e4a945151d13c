"""Rows of tables: what a plain evaluation and a paired comparison say, and Holm's correction by hand."""

import numpy as np
import pytest

from medbridge.data.tasks import make_targets
from medbridge.metrics.evaluate import evaluate, paired_difference
from medbridge.studies.tables import Measured, difference, holm, mean_over, measure, over_folds, with_interval


@pytest.fixture(scope="module")
def target(squares):
    return make_targets(squares, [squares])[0]


@pytest.fixture(scope="module")
def runs(target):
    rng = np.random.default_rng(0)
    return [rng.random((len(target.test), 2)) for _ in range(3)]


def test_one_run_is_measured_as_it_is_evaluated(target, runs):
    y, mask = target.test.targets()
    plain = evaluate(y, runs[0], mask, target.test.table["patient_id"], n_boot=50, seed=3)
    rows = [measured.row() for measured in measure(target, runs[:1], 50, 3)]
    assert [rows[0][name] for name in ("auc", "lo", "hi")] == [plain.macro[name] for name in ("auc", "lo", "hi")]
    for row, label in zip(rows[1:], plain.per_label.itertuples(), strict=True):
        assert (row["auc"], row["lo"], row["hi"]) == (label.auc, label.auc_lo, label.auc_hi)
    assert rows[0]["seeds"] == 1 and np.isnan([rows[0]["seed_sd"], rows[0]["ours_minus"], rows[0]["ours_lo"]]).all()


def test_a_reference_is_compared_on_the_same_patients(target, runs):
    ours, theirs = measure(target, runs[:2], 60, 0), measure(target, runs[2:], 60, 0)
    d = difference(target, runs[:2], runs[2:], 60)
    row = theirs[0].row(ours[0])
    assert [row["ours_minus"], row["ours_lo"], row["ours_hi"]] == pytest.approx([d.diff, d.lo, d.hi])
    y, mask = target.test.targets()
    plain = paired_difference(y, runs[:2], runs[2:], mask, target.test.table["patient_id"], 60, labels=target.test.labels)
    assert (d.diff, d.p_value, d.per_label["label"].tolist()) == (plain.diff, plain.p_value, list(target.test.labels))
    spread = ours[0].row()
    assert spread["seed_sd"] == pytest.approx(np.std(ours[0].runs, ddof=1))
    assert (spread["auc_min"], spread["auc_max"]) == (ours[0].runs.min(), ours[0].runs.max())


def test_targets_are_averaged_run_by_run_and_draw_by_draw(target, runs):
    one, two = measure(target, runs, 30, 0)[0], measure(target, runs, 30, 1)[0]
    mean = mean_over([one, two])
    np.testing.assert_allclose(mean.draws, (one.draws + two.draws) / 2)
    np.testing.assert_allclose(mean.runs, one.runs)


def test_folds_are_averaged_label_by_label_where_they_are_defined(target, runs):
    whole, lacking = measure(target, runs, 30, 0), measure(target, runs, 30, 1)
    lacking = [lacking[0], Measured(np.full(3, np.nan), np.full(30, np.nan)), lacking[2]]
    mean, first, second = over_folds([whole, lacking])
    np.testing.assert_allclose(first.runs, whole[1].runs)  # its only fold
    np.testing.assert_allclose(second.draws, (whole[2].draws + lacking[2].draws) / 2)
    np.testing.assert_allclose(mean.draws, (first.draws + second.draws) / 2)
    np.testing.assert_allclose(mean.runs, (first.runs + second.runs) / 2)


def test_holm_corrects_as_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.04; no later one below an earlier one
    assert holm([0.03, 0.01, np.nan, 0.04, 0.02]).tolist() == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0] and len(holm([])) == 0


def test_a_value_without_an_interval_stands_alone():
    nan = float("nan")
    assert with_interval(0.5, nan, nan) == "0.500" and with_interval(0.5, nan, nan, "+") == "+0.500"
