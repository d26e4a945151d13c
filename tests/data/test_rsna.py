"""RSNA Pneumonia: the owner's layout in synthetic miniature, DICOM of every kind in it, and each way in which it goes wrong."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from film_files import check_films
from PIL import Image
from samples import edit

from medbridge.data import load_benchmark
from medbridge.data.rsna import MAPPING, load_rsna
from medbridge.errors import BenchmarkError, BenchmarkWarning

FIXTURE = Path(__file__).parents[2] / "data" / "fixtures" / "rsna"
LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
FIRST = "b467cdcb-ed38-52e2-a52f-302000cc163f"  # has two boxes


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "rsna"))


@pytest.mark.filterwarnings("error")
def test_the_fixture_loads():
    b = load_benchmark("rsna", FIXTURE)
    assert (b.name, b.labels, len(b), b.official) == ("rsna", ("Pneumonia",), 12, {"stage_2_train": 26_684})
    assert b.table["Pneumonia"].tolist() == [1] * 5 + [0] * 7
    assert b.table["class"].value_counts().to_dict() == {"Lung Opacity": 5, "Normal": 4, "No Lung Opacity / Not Normal": 3}
    assert check_films(b.paths()) == []
    # x, y, width, height become corners; a patient has one film and may have several boxes
    first = b.boxes[b.boxes["image"] == f"stage_2_train_images/{FIRST}.dcm"]
    assert set(b.boxes["label"]) == {"Pneumonia"} and b.boxes["image"].nunique() == 5 and len(first) == 2 and len(b.boxes) == 8
    np.testing.assert_allclose(first[["x0", "y0", "x1", "y1"]].iloc[0], [35.4, 62.0, 54.9, 80.8])


def test_splits_are_drawn_by_person_and_stay_when_films_are_missing(root):
    b = load_rsna(root, seed=3)
    assert b.table["patient_id"].iloc[0] == "00000001" and b.table["nih_image"].iloc[0] == "00000001_000.png"
    assert b.table["patient_id"].nunique() == 11 and b.table["split"].iloc[10] == b.table["split"].iloc[11]  # one person
    assert b.table["split"].tolist() != load_rsna(root, seed=4).table["split"].tolist()
    for path in b.paths()[6:9]:
        path.unlink()
    with pytest.warns(BenchmarkWarning, match="3 of 12 images are not in"):
        part = load_rsna(root, seed=3)
    whole = dict(zip(b.table["image"], b.table["split"], strict=True))
    assert [whole[image] for image in part.table["image"]] == part.table["split"].tolist() and len(part) == 9
    assert part.dropped["reason"].tolist() == ["not on disk"] * 3
    assert len(load_rsna(root, seed=3, files="all")) == 12


def test_without_the_mapping_a_patient_is_an_examination(root):
    (root / MAPPING).unlink()
    with pytest.warns(BenchmarkWarning, match="a person may be in two splits"):
        b = load_rsna(root)
    assert b.table["patient_id"].iloc[0] == FIRST and b.table["patient_id"].nunique() == 12 and "nih_image" not in b.table


def test_photometric_interpretation_and_window_are_honoured():
    b = load_rsna(FIXTURE)
    kinds = [(d.PhotometricInterpretation, d.BitsStored) for d in map(pydicom.dcmread, b.paths()[:3])]
    assert kinds == [("MONOCHROME2", 8), ("MONOCHROME1", 8), ("MONOCHROME2", 12)]
    for i in range(3):  # air beside the body is dark, the spine is bright, whatever the file stores
        film = b.read(i)
        assert film.shape == (128, 128) and film[4:16, 1:6].mean() < 0.15 and film[90:110, 60:68].mean() > 0.7
    d = pydicom.dcmread(b.paths()[2])
    np.testing.assert_allclose(b.read(2), d.pixel_array / 4095, atol=1e-3)  # its own window
    raw = pydicom.dcmread(b.paths()[1]).pixel_array
    assert np.corrcoef(b.read(1).ravel(), raw.ravel())[0, 1] < -0.999


@pytest.mark.filterwarnings("error")
def test_headers_are_read_when_asked():
    b = load_rsna(FIXTURE, headers=True)
    assert b.table["age"].between(18, 95).all() and set(b.table["sex"]) == {"F", "M"} and set(b.table["view"]) == {"AP", "PA"}
    assert "age" not in load_rsna(FIXTURE).table


@pytest.mark.parametrize(("file", "old", "new", "words"), [
    (LABELS, "Target", "target", r"missing column.*Target.*stage 2"),
    (LABELS, "35.4,62.0,19.5,18.8,1", "35.4,62.0,19.5,18.8,2", r"row 2: column 'Target' holds '2'"),
    (LABELS, "35.4,62.0,19.5,18.8,1", ",,,,0", "row 3: patient .* has another Target than in an earlier row"),
    (LABELS, "35.4,62.0,19.5,18.8,1", "35.4,62.0,,18.8,1", r"row 2: Target 1 with the box"),
    (LABELS, "35.4,62.0,19.5,18.8,1", "35.4,62.0,-19.5,18.8,1", r"row 2: Target 1 with the box"),
    (LABELS, "35.4,62.0,19.5,18.8,1", "x,62.0,19.5,18.8,1", r"row 2: Target 1 with the box"),
    (LABELS, ",,,,0", "1,2,3,4,0", r"Target 0 with the box"),
    (LABELS, FIRST, "", r"row 2: column 'patientId' is blank"),
    (CLASSES, "Lung Opacity", "Opacity", r"row 2: column 'class' holds 'Opacity'"),
    (CLASSES, f"{FIRST},Lung Opacity\n{FIRST},Lung Opacity\n", "", "patient 'b467.* is not in stage_2_detailed_class_info.csv"),
    (MAPPING, FIRST, "another", "patient 'b467.* is not in pneumonia-challenge"),
    (MAPPING, "img_id", "image", "no JSON list of objects with subset_img_id and img_id"),
    (MAPPING, '"00000001_000.png"', "null", "None is no name"),
])
def test_each_fault_names_file_and_row(root, file, old, new, words):
    edit(root / file, old, new)
    with pytest.raises(BenchmarkError, match=words) as error:
        load_rsna(root)
    assert file in str(error.value)


def test_wrong_root_and_packed_archives(root, tmp_path):
    with pytest.raises(BenchmarkError, match=r"no such folder.*stage_2_train_labels\.csv"):
        load_rsna(tmp_path / "nowhere")
    with pytest.raises(BenchmarkError, match=r"stage_2_train_labels\.csv: no such file.*RSNA"):
        load_rsna(tmp_path)
    (root / CLASSES).unlink()
    with pytest.raises(BenchmarkError, match=rf"{CLASSES}: no such file"):
        load_rsna(root)
    shutil.copy(FIXTURE / CLASSES, root)
    shutil.rmtree(root / "stage_2_train_images")
    (root / "stage_2_train_images.zip").write_bytes(b"PK")
    with pytest.raises(BenchmarkError, match=r"none of its 12 images.*still packed.*stage_2_train_images\.zip"):
        load_rsna(root)


def test_a_split_that_is_empty_on_this_disk(root):
    for path, split in zip(load_rsna(root).paths(), load_rsna(root).table["split"], strict=True):
        if split == "test":
            path.unlink()
    with pytest.warns(BenchmarkWarning) as caught:
        b = load_rsna(root)
    assert "2 of 12 images" in str(caught[0].message) and "split test holds no film; set aside: 2" in str(caught[1].message)
    with pytest.raises(BenchmarkError, match="split 'test' is empty"):
        b.split("test")


def test_dicom_that_is_no_film_is_named(root):
    paths = load_rsna(root).paths()
    header = pydicom.dcmread(paths[5])
    del header.PixelData
    header.save_as(paths[5])
    odd = pydicom.dcmread(paths[6])
    odd.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    odd.save_as(paths[6])
    paths[7].write_bytes(paths[7].read_bytes()[:-900])
    Image.new("L", (8, 8)).save(paths[8], format="PNG")  # content decides, not the ending
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom remarks on the truncated file
        found = check_films(load_rsna(root).paths())
    assert [path for path, _ in found] == paths[5:8]
    reasons = ("without PixelData", "no decoder for transfer syntax MPEG2", "cut short")
    for (_, message), words in zip(found, reasons, strict=True):
        assert words in message


def test_stage_one_is_called_by_its_name(root):
    for path in sorted(root.glob("stage_2_*")):
        path.rename(path.with_name(path.name.replace("stage_2", "stage_1")))
    with pytest.raises(BenchmarkError, match="holds stage 1 of the challenge; this loader reads stage 2"):
        load_rsna(root)
