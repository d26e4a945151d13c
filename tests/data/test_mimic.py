"""MIMIC-CXR-JPG: the shipped miniature, views, studies, packed and unpacked tables, partial downloads."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from film_files import check_films

from medbridge.data import label_names, load_benchmark
from medbridge.data.mimic import load_mimic
from medbridge.errors import BenchmarkError, BenchmarkWarning

LABELS = label_names()["chexpert"]
FIXTURE = Path(__file__).parents[2] / "data" / "fixtures" / "mimic"
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be learned")  # of a few films, a label may have one class in train


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "mimic"))


def path_of(root, which):
    return root / f"mimic-cxr-2.0.0-{which}.csv.gz"


def edit(root, which, old, new):
    text = gzip.decompress(path_of(root, which).read_bytes()).decode()
    assert old in text
    path_of(root, which).write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


def test_the_miniature_loads():
    benchmark = load_benchmark("mimic", FIXTURE)
    table = benchmark.table
    assert benchmark.labels == LABELS and len(benchmark) == 10
    assert benchmark.official == {"train": 368_960, "validate": 2_991, "test": 5_159}
    assert sum(benchmark.official.values()) == 377_110
    assert table["split"].value_counts().to_dict() == {"train": 7, "val": 1, "test": 2}
    assert set(table.loc[table["split"] == "val", "official_split"]) == {"validate"}
    assert set(table["view"]) == {"PA", "AP"}
    image = benchmark.image_ids()[0]
    assert image.startswith("files/p10/p10000032/s50000001/") and image.endswith(".jpg")
    assert check_films(benchmark.paths()) == []
    # the films of one study share its labels, whatever the order of the columns in the file
    study = table[table["study"] == "50000003"]
    assert len(study) == 2 and study[list(LABELS)].iloc[0].equals(study[list(LABELS)].iloc[1])
    first = table.iloc[0]
    assert (first["Atelectasis"], first["Cardiomegaly"], first["Consolidation"]) == (1, 0, 0) and np.isnan(first["Edema"])
    assert (table["patient_id"] == "10000032").sum() == 5


def test_what_is_set_aside_is_counted():
    dropped = load_mimic(FIXTURE).dropped
    assert dropped["reason"].value_counts().to_dict() == {
        "view LATERAL": 1, "view LL": 1, "view unknown": 1, "its study has no row in the chexpert file": 1}
    assert dropped.loc[dropped["reason"].str.contains("no row"), "image"].item().startswith("files/p11/p11000017/s50000009/")


def test_views():
    with pytest.warns(BenchmarkWarning, match="split val, test holds no film"):
        lateral = load_mimic(FIXTURE, views=["LATERAL", "LL"])
    assert len(lateral) == 2
    assert len(load_mimic(FIXTURE, views="all")) == 13
    with pytest.raises(BenchmarkError, match=r"no film is left; set aside: \d+ \(view AP\)"):
        load_mimic(FIXTURE, views=["SWIMMERS"])
    with pytest.raises(BenchmarkError, match=r"views='PA'; give a list"):
        load_mimic(FIXTURE, views="PA")


def test_policies_and_the_other_labeler(root):
    first = load_mimic(root, uncertain="ones", blank="unknown").table.iloc[0]
    assert first["Edema"] == 1 and np.isnan(first["Cardiomegaly"])
    with pytest.raises(BenchmarkError, match=r"mimic-cxr-2\.0\.0-negbio\.csv\.gz: no such file, part of MIMIC-CXR-JPG"):
        load_mimic(root, labeler="negbio")
    shutil.move(path_of(root, "chexpert"), path_of(root, "negbio"))
    assert load_mimic(root, labeler="negbio").dropped["reason"].str.contains("negbio").sum() == 1
    with pytest.raises(BenchmarkError, match="labeler='gpt'"):
        load_mimic(root, labeler="gpt")


def test_unpacked_tables(root):
    expected = load_mimic(root).table
    for which in ("metadata", "split", "chexpert"):
        path = path_of(root, which)
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load_mimic(root).table.equals(expected)


def test_a_partial_download(root):
    shutil.rmtree(root / "files" / "p10")
    with pytest.warns(BenchmarkWarning, match=r"metadata\.csv\.gz: 6 of 10 images are not in"):
        benchmark = load_mimic(root)
    assert len(benchmark) == 4 and (benchmark.dropped["reason"] == "not on disk").sum() == 6
    assert len(benchmark) + len(benchmark.dropped) == 14
    assert len(load_mimic(root, files="all")) == 10
    shutil.rmtree(root / "files")
    with pytest.raises(BenchmarkError, match="none of its 10 images is in"):
        load_mimic(root)


@pytest.mark.parametrize(("which", "old", "new", "words"), [
    ("chexpert", ",1.0", ",7", r"chexpert\.csv\.gz: row 2: column '[\w ]+' holds '7"),
    ("chexpert", "Pleural Effusion", "Effusion", "missing column.*Pleural Effusion; found.*MIMIC-CXR-JPG 2.0.0 or 2.1.0"),
    ("chexpert", "50000002", "50000001", r"chexpert\.csv\.gz: row 3: study_id '50000001' is there twice"),
    ("split", ",validate", ",valid", r"split\.csv\.gz: row \d+: column 'split' holds 'valid'; expected train, validate, test"),
    ("split", "dicom_id", "dicom", "missing column.*dicom_id"),
    ("metadata", "ViewPosition", "View", "missing column.*ViewPosition"),
    ("split", "10000032,train", "10000032,test", "patient '10000032' is in two splits"),
])
def test_each_fault_names_its_file(root, which, old, new, words):
    edit(root, which, old, new)
    with pytest.raises(BenchmarkError, match=words):
        load_mimic(root)


def test_films_that_the_split_file_lacks_are_dropped(root):
    edit(root, "split", "01020304-01020305", "ffffffff-01020305")
    dropped = load_mimic(root).dropped
    assert dropped.loc[dropped["reason"] == "not in the split file", "image"].item().endswith("01020308.jpg")


def test_wrong_roots(tmp_path):
    with pytest.raises(BenchmarkError, match="no such folder"):
        load_mimic(tmp_path / "nowhere")
    (tmp_path / "mimic-cxr-jpg-2.1.0.zip").touch()
    with pytest.raises(BenchmarkError, match=r"metadata\.csv\.gz: no such file.*still packed.*mimic-cxr-jpg-2\.1\.0\.zip"):
        load_mimic(tmp_path)
