"""CheXpert Plus: the shipped miniature, its layouts, the labels of each section."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from film_files import check_films
from samples import edit

from medbridge.data import label_names, load_benchmark
from medbridge.data.chexpert_plus import load_chexpert_plus
from medbridge.errors import BenchmarkError

LABELS = label_names()["chexpert"]
FIXTURE = Path(__file__).parents[2] / "data" / "fixtures" / "chexpert_plus"
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be learned")  # of a few films, a label may have one class in train


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "plus"))


def test_the_miniature_loads_png_with_the_labels_of_the_chosen_section():
    benchmark = load_benchmark("chexpert-plus", FIXTURE)
    assert benchmark.labels == LABELS and len(benchmark) == 10 and benchmark.official == {}
    assert benchmark.image_ids()[0] == "PNG/train/patient00001/study1/view1_frontal.png"
    assert benchmark.dropped.to_numpy().tolist() == [["PNG/train/patient00001/study1/view1_lateral.png", "view Lateral"]]
    assert benchmark.split("test").table["patient_id"].tolist() == ["patient64541", "patient64542"]
    first = benchmark.table.iloc[0]
    assert first[["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "age", "sex"]].tolist() == [1, 0, 0, 50, "Female"]
    assert np.isnan(first["Lung Opacity"])
    assert check_films(benchmark.paths()) == []
    impression = load_chexpert_plus(FIXTURE, section="impression", blank="unknown")
    assert impression.table["Fracture"].isna().all() and not benchmark.table["Fracture"].isna().all()


def test_in_its_other_layouts(root):
    expected = load_chexpert_plus(root)
    shutil.move(root / "PNG", root / "unpacked")
    (root / "PNG").mkdir()
    shutil.move(root / "unpacked", root / "PNG" / "PNG")
    nested = load_chexpert_plus(root)
    assert [i.removeprefix("PNG/") for i in nested.image_ids()] == expected.image_ids()
    # beside the table, as path_to_image has it: CheXpert's own JPEG
    for split in ("train", "valid"):
        shutil.move(root / "PNG" / "PNG" / split, root / split)
    for path in root.rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    assert load_chexpert_plus(root).image_ids()[0] == "train/patient00001/study1/view1_frontal.jpg"
    for split in ("train", "valid"):
        shutil.rmtree(root / split)
    (root / "PNG.zip").touch()
    with pytest.raises(BenchmarkError, match=r"none of its 10 images.*still packed.*PNG\.zip"):
        load_chexpert_plus(root)


def test_rows_without_labels_are_dropped(root):
    path = root / "chexbert_labels" / "report_fixed.json"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    dropped = load_chexpert_plus(root).dropped
    assert dropped["reason"].tolist() == ["no line in report_fixed.json", "view Lateral"]


@pytest.mark.parametrize(("old", "new", "words"), [
    ('{"path_to_image"', '{"path"', r"report_fixed\.json: line 1: no JSON object with path_to_image.*KeyError"),
    ("{", "", r"line 1: no JSON object"),
    ('"Cardiomegaly": 0.0', '"Cardiomegaly": 3.0', r"report_fixed\.json: row 1: column 'Cardiomegaly' holds '3\.0'"),
    ("study2", "study1", "patient00001/study1/view1_frontal.jpg' has two lines"),
])
def test_label_files_that_cannot_be_used(root, old, new, words):
    edit(root / "chexbert_labels" / "report_fixed.json", old, new)
    with pytest.raises(BenchmarkError, match=words):
        load_chexpert_plus(root)


def test_missing_files_and_foreign_splits(root, tmp_path):
    with pytest.raises(BenchmarkError, match="section='history'"):
        load_chexpert_plus(root, section="history")
    (root / "chexbert_labels.zip").touch()
    with pytest.raises(BenchmarkError, match=r"findings_fixed\.json: no such file.*unpack chexbert_labels\.zip"):
        load_chexpert_plus(root, section="findings")
    edit(root / "df_chexpert_plus_240401.csv", ",valid\n", ",dev\n")
    with pytest.raises(BenchmarkError, match=r"row 11: column 'split' holds 'dev'"):
        load_chexpert_plus(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match=r"df_chexpert_plus_240401\.csv: no such file"):
        load_chexpert_plus(tmp_path / "empty")
