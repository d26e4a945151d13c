"""What becomes of -1 and blank labels, and the cells that are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

LABELS = ("Edema", "Pneumonia")
TABLE = pd.DataFrame({"Edema": ["1.0", "0.0", "-1.0", ""], "Pneumonia": [" 1", "-1", "", "0"], "Sex": "x"})
NAN = np.nan


@pytest.mark.parametrize(("options", "edema", "pneumonia"), [
    ({}, [1, 0, NAN, 0], [1, NAN, 0, 0]),
    ({"uncertain": "ones"}, [1, 0, 1, 0], [1, 1, 0, 0]),
    ({"uncertain": "zeros"}, [1, 0, 0, 0], [1, 0, 0, 0]),
    ({"blank": "unknown"}, [1, 0, NAN, NAN], [1, NAN, NAN, 0]),
    ({"uncertain": {"Edema": "ones"}}, [1, 0, 1, 0], [1, NAN, 0, 0]),
    ({"uncertain": {"Edema": "zeros", "Pneumonia": "ones"}, "blank": "unknown"}, [1, 0, 0, NAN], [1, 1, NAN, 0]),
])
def test_policies(options, edema, pneumonia):
    values = apply_policy(TABLE, LABELS, "train.csv", **options)
    assert list(values.columns) == list(LABELS) and (values.dtypes == np.float64).all()
    np.testing.assert_array_equal(values["Edema"], edema)
    np.testing.assert_array_equal(values["Pneumonia"], pneumonia)


def test_numbers_and_none_are_read_as_text_is():
    text = apply_policy(TABLE, LABELS, "x", "ones", "unknown")
    numbers = pd.DataFrame({"Edema": [1, 0, -1, None], "Pneumonia": [1.0, -1.0, np.nan, 0.0]})
    pd.testing.assert_frame_equal(apply_policy(numbers, LABELS, "x", "ones", "unknown"), text)
    categories = TABLE.astype("category")
    pd.testing.assert_frame_equal(apply_policy(categories, LABELS, "x", "ones", "unknown"), text)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["1", "0", "-1", "", "1.0", "0.0", "-1.0"]), min_size=1), st.sampled_from(["ones", "zeros"]))
def test_every_cell_is_judged_by_itself(cells, policy):
    values = apply_policy(pd.DataFrame({"Edema": cells}), ["Edema"], "x", policy)["Edema"]
    meaning = {1: 1.0, 0: 0.0, -1: float(policy == "ones")}
    assert values.tolist() == [meaning[int(float(cell or 0))] for cell in cells]


@pytest.mark.parametrize("cell", ["2", "0.5", "nan", "yes", "-2.0", "inf"])
def test_other_cells_are_named(cell):
    table = TABLE.copy()
    table.loc[2, "Pneumonia"] = cell
    with pytest.raises(BenchmarkError, match=rf"train\.csv: row 4: column 'Pneumonia' holds '{cell}'.*-1 \(uncertain\)"):
        apply_policy(table, LABELS, "train.csv")


@pytest.mark.parametrize(("options", "words"), [
    ({"uncertain": "one"}, r"uncertain='one'.*ignore, ones, zeros"),
    ({"uncertain": {"Edema": "maybe"}}, r"label 'Edema': uncertain='maybe'"),
    ({"uncertain": {"Oedema": "ones"}}, "names 'Oedema'; the labels are Edema, Pneumonia"),
    ({"uncertain": None}, "uncertain=None"),
    ({"blank": "zeros"}, "blank='zeros'.*negative, unknown"),
])
def test_unknown_policies(options, words):
    with pytest.raises(BenchmarkError, match=words):
        apply_policy(TABLE, LABELS, "train.csv", **options)
