"""Subgroups are evaluations of their own films, and their gaps come from common resamples."""

import numpy as np
import pandas as pd
import pytest

from medbridge.data import Benchmark
from medbridge.errors import MedBridgeError
from medbridge.metrics.evaluate import auc, bootstrap_auc
from medbridge.metrics.subgroups import _groups, subgroup_table


@pytest.fixture
def people():
    """120 films of 60 patients; the scores are right about men (AUC 1) and say nothing about women."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(120)], "patient_id": [f"p{i // 2}" for i in range(120)],
                          "split": "test"})
    table["a"], table["b"] = rng.integers(2, size=(2, 120)).astype(float)
    table["sex"] = np.where(np.arange(120) // 2 % 2 == 0, "M", "F")
    table["age"] = 20.0 + np.arange(120) // 2
    table.loc[[0, 1], ["sex", "age"]] = [None, np.nan]
    table.loc[1, "sex"] = ""  # as loaders read a blank cell
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
    films = pd.DataFrame({"age": [0, 17, 18, 59.5, 60, 80, 101, np.nan, "x", -1]})
    assert _groups(films, "age").fillna("unknown").tolist() == [
        "0-17", "0-17", "18-39", "40-59", "60-79", "80+", "80+", "unknown", "unknown", "unknown"]


def test_subgroups_without_a_column_and_with_one_class(people):
    benchmark, scores = people
    with pytest.raises(MedBridgeError, match="has no column view"):
        subgroup_table(benchmark, scores, ["view"])
    flat = Benchmark("flat", ".", ("a",), benchmark.table.assign(a=1.0), synthetic=True)
    table = subgroup_table(flat, scores[:, :1], ["sex"], n_boot=20)
    assert table["auc"].isna().all() and table["gap"].isna().all() and (table["labels"] == 0).all()
