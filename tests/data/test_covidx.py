"""COVIDx CXR-4: the owner's layout in synthetic miniature, and each way in which it goes wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from film_files import check_films
from samples import edit

from medbridge.data import load_benchmark
from medbridge.data.covidx import load_covidx
from medbridge.errors import BenchmarkError, BenchmarkWarning

FIXTURE = Path(__file__).parents[2] / "data" / "fixtures" / "covidx"


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "covidx"))


@pytest.mark.filterwarnings("error")
def test_the_fixture_loads():
    b = load_benchmark("covidx", FIXTURE)
    assert (b.name, b.labels, len(b)) == ("covidx", ("COVID-19",), 16)
    assert sum(b.official.values()) == 84_818 and len(b.dropped) == 0
    assert b.table["split"].value_counts().to_dict() == {"train": 8, "val": 4, "test": 4}
    assert b.table["COVID-19"].sum() == 8 and set(b.table["source"]) == {"cohen", "ricord", "bimcv", "rsna", "stonybrook"}
    assert b.table["image"].iloc[7] == "train/sub-S90002 copy.png"  # a blank in a file name
    assert b.table["patient_id"].tolist()[:3] == ["101", "101", "MIDRC-RICORD-1C-SITE2-000001"]
    assert check_films(b.paths()) == [] and b.read(15).shape == (160, 160)


def _overlap(root: Path) -> None:
    edit(root / "test.txt", "103 ", "101 ")  # two films in train
    edit(root / "val.txt", "A900001 ", "sub-S90003 ")  # one in val, one in test


def test_a_patient_in_two_lists_is_an_error(root):
    _overlap(root)
    words = r"2 patient\(s\).*101 \(2 in train\.txt, 1 in test\.txt\), sub-S90003 \(1 in val.*to set 3 film\(s\) aside"
    with pytest.raises(BenchmarkError, match=words):
        load_covidx(root)


def test_drop_train_sets_their_earlier_films_aside_and_counts_them(root):
    _overlap(root)
    b = load_covidx(root, overlap="drop-train")
    assert len(b) == 13 and b.table.groupby("patient_id")["split"].nunique().max() == 1
    assert b.table["split"].value_counts().to_dict() == {"train": 6, "test": 4, "val": 3}
    assert b.dropped.values.tolist() == [
        ["train/patient101-day0.jpg", "patient also in test"], ["train/patient101-day3.jpg", "patient also in test"],
        ["val/A900001_1.png", "patient also in test"]]
    with pytest.raises(BenchmarkError, match="overlap='drop'"):
        load_covidx(root, overlap="drop")


@pytest.mark.parametrize(("old", "new", "words"), [
    ("positive cohen", "pos cohen", r"line 1: .* class positive or negative"),
    ("101 patient101-day0.jpg positive cohen", "101 patient101-day0.jpg positive", "line 1"),
    ("101 patient101-day0.jpg positive cohen", "\n101", "line 2"),
    ("patient101-day3.jpg", "patient101-day0.jpg", r"lines 1 and 2 name the same file 'patient101-day0\.jpg'"),
    ("patient101-day3.jpg", "../val/patient102-day1.jpg", "must be a path inside the image folder"),
])
def test_each_fault_names_file_and_line(root, old, new, words):
    edit(root / "train.txt", old, new)
    with pytest.raises(BenchmarkError, match=words) as error:
        load_covidx(root, files="all")
    assert "train" in str(error.value)


def test_wrong_root_packed_archive_other_version(root, tmp_path):
    with pytest.raises(BenchmarkError, match=r"no such folder.*train\.txt"):
        load_covidx(tmp_path / "nowhere")
    with pytest.raises(BenchmarkError, match=r"train\.txt: no such file, part of COVIDx CXR-4"):
        load_covidx(tmp_path)
    (root / "val.txt").unlink()
    with pytest.raises(BenchmarkError, match=r"val\.txt: no such file.*CXR-3 and older versions have no val\.txt"):
        load_covidx(root)
    (root / "val.txt").write_text("\n")
    with pytest.raises(BenchmarkError, match=r"val\.txt: no lines"):
        load_covidx(root)
    (root / "val.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(BenchmarkError, match=r"val\.txt: not UTF-8"):
        load_covidx(root)
    shutil.copy(FIXTURE / "val.txt", root)
    for split in ("train", "val", "test"):
        shutil.rmtree(root / split)
    (root / "archive.zip").write_bytes(b"PK")
    with pytest.raises(BenchmarkError, match=r"none of its 16 images.*still packed.*archive\.zip"):
        load_covidx(root)


def test_a_part_of_the_films_is_enough_and_what_is_missing_is_listed(root):
    shutil.rmtree(root / "test")
    (root / "train" / "c0ffee00-0001.png").unlink()
    with pytest.warns(BenchmarkWarning) as caught:
        b = load_covidx(root)
    assert "5 of 16 images are not in" in str(caught[0].message) and "split test holds no film" in str(caught[1].message)
    assert len(b) == 11 and len(b.dropped) == 5
    with pytest.raises(BenchmarkError, match="split 'test' is empty"):
        b.split("test")


def test_truncated_films_are_named(root):
    b = load_covidx(root)
    bad = [b.paths()[i] for i in (0, 2)]  # a JPEG and a PNG
    for path in bad:
        path.write_bytes(path.read_bytes()[:-700])
    found = check_films(b.paths())
    assert [path for path, _ in found] == bad and all("damaged or truncated" in message for _, message in found)


@pytest.mark.parametrize(("line", "patient", "file"), [
    ("COVID 5 COVID(5).png positive sirm", "COVID 5", "COVID(5).png"),
    ("5 COVID (5).png positive sirm", "5", "COVID (5).png"),
    ("COVID 5 COVID  (5).png positive sirm", "COVID 5", "COVID  (5).png"),
    ('"COVID 5" "COVID (5).png" positive sirm', "COVID 5", "COVID (5).png"),
    ('5 "COVID 5.png" positive sirm', "5", "COVID 5.png"),
])
def test_blanks_and_quotes_in_names(root, line, patient, file):
    (root / "test" / file).write_bytes(next((root / "test").glob("*.png")).read_bytes())
    with open(root / "test.txt", "a", encoding="utf-8") as text:
        text.write(f"\n{line}\n")
    table = load_covidx(root).table
    assert table.loc[table["image"] == f"test/{file}", "patient_id"].tolist() == [patient]
    if '"' in line:  # without the film, quotes alone tell
        assert f"test/{file}" in load_covidx(root, files="all").image_ids()
