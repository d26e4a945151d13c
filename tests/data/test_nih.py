"""NIH ChestX-ray14: the shipped miniature, partial downloads, older tables, real rows where they are here."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from film_files import check_films
from samples import edit

from medbridge.data import label_names, load_benchmark
from medbridge.data.nih import load_nih
from medbridge.errors import BenchmarkError, BenchmarkWarning

LABELS = label_names()["nih"]
FIXTURE = Path(__file__).parents[2] / "data" / "fixtures" / "nih"
TABLE = "Data_Entry_2017_v2020.csv"
lone_classes = pytest.mark.filterwarnings("ignore:.*cannot be learned")  # of a few films, a label may have one class in train


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "nih"))


@lone_classes
def test_the_miniature_loads():
    benchmark = load_benchmark("nih", FIXTURE)
    table = benchmark.table.set_index("image")
    assert len(benchmark) == 16 and benchmark.labels == LABELS and len(LABELS) == 14 and len(benchmark.dropped) == 0
    assert benchmark.official == {"train_val": 86_524, "test": 25_596} and sum(benchmark.official.values()) == 112_120
    assert table["official_split"].value_counts().to_dict() == {"train_val": 12, "test": 4}
    assert table["split"].value_counts().to_dict()["test"] == 4 and (table["split"] == "val").any()
    several = table.loc["images_001/images/00000003_002.png"]
    assert [label for label in LABELS if several[label] == 1] == ["Atelectasis", "Mass", "Nodule", "Pneumonia"]
    nothing = table.loc["images_001/images/00000002_000.png"]
    assert nothing["age"] == 42 and not nothing[list(LABELS)].any()
    assert table.loc["images_002/images/00000005_000.png", "Pleural_Thickening"] == 1
    assert np.isnan(table.loc["images_002/images/00000008_001.png", "age"])  # 411 years
    assert several[["patient_id", "follow_up", "sex", "view"]].tolist() == ["3", 2, "F", "PA"]
    assert check_films(benchmark.paths()) == []


@lone_classes
def test_boxes_are_corners_with_the_label_as_it_is_elsewhere():
    boxes = load_nih(FIXTURE).boxes
    assert boxes.columns.tolist() == ["image", "label", "x0", "y0", "x1", "y1"]
    image = "images_001/images/00000003_002.png"
    assert load_nih(FIXTURE, files="all").boxes.iloc[0].tolist()[1:] == ["Atelectasis", 400.5, 380.25, 560.5, 500.25]
    # the miniature's films are an eighth of the owner's: their boxes come in their own pixels
    assert boxes.iloc[0].tolist() == [image, "Atelectasis", 50.0625, 47.53125, 70.0625, 62.53125]
    assert boxes["label"].tolist() == ["Atelectasis", "Infiltration", "Mass"]
    test = load_nih(FIXTURE).split("test")
    assert test.boxes["label"].tolist() == ["Infiltration", "Mass"]


@lone_classes
def test_a_part_of_the_films_may_hold_none_with_a_box(root):
    path = root / "BBox_List_2017.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace(lines[1].split(",")[0], "00099999_000.png")]) + "\n")
    assert load_nih(root).boxes.empty


@lone_classes
def test_one_archive_of_twelve(root):
    whole = load_nih(root)
    shutil.rmtree(root / "images_002")
    with pytest.warns(BenchmarkWarning) as warned:
        benchmark = load_nih(root)
    messages = [str(w.message) for w in warned if w.category is BenchmarkWarning]
    assert "8 of 16 images are not in" in messages[0] and "images/00000005_000.png" in messages[0]
    assert len(benchmark) == 8 and set(benchmark.dropped["reason"]) == {"not on disk"} and len(benchmark.dropped) == 8
    # a film keeps its split, whatever else is unpacked
    assert benchmark.table["split"].tolist() == whole.table.set_index("image").loc[benchmark.image_ids(), "split"].tolist()
    assert benchmark.boxes["label"].tolist() == ["Atelectasis"]
    with pytest.raises(BenchmarkError, match="split 'test' is empty"):
        benchmark.split("test")
    assert len(load_nih(root, files="all")) == 16


@lone_classes
def test_images_in_one_folder_or_beside_each_other(root):
    expected = load_nih(root).table["Mass"].tolist()
    (root / "images").mkdir()
    for path in list(root.glob("images_00?/images/*.png")):
        shutil.move(path, root / "images")
    benchmark = load_nih(root)
    assert benchmark.table["Mass"].tolist() == expected and benchmark.image_ids()[0] == "images/00000001_000.png"


@lone_classes
def test_validation_patients_are_drawn_from_train_val():
    drawn = load_nih(FIXTURE, val_share=0.4, seed=1).table
    assert (drawn.groupby("patient_id")["split"].nunique() == 1).all()
    assert drawn.loc[drawn["split"] == "val", "patient_id"].nunique() == 2
    assert set(drawn.loc[drawn["split"] == "val", "official_split"]) == {"train_val"}
    assert drawn["split"].tolist() == load_nih(FIXTURE, val_share=0.4, seed=1).table["split"].tolist()
    assert drawn["split"].tolist() != load_nih(FIXTURE, val_share=0.4, seed=2).table["split"].tolist()
    with pytest.warns(BenchmarkWarning, match="split val holds no film"):
        load_nih(FIXTURE, val_share=0)


@lone_classes
def test_the_table_of_2017(root):
    expected = load_nih(root).table
    text = (root / TABLE).read_text()
    lines = text.replace("Patient Gender", "Patient Sex").splitlines()
    first = [cell.split(",") for cell in lines[1:]]
    for i, row in enumerate(first):
        row[4] = ("006M", "010D")[i] if i < 2 else f"{int(row[4]):03d}Y"
    (root / TABLE).unlink()
    (root / "Data_Entry_2017.csv").write_text("\n".join(f"{line}," for line in [lines[0], *(",".join(row) for row in first)]))
    old = load_nih(root).table
    assert old["age"].iloc[:2].tolist() == pytest.approx([0.5, 10 / 365.25])
    np.testing.assert_array_equal(old["age"].iloc[2:], expected["age"].iloc[2:])
    assert old.drop(columns="age").equals(expected.drop(columns="age"))


@pytest.mark.parametrize(("name", "old", "new", "words"), [
    (TABLE, "Cardiomegaly|Emphysema", "Cardiomegaly|Emphysem", r"row 3: column 'Finding Labels' holds 'Cardiomegaly\|Emphysem'"),
    (TABLE, "Cardiomegaly|Emphysema", "Mass|No Finding", r"row 3.*holds 'Mass\|No Finding'; .*alone"),
    (TABLE, "Finding Labels", "labels", r"missing column.*Finding Labels.*Data_Entry_2017_v2020"),
    (TABLE, "Patient Gender", "Gender", "missing column.*Patient Gender"),
    (TABLE, "00000001_001.png", "00000001_000.png", "rows 2 and 3 name the same image"),
    ("test_list.txt", "00000013_000", "00000001_000", "'00000001_000.png' is listed twice"),
    ("BBox_List_2017.csv", "400.5", "", r"BBox_List_2017.csv: row 2: column 'Bbox \[x' holds ''"),
    ("BBox_List_2017.csv", "Mass", "Lump", "row 4: unknown label 'Lump'"),
    ("BBox_List_2017.csv", "Bbox [x", "x", "missing column.*Bbox"),
])
def test_each_fault_names_its_file(root, name, old, new, words):
    edit(root / name, old, new)
    with pytest.raises(BenchmarkError, match=words):
        load_nih(root)


def test_a_patient_in_both_lists(root):
    edit(root / "test_list.txt", "00000013_000.png\n", "")
    edit(root / "train_val_list.txt", "00000001_000.png", "00000001_000.png\n00000013_000.png")
    with pytest.raises(BenchmarkError, match="patient '13' is in two splits"):
        load_nih(root, val_share=0)


@lone_classes
def test_films_that_no_list_names_are_dropped(root):
    edit(root / "test_list.txt", "00000013_000.png\n", "")
    (dropped,) = load_nih(root).dropped.to_numpy().tolist()
    assert dropped == ["images_002/images/00000013_000.png", "in neither train_val_list.txt nor test_list.txt"]


def test_what_is_missing_is_named(root, tmp_path):
    with pytest.raises(BenchmarkError, match="elsewhere: no such folder"):
        load_nih(tmp_path / "elsewhere")
    with pytest.raises(BenchmarkError, match="Data_Entry_2017_v2020.csv: no such file, part of NIH"):
        load_nih(tmp_path)
    with pytest.raises(BenchmarkError, match="splits='random'"):
        load_nih(root, splits="random")
    for folder in root.glob("images_*"):
        shutil.rmtree(folder)
    (root / "images_001.tar.gz").touch()
    with pytest.raises(BenchmarkError, match=r"none of its 16 images.*still packed.*images_001\.tar\.gz"):
        load_nih(root)
    (root / "test_list.txt").unlink()
    with pytest.raises(BenchmarkError, match="test_list.txt: no such file.*splits='drawn'"):
        load_nih(root)


@lone_classes
def test_a_copy_without_lists_is_drawn_by_patient_on_demand(root):
    for name in ("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"):
        (root / name).unlink()
    benchmark = load_nih(root, splits="drawn", fractions=(0.4, 0.3, 0.3))
    assert benchmark.official == {} and benchmark.boxes is None and set(benchmark.table["split"]) == {"train", "val", "test"}
    assert (benchmark.table.groupby("patient_id")["split"].nunique() == 1).all()


@lone_classes
def test_real_rows():
    shared = Path(os.environ.get("MEDBRIDGE_SHARED", Path(__file__).parents[3] / "shared"))
    root = shared / "data" / "nih-thumbs"
    if not root.is_dir():
        pytest.skip("the real films are not here")
    benchmark = load_nih(root, splits="drawn")
    assert len(benchmark) == 361 and len(benchmark.dropped) == 0
    first = benchmark.table.iloc[1]
    assert first[["image", "Cardiomegaly", "sex", "age"]].tolist() == ["images/00000008_000.png", 1, "F", 68]
    y, mask = benchmark.targets()
    assert mask.all() and 0 < y.mean() < 0.5
    assert benchmark.read(0).std() > 0.05


@lone_classes
@pytest.mark.parametrize(("suffix", "folder"), [(".jpg", None), (".PNG", None), ("", None), (".jpeg", "xray/all"), (".png", ".")])
def test_copies_with_another_ending_or_in_another_folder_are_read(root, suffix, folder):
    whole = load_benchmark("nih", FIXTURE)
    for path in list(root.rglob("*.png")):
        new = (path.parent if folder is None else root / folder) / f"{path.stem}{suffix}"
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    shutil.copytree(root, root / "prepared" / "images")  # a copy of them below does not get in the way
    copy = load_benchmark("nih", root)
    assert len(copy) == 16 and copy.read(3).shape == whole.read(3).shape and not any("prepared" in i for i in copy.image_ids())
    assert len(copy.boxes) == len(whole.boxes) and set(copy.boxes["image"]) <= set(copy.image_ids())
