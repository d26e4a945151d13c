"""The checks of a benchmark's table, and splits drawn by patient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_base import LABELS, make_table

from medbridge.data import assign_splits, validate
from medbridge.errors import BenchmarkError


@settings(max_examples=40, deadline=None)
@given(
    patients=st.lists(st.sampled_from([f"p{i}" for i in range(30)]), min_size=20, max_size=80),
    seed=st.integers(0, 9),
)
def test_assigned_splits_never_share_a_patient(patients, seed):
    table = pd.DataFrame({"patient_id": patients})
    if len(set(patients)) < 3:
        return
    split = assign_splits(table, (0.6, 0.2, 0.2), seed)
    assert (split.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(split["split"]) == {"train", "val", "test"}
    shuffled = assign_splits(table.sample(frac=1, random_state=0), (0.6, 0.2, 0.2), seed)
    assert shuffled.sort_index()["split"].tolist() == split["split"].tolist()


def test_assign_splits_refuses_bad_fractions():
    table = make_table()
    for bad in ((0.5, 0.5), (0.9, 0.2, 0.2), (1.2, -0.1, -0.1)):
        with pytest.raises(BenchmarkError, match="fractions"):
            assign_splits(table, bad)
    with pytest.raises(BenchmarkError, match="2 patient"):
        assign_splits(table.iloc[:4])
    assert set(assign_splits(table, (0.5, 0, 0.5))["split"]) == {"train", "test"}


@pytest.mark.filterwarnings("error")
def test_a_good_table_passes():
    validate(make_table(), LABELS, "toy.csv")


@pytest.mark.parametrize(
    "row, column, value, words",
    [
        (5, "split", "train", r"patient 'p2' is in two splits, 'val' \(row 6\) and 'train' \(row 7\)"),
        (3, "Mass", 2.0, r"row 5: column 'Mass' holds 2\.0"),
        (3, "Nodule", -1.0, r"row 5: column 'Nodule' holds -1\.0"),
        (3, "Nodule", np.inf, "row 5: column 'Nodule'"),
        (4, "image", "3.png", "rows 5 and 6 name the same image"),
        (4, "image", "./3.png", "rows 5 and 6 name the same image"),
        (4, "image", "../secret.png", r"row 6: image '\.\./secret\.png' must be a path inside"),
        (4, "image", "a/../../b.png", "row 6.*inside"),
        (4, "image", "/etc/passwd", "row 6.*inside"),
        (4, "image", "C:\\films\\1.png", "row 6.*inside"),
        (4, "image", "sub\\1.png", "row 6.*inside"),
        (4, "image", "", "row 6: column 'image' is blank"),
        (4, "patient_id", " ", "row 6: column 'patient_id' is blank"),
        (4, "split", "valid", "row 6: unknown split 'valid'"),
    ],
)
def test_each_fault_names_file_row_and_column(row, column, value, words):
    table = make_table()
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    with pytest.raises(BenchmarkError, match=words) as error:
        validate(table, LABELS, "toy.csv")
    assert str(error.value).startswith("toy.csv: ")


def test_tables_that_are_no_benchmark():
    table = make_table()
    with pytest.raises(BenchmarkError, match="missing column.*patient_id"):
        validate(table.drop(columns="patient_id"), LABELS, "toy.csv")
    with pytest.raises(BenchmarkError, match="no label column"):
        validate(table, (), "toy.csv")
    with pytest.raises(BenchmarkError, match="no rows"):
        validate(table.iloc[:0], LABELS, "toy.csv")


def test_a_label_of_one_class_in_train_warns():
    table = make_table()
    table.loc[table["split"] == "train", "Mass"] = 0.0
    with pytest.warns(UserWarning, match="'Mass' has only negative films in the train split"):
        validate(table, LABELS, "toy.csv")
