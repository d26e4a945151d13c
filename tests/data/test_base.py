"""The Benchmark type, its checks, and loading by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medbridge.data import Benchmark, list_benchmarks, load_benchmark
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


def test_unknown_benchmarks_name_the_nearest():
    assert {"phantom", "phantom-A", "folder"} <= set(list_benchmarks())
    with pytest.raises(BenchmarkError, match="did you mean 'phantom'.*folder"):
        load_benchmark("fantom")
    with pytest.raises(BenchmarkError, match="root="):
        load_benchmark("folder")
    with pytest.raises(BenchmarkError, match="already sets hospitals"):
        load_benchmark("phantom-A", hospitals="B")
