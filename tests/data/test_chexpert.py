"""CheXpert: the shipped miniature, views, policies, the official test set, partial downloads."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from film_files import check_films
from samples import edit

from medbridge.data import label_names, load_benchmark
from medbridge.data.chexpert import load_chexpert
from medbridge.errors import BenchmarkError, BenchmarkWarning

LABELS = label_names()["chexpert"]
FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
HOME = "CheXpert-v1.0-small"
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be learned")  # of a few films, a label may have one class in train


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURES / "chexpert" / HOME, tmp_path / HOME))


def test_the_miniature_loads_from_the_folder_and_from_the_one_above():
    benchmark = load_benchmark("chexpert", FIXTURES / "chexpert")
    table = benchmark.table
    assert benchmark.labels == LABELS and len(LABELS) == 14 and benchmark.root.name == HOME
    assert benchmark.image_ids()[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert set(table["view"]) == {"Frontal"} and len(benchmark) == 12
    assert benchmark.dropped["reason"].tolist() == ["view Lateral"] * 3
    assert benchmark.official == {"train": 223_414, "valid": 234}
    assert table.loc[table["split"] == "test", "official_split"].tolist() == ["valid", "valid"]
    assert set(table.loc[table["split"] == "val", "official_split"]) == {"train"}
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    first = table.iloc[0]
    assert first[["patient_id", "study", "sex", "age", "ap_pa"]].tolist() == ["patient00001", "study1", "Female", 31, "AP"]
    assert table["patient_id"].value_counts()["patient00001"] == 3  # a patient of several studies
    assert load_chexpert(FIXTURES / "chexpert" / HOME).table.equals(table)
    assert check_films(benchmark.paths()) == []


def test_policies_reach_the_table():
    # the first row of train.csv is blank, 0.0, -1.0, 0.0, 1.0, ... in the labels' order
    def first(**options):
        return load_chexpert(FIXTURES / "chexpert", **options).table.iloc[0][list(LABELS[:5])].astype(float).to_numpy()

    np.testing.assert_array_equal(first(), [0, 0, np.nan, 0, 1])
    np.testing.assert_array_equal(first(uncertain="ones", blank="unknown"), [np.nan, 0, 1, 0, 1])
    np.testing.assert_array_equal(first(uncertain={"Cardiomegaly": "zeros"}), [0, 0, 0, 0, 1])


def test_views():
    lateral = load_chexpert(FIXTURES / "chexpert", views="lateral", val_share=0.5)
    assert len(lateral) == 3 and set(lateral.table["view"]) == {"Lateral"}
    everything = load_chexpert(FIXTURES / "chexpert", views="all")
    assert len(everything) == 15 and len(everything.dropped) == 0
    with pytest.raises(BenchmarkError, match="views='PA'; choose from frontal, lateral, all"):
        load_chexpert(FIXTURES / "chexpert", views="PA")


def _add_test_set(root):
    """test_labels.csv as CheXlocalize has it: Path and labels, no sex, age or view."""
    rows = [",".join(["Path", *LABELS])]
    for patient in (64741, 64742):
        path = f"test/patient{patient}/study1/view1_frontal.jpg"
        (root / path).parent.mkdir(parents=True)
        shutil.copy(root / "valid/patient64541/study1/view1_frontal.jpg", root / path)
        rows.append(",".join([path, *("0.0" if patient == 64741 else "1.0" for _ in LABELS)]))
    rows.append(",".join(["test/patient64741/study1/view2_lateral.jpg", *["0.0"] * 14]))
    (root / "test_labels.csv").write_text("\n".join(rows))


def test_the_official_test_set_is_the_test_split_where_it_is_here(root):
    _add_test_set(root)
    benchmark = load_chexpert(root)
    test = benchmark.split("test")
    assert test.table["patient_id"].tolist() == ["patient64741", "patient64742"] and test.targets()[0].sum() == 14
    assert benchmark.official == {"train": 223_414, "valid": 234, "test": 668}
    reasons = benchmark.dropped["reason"].value_counts().to_dict()
    assert reasons == {"official valid set, the test split is the test set": 3, "view Lateral": 3}
    valid = load_chexpert(root, test="valid")
    assert set(valid.split("test").table["official_split"]) == {"valid"}
    assert (valid.dropped["reason"] == "official test set, the test split is the valid set").sum() == 3
    (root / "test_labels.csv").unlink()
    with pytest.raises(BenchmarkError, match="nor test_labels.csv.*test='valid'"):
        load_chexpert(root, test="test")
    with pytest.raises(BenchmarkError, match="test='dev'"):
        load_chexpert(root, test="dev")


def test_a_partial_download(root):
    whole = load_chexpert(root).table.set_index("image")
    shutil.rmtree(root / "train" / "patient00001")
    shutil.rmtree(root / "valid" / "patient64541")
    with pytest.warns(BenchmarkWarning, match="4 of 12 images are not in"):
        benchmark = load_chexpert(root)
    assert len(benchmark) == 8 and (benchmark.dropped["reason"] == "not on disk").sum() == 4
    assert benchmark.table["split"].tolist() == whole.loc[benchmark.image_ids(), "split"].tolist()
    assert len(load_chexpert(root, files="all")) == 12
    shutil.rmtree(root / "valid")
    with pytest.warns(BenchmarkWarning, match="split test holds no film"), pytest.warns(BenchmarkWarning, match="5 of 12"):
        empty = load_chexpert(root)
    with pytest.raises(BenchmarkError, match="split 'test' is empty"):
        empty.split("test")


@pytest.mark.parametrize(("name", "old", "new", "words"), [
    ("train.csv", ",1.0,", ",2.0,", r"train\.csv: row \d+: column '[\w ]+' holds '2\.0'; expected 1 .present"),
    ("train.csv", "Pleural Effusion", "Effusion", r"missing column.*Pleural Effusion.*CheXpert-v1\.0 or CheXpert-v1\.0-small"),
    ("train.csv", "Lung Opacity", "Airspace Opacity", "missing column.*Lung Opacity; found .*Airspace Opacity"),
    ("valid.csv", "Path", "path", "missing column.*Path"),
    ("valid.csv", "patient64541", "64541", r"valid\.csv: row 2: column 'Path' holds .*expected \.\.\./valid/patientNNNNN"),
    ("train.csv", "small/train/", "small/valid/", r"train\.csv: row 2: column 'Path' holds"),
])
def test_each_fault_names_its_file(root, name, old, new, words):
    edit(root / name, old, new)
    with pytest.raises(BenchmarkError, match=words):
        load_chexpert(root)


def test_wrong_roots(root, tmp_path):
    with pytest.raises(BenchmarkError, match="no such folder.*train.csv, valid.csv"):
        load_chexpert(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "CheXpert-v1.0-small.zip").touch()
    with pytest.raises(BenchmarkError, match=r"train\.csv: no such file.*still packed.*CheXpert-v1\.0-small\.zip"):
        load_chexpert(tmp_path / "empty")
    shutil.copytree(root, tmp_path / "CheXpert-v1.0")
    with pytest.raises(BenchmarkError, match=r"holds CheXpert-v1\.0 and CheXpert-v1\.0-small; give one"):
        load_chexpert(tmp_path)
    # the folder's name is free: Path in the table still says -small
    assert len(load_chexpert(tmp_path / "CheXpert-v1.0")) == 12


def test_the_four_folders_of_the_full_size_download(root, tmp_path):
    whole = load_chexpert(root, test="valid")
    full = tmp_path / "full"
    first, second, third = (full / f"CheXpert-v1.0 {name}" for name in (
        "batch 1 (validate & csv)", "batch 2 (train 1)", "batch 3 (train 2)"))
    for folder in (first, second, third):
        folder.mkdir(parents=True)
    for name in ("train.csv", "valid.csv", "valid"):
        shutil.move(root / name, first)
    for patient in sorted((root / "train").iterdir()):
        shutil.move(patient, second if patient.name.endswith(("1", "2")) else third)
    batched = load_chexpert(full)
    assert len(batched) == len(whole) and check_films(batched.paths()) == []
    assert batched.image_ids()[0] == "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg"
    np.testing.assert_array_equal(batched.targets()[0], whole.targets()[0])
    assert [i.rpartition("patient")[2] for i in batched.image_ids()] == [i.rpartition("patient")[2] for i in whole.image_ids()]
