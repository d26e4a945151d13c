"""The Benchmark type, its checks, and loading by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medbridge.data import Benchmark, assign_splits, list_benchmarks, load_benchmark, validate
from medbridge.errors import BenchmarkError

LABELS = ("Mass", "Nodule")


def make_table(n: int = 12) -> pd.DataFrame:
    """n films, two a patient; patients 0, 1 in train, 2, 3 in val, and so on."""
    return pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "split": [("train", "val", "test")[(i // 4) % 3] for i in range(n)],
            "Mass": [float(i % 2) for i in range(n)],
            "Nodule": [np.nan if i % 4 == 0 else float(i % 4 == 1) for i in range(n)],
            "age": range(n),
        }
    )


def make(n: int = 12) -> Benchmark:
    boxes = pd.DataFrame({"image": ["1.png", "5.png"], "label": "Mass", "x0": 0, "y0": 0, "x1": 4, "y1": 4})
    return Benchmark("toy", "somewhere", LABELS, make_table(n), boxes=boxes)


def test_split_take_targets_and_boxes():
    benchmark = make()
    train = benchmark.split("train")
    assert len(train) == 4 and train.image_ids() == ["0.png", "1.png", "2.png", "3.png"]
    assert train.boxes["image"].tolist() == ["1.png"] and train.paths()[0] == benchmark.root / "0.png"
    y, mask = train.targets()
    assert y.dtype == np.float32 and mask.dtype == bool and y.shape == mask.shape == (4, 2)
    assert mask.tolist() == [[True, False], [True, True], [True, True], [True, True]]
    assert y.tolist() == [[0, 0], [1, 1], [0, 0], [1, 0]]
    assert benchmark.take([3, 0]).image_ids() == ["3.png", "0.png"]
    assert benchmark.take(np.arange(12) == 7).image_ids() == ["7.png"]
    assert len(benchmark.take([])) == 0
    with pytest.raises(BenchmarkError, match="mask"):
        benchmark.take([True, False])


def test_empty_and_unknown_splits_are_errors():
    only_train = make(4)
    with pytest.raises(BenchmarkError, match=r"'test' is empty.*'train': 4"):
        only_train.split("test")
    with pytest.raises(BenchmarkError, match=r"unknown split 'valid'.*train, val, test"):
        only_train.split("valid")


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(BenchmarkError, match="Hernia"):
        Benchmark("toy", ".", ("Hernia",), make_table())


def test_summary_counts():
    summary = make().summary()
    row = summary[(summary["label"] == "Nodule") & (summary["split"] == "train")].iloc[0]
    assert (row["n"], row["positive"], row["negative"], row["unknown"]) == (3, 1, 2, 1)
    assert row["prevalence"] == pytest.approx(1 / 3)


def test_read_reads_its_own_film(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((4, 6), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    film = Benchmark("toy", tmp_path, LABELS, make_table()).split("val").read(1)
    assert film.shape == (4, 6) and np.allclose(film, 100 / 255)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), small=st.floats(0.01, 1), large=st.floats(0.01, 1))
def test_budgets_draw_whole_patients_and_nest(seed, small, large):
    small, large = sorted((small, large))
    benchmark = make(120)
    a, b = (benchmark.subset(share, split="train", seed=seed) for share in (small, large))
    for drawn in (a, b):
        for patient in drawn.table["patient_id"].unique():
            assert (drawn.table["patient_id"] == patient).sum() == 2
        assert len(drawn.split("test")) == len(benchmark.split("test"))
    assert set(a.image_ids()) <= set(b.image_ids())
    assert b.split("train").table["patient_id"].nunique() == max(1, round(large * 20))


def test_subset_counts_patients_in_every_split():
    benchmark = make(120)
    drawn = benchmark.subset(3, seed=1)
    assert drawn.table.groupby("split")["patient_id"].nunique().tolist() == [3, 3, 3]
    assert drawn.image_ids() != benchmark.subset(3, seed=2).image_ids()
    assert len(benchmark.subset(10_000)) == 120
    for bad in (0, -1, 1.5, 0.0, True):
        with pytest.raises(BenchmarkError, match="subset"):
            benchmark.subset(bad)
    with pytest.raises(BenchmarkError, match="unknown split"):
        benchmark.subset(3, split="training")


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
    validate(make_table(), LABELS, "toy.csv", required_splits=("train", "val", "test"))


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
    with pytest.raises(BenchmarkError, match="split 'test' is empty"):
        validate(table[table["split"] != "test"], LABELS, "toy.csv", required_splits=("test",))


def test_a_label_of_one_class_in_train_warns():
    table = make_table()
    table.loc[table["split"] == "train", "Mass"] = 0.0
    with pytest.warns(UserWarning, match="'Mass' has only negative films in the train split"):
        validate(table, LABELS, "toy.csv")


def test_unknown_benchmarks_name_the_nearest():
    assert {"phantom", "phantom-A", "folder"} <= set(list_benchmarks())
    with pytest.raises(BenchmarkError, match="did you mean 'phantom'.*folder"):
        load_benchmark("fantom")
    with pytest.raises(BenchmarkError, match="root="):
        load_benchmark("folder")
    with pytest.raises(BenchmarkError, match="already sets hospitals"):
        load_benchmark("phantom-A", hospitals="B")
