"""Bring-your-own-films: the shipped fixture, and every way in which a hospital's CSV goes wrong."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from film_files import check_films

from medbridge.data import load_benchmark
from medbridge.data.folder import load_folder
from medbridge.errors import BenchmarkError

FIXTURE = Path(__file__).parents[2] / "data" / "fixtures" / "folder"


@pytest.fixture
def root(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "films")
    return tmp_path / "films"


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "labels.csv").read_text()
    assert old in text
    (root / "labels.csv").write_text(text.replace(old, new, 1))


@pytest.mark.filterwarnings("error")
def test_the_fixture_loads():
    benchmark = load_benchmark("folder", FIXTURE)
    assert benchmark.name == "folder" and benchmark.labels == ("Opacity", "Effusion") and len(benchmark) == 8
    assert benchmark.table["patient_id"].iloc[0] == "001"  # text, not the number 1
    y, mask = benchmark.targets()
    assert mask.sum() == 15 and not mask[3, 1] and y[:, 0].tolist() == [0, 1] * 4
    assert [len(benchmark.split(s)) for s in ("train", "val", "test")] == [4, 2, 2]
    assert check_films(benchmark.paths()) == []
    for i in range(8):
        film = benchmark.read(i)
        assert film.shape == (72, 64) and film.std() > 0.1  # the 16-bit film is not black


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("f1.png,001,train,1,0", "f1.png,001,train,yes,0", r"row 3: column 'Opacity' holds 'yes'"),
        ("f1.png,001,train,1,0", "f1.png,001,train,-1,0", r"row 3: column 'Opacity' holds '-1'"),
        ("f1.png,001,train,1,0", "f1.png,001,train,0.5,0", r"row 3: column 'Opacity' holds '0\.5'"),
        ("f1.png,001,train,1,0", "f1.png,001,train,nan,0", r"row 3: column 'Opacity' holds 'nan'"),
        (
            "f1.png,001,train",
            "f1.png,001,test",
            r"patient '001' is in two splits, 'train' \(row 2\) and 'test' \(row 3\)",
        ),
        ("f1.png,001", "f0.png,001", "rows 2 and 3 name the same image"),
        ("f1.png,001", "../labels.csv,001", "row 3.*inside the image folder"),
        ("f1.png,001", "/etc/hostname,001", "row 3.*inside the image folder"),
        ("f1.png,001", ",001", "row 3: column 'image' is blank"),
        ("f1.png,001", "f1.png,", "row 3: column 'patient_id' is blank"),
        ("f1.png,001", "g1.png,001", r"1 of 8 image files are not in .*g1\.png \(row 3\)"),
        ("f5.jpg,004,val", "f5.jpg,004,valid", "row 7: unknown split 'valid'"),
        ("f1.png,001,train,1,0", "f1.png,001,train,1", "row 3 has 4 cells, the header has 5"),
        ("f1.png,001,train,1,0", "f1.png,001,train,1,0,", "row 3 has 6 cells, the header has 5"),
        (
            "f1.png,001,train,1,0",
            "\n\nf1.png,001,train,x,0",
            "row 5: column 'Opacity'",
        ),  # blank rows are counted
        ("image,", "file,", "missing column.*image"),
        ("patient_id", "patient", "missing column.*patient_id"),
        ("Effusion", "Opacity", "two columns are named 'Opacity'"),
        ("Effusion", "", "column 5 has no name"),
    ],
)
def test_each_fault_names_file_and_row(root, old, new, words):
    edit(root, old, new)
    with pytest.raises(BenchmarkError, match=words) as error:
        load_folder(root)
    assert "labels.csv" in str(error.value)


def test_five_missing_films_are_listed_and_all_are_counted(root):
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    with pytest.raises(BenchmarkError, match=r"8 of 8 image files") as error:
        load_folder(root)
    assert "f4.png (row 6), ..." in str(error.value) and "f5.jpg" not in str(error.value)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "no header"),
        (b"\n\n", "no header"),
        (b"image,patient_id,split,Mass\n", "no rows"),
        (b"image,patient_id,split\nf0.png,1,train\n", "no label column"),
        (b"image;patient_id;split;Mass\nf0.png;1;train;0\n", "not comma-separated"),
        ("image,patient_id,split,Épanchement\n".encode("latin-1"), "not UTF-8"),
        ("image,patient_id,split,Mass\n".encode("utf-16"), "not UTF-8"),
        (b'image,patient_id,split,Mass\n"f0.png,1,train,0\n', "cells"),
    ],
)
def test_csv_files_that_cannot_be_used(root, content, words):
    (root / "labels.csv").write_bytes(content)
    with pytest.raises(BenchmarkError, match=words):
        load_folder(root)


def test_missing_files_and_folders(root, tmp_path):
    with pytest.raises(BenchmarkError, match="no such folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(BenchmarkError, match="no such folder.*images="):
        load_folder(root, images="pngs")


def test_byte_order_mark_crlf_and_spaces_are_harmless(root):
    text = (root / "labels.csv").read_text().replace("f1.png,001", " f1.png , 001").replace("\n", "\r\n")
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    benchmark = load_folder(root)
    assert benchmark.table["image"].iloc[1] == "f1.png" and benchmark.table["patient_id"].iloc[1] == "001"


def test_images_elsewhere(root, tmp_path):
    shutil.move(root / "images", tmp_path / "pixels")
    assert len(load_folder(root, images=tmp_path / "pixels")) == 8
    for path in (tmp_path / "pixels").iterdir():
        shutil.move(path, root)
    assert load_folder(root, images=".").read(0).shape == (72, 64)


def test_chosen_labels_leave_the_rest_as_metadata(root):
    benchmark = load_folder(root, labels=["Effusion"])
    assert benchmark.labels == ("Effusion",) and benchmark.table["Opacity"].iloc[1] == "1"
    for bad in (["Hernia"], ["split"], "Effusion, Hernia"):
        with pytest.raises(BenchmarkError, match="labels="):
            load_folder(root, labels=bad)


@pytest.mark.filterwarnings("ignore:.*cannot be learned")  # a tiny train split may hold one class
def test_splits_are_drawn_only_when_asked(root):
    with pytest.raises(BenchmarkError, match="has a 'split' column already"):
        load_folder(root, split_seed=0)
    rows = [line.split(",") for line in (root / "labels.csv").read_text().splitlines()]
    (root / "labels.csv").write_text("\n".join(",".join(row[:2] + row[3:]) for row in rows))
    with pytest.raises(BenchmarkError, match="split_seed=0"):
        load_folder(root)
    drawn = load_folder(root, split_seed=0, fractions=(0.5, 0.25, 0.25))
    again = load_folder(root, split_seed=0, fractions=(0.5, 0.25, 0.25))
    assert drawn.table["split"].tolist() == again.table["split"].tolist()
    assert (drawn.table.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(drawn.table["split"]) == {"train", "val", "test"}


def test_real_folder():
    shared = Path(os.environ.get("MEDBRIDGE_SHARED", Path(__file__).parents[3] / "shared"))
    root = shared / "data" / "kermany-mini"
    if not root.is_dir():
        pytest.skip("the real films are not here")
    benchmark = load_folder(root)
    assert len(benchmark) == 480 and benchmark.labels[0] == "Pneumonia"
    assert benchmark.targets()[0][:, 0].sum() == 240


def test_columns_that_are_no_labels_are_named_with_the_fix(root):
    text = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{text[0]},age", *(f"{line},5{i}" for i, line in enumerate(text[1:]))]))
    with pytest.raises(BenchmarkError, match=r"row 2: column 'age' holds '50'.*labels=Opacity,Effusion \(--option"):
        load_folder(root)
    for labels in ("Opacity, Effusion", ["Opacity", "Effusion"]):
        assert load_folder(root, labels=labels).labels == ("Opacity", "Effusion")


@pytest.mark.parametrize(("here", "listed"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_names_that_differ_by_how_an_accent_is_written(root, here, listed):
    name = (root / "labels.csv").read_text().splitlines()[1].split(",")[0]
    (root / "images" / name).rename(root / "images" / unicodedata.normalize(here, f"é{name}"))
    edit(root, name, unicodedata.normalize(listed, f"é{name}"))
    (root / "boxes.csv").write_text(f"image,label,x0,y0,x1,y1\n{unicodedata.normalize(listed, f'é{name}')},Opacity,1,1,9,9\n")
    benchmark = load_folder(root)
    assert benchmark.read(0).size and benchmark.boxes["image"][0] == benchmark.image_ids()[0]


@pytest.mark.parametrize(("content", "words"), [
    ("image;patient_id;split;A, b;B\nf0.png;0;train;0;1\n", "is not comma-separated; save it as CSV with commas"),
    ("image,patient_id,split,A\nf0.png;0;train;0\n", "row 2 has 1 cells, the header has 4; save it as CSV with commas"),
    ("image,patient_id,split,A\nf0.png,0,train\n", "row 2 has 3 cells, the header has 4; mend the commas"),
])
def test_semicolons_are_named(root, content, words):
    (root / "labels.csv").write_text(content)
    with pytest.raises(BenchmarkError, match=words):
        load_folder(root)


def test_a_missing_split_offers_to_draw_them(root):
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace(",val,", ",train,"))
    with pytest.raises(BenchmarkError, match=r"split 'val' is empty.*--option split_seed=0"):
        load_folder(root).split("val")
