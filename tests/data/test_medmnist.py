"""ChestMNIST and PneumoniaMNIST: films that lie in one array, not in files of their own."""

import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from film_files import check_films
from PIL import Image

from medbridge import cli
from medbridge.data import label_names, load_benchmark
from medbridge.data.audit import audit
from medbridge.data.images import film_digest, probe_film, read_film
from medbridge.data.labels import shared_labels
from medbridge.data.prepare import prepare
from medbridge.data.tasks import make_targets
from medbridge.errors import BenchmarkError, BenchmarkWarning, ImageError
from medbridge.features.film_keys import film_files

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
ARRAYS = {f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")}
lone_classes = pytest.mark.filterwarnings("ignore:.*cannot be learned")


@pytest.fixture
def chest(tmp_path):
    return Path(shutil.copytree(FIXTURES / "chestmnist", tmp_path / "chestmnist"))


@pytest.fixture
def children(tmp_path):
    return Path(shutil.copytree(FIXTURES / "pneumoniamnist", tmp_path / "pneumoniamnist"))


def rewrite(path, **changed):
    """The .npz with some arrays changed (None: without it)."""
    with np.load(path) as old:
        arrays = {name: old[name] for name in old.files} | changed
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})


def test_the_miniature_loads(chest):
    with np.load(chest / "chestmnist_64.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert set(arrays) == ARRAYS
    b = load_benchmark("ChestMNIST", chest)
    assert (b.name, len(b), b.root) == ("chestmnist", 20, chest) and sum(b.official.values()) == 112_120
    assert b.table["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
    assert b.table["patient_id"].is_unique and len(b.dropped) == 0
    assert np.array_equal(b.split("val").targets()[0], arrays["val_labels"])
    assert b.image_ids()[13] == "chestmnist_64/val_images.npy/1" and check_films(b.paths()) == []
    assert np.array_equal(b.read(13), arrays["val_images"][1] / np.float32(255)) and probe_film(b.paths()[13]) == (64, 64)


def test_all_labels_are_those_of_nih():
    names = label_names()
    assert [s.test for s in shared_labels(names["nih"], names["chestmnist"])] == list(names["nih"]) and len(names["nih"]) == 14
    assert [s.train for s in shared_labels(names["pneumoniamnist"], names["chestmnist"])] == ["Pneumonia"]


def test_unpacked_once_and_then_without_the_npz(children):
    npz, folder = children / "pneumoniamnist.npz", children / "pneumoniamnist"
    whole = load_benchmark("pneumoniamnist", children)
    films = [whole.read(i) for i in range(len(whole))]
    assert films[0].shape == (28, 28) and {p.stem for p in folder.iterdir()} == ARRAYS
    (folder / "val_images.npy").unlink()  # as after an interruption: nothing else is unpacked again
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = load_benchmark("pneumoniamnist", children)
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(list(folder.iterdir())) == 6
    npz.unlink()
    alone = load_benchmark("pneumoniamnist", children)
    assert alone.table.equals(again.table) and all(np.array_equal(alone.read(i), film) for i, film in enumerate(films))
    (folder / "val_images.npy").unlink()
    with pytest.raises(BenchmarkError, match=r"holds no pneumoniamnist_224\.npz or .*medbridge data get pneumoniamnist --out"):
        load_benchmark("pneumoniamnist", children)


@lone_classes
def test_the_largest_size_is_read_or_the_one_that_is_asked_for(chest):
    with np.load(chest / "chestmnist_64.npz") as file:
        small = {name: file[name][:, ::2, ::2][:, 2:30, 2:30] if "images" in name else file[name] for name in file.files}
    np.savez_compressed(chest / "chestmnist.npz", **small)
    assert probe_film(load_benchmark("chestmnist", chest).paths()[0]) == (64, 64)
    assert probe_film(load_benchmark("chestmnist", chest, size=28).paths()[0]) == (28, 28)
    with pytest.raises(BenchmarkError, match=r"holds no chestmnist_128\.npz; get it with .* --size 128`"):
        load_benchmark("chestmnist", chest, size=128)
    with pytest.raises(BenchmarkError, match="size='32'; choose from 224, 128, 64, 28"):
        load_benchmark("chestmnist", chest, size=32)


@pytest.mark.parametrize(("changed", "message"), [
    ({"val_images": None}, r"cannot be unpacked into chestmnist_64/.*val_images\.npy.*download it again"),
    ({"val_images": np.zeros((4, 64, 64))}, r"val_images \(4, 64, 64\) of float64 and"),
    ({"val_images": np.zeros((4, 28, 28), np.uint8)}, r"\(4, 28, 28\) of uint8.*\(n, 64, 64\)"),
    ({"val_labels": np.zeros((3, 14), np.uint8)}, r"val_labels \(3, 14\)"),
    ({"val_labels": np.full((4, 14), 2, np.uint8)}, r"\(n, 14\) of 0 and 1"),
    ({"val_labels": np.array([[{}] * 14] * 4)}, r"val cannot be read \(Array can't be memory-mapped"),
], ids=["missing", "float", "size", "count", "label", "objects"])
def test_arrays_that_medmnist_would_not_write(chest, changed, message):
    rewrite(chest / "chestmnist_64.npz", **changed)
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("chestmnist", chest)


def test_damage_is_named(chest):
    npz = chest / "chestmnist_64.npz"
    data = npz.read_bytes()
    for broken in (data[:-100], data[:2000] + bytes(100) + data[2100:], b"<!doctype html>"):
        npz.write_bytes(broken)
        with pytest.raises(BenchmarkError, match=r"chestmnist_64\.npz: cannot be unpacked .*delete it and download it again"):
            load_benchmark("chestmnist", chest)
        shutil.rmtree(chest / "chestmnist_64", ignore_errors=True)
    npz.write_bytes(data)
    (chest / "chestmnist_64").write_text("in the way")
    with pytest.raises(BenchmarkError, match=r"(Not a directory|File exists).*it takes .* GB on a disk that can be written"):
        load_benchmark("chestmnist", chest)
    (chest / "chestmnist_64").unlink()
    load_benchmark("chestmnist", chest)
    array = chest / "chestmnist_64" / "test_images.npy"
    array.write_bytes(array.read_bytes()[:-5000])
    with pytest.raises(BenchmarkError, match=r"chestmnist_64: test cannot be read .*delete the folder, and it is unpacked anew"):
        load_benchmark("chestmnist", chest)


def test_a_film_that_is_none(tmp_path):
    np.save(tmp_path / "films.npy", np.zeros((3, 40, 50), np.uint8))
    np.save(tmp_path / "deep.npy", np.zeros((3, 40, 50), np.uint16))
    assert read_film(tmp_path / "films.npy" / "2").shape == (40, 50)
    for name, message in {"films.npy/3": "no such film; the array holds 3", "films.npy": r"an array of films; .*films\.npy/0",
                          "deep.npy/0": "of uint16; films are", "none.npy/0": "no such file"}.items():
        for read in (read_film, probe_film):
            with pytest.raises(ImageError, match=message):
                read(tmp_path / name)


def test_films_are_known_by_their_own_pixels(chest, tmp_path):
    b = load_benchmark("chestmnist", chest)
    first = film_files(b.paths(), tmp_path / "cache")
    assert len({film.digest for film in first}) == 20 and {(film.height, film.width) for film in first} == {(64, 64)}
    assert film_files(b.paths(), tmp_path / "cache") == first
    moved = Path(shutil.move(chest, tmp_path / "elsewhere"))
    assert film_files(load_benchmark("chestmnist", moved).paths(), tmp_path / "cache") == first
    array = np.load(moved / "chestmnist_64" / "train_images.npy")
    array[3] = 255 - array[3]
    np.save(moved / "chestmnist_64" / "train_images.npy", array)
    changed = film_files(load_benchmark("chestmnist", moved).paths(), tmp_path / "cache")
    assert [i for i in range(20) if changed[i] != first[i]] == [3]
    Image.fromarray(array[5]).save(tmp_path / "copy.png")  # another file, and yet known as a copy
    copy = film_files([tmp_path / "copy.png"], None)[0]
    assert copy.print == first[5].print and copy.digest != first[5].digest
    assert film_digest(moved / "chestmnist_64" / "train_images.npy" / "5") == first[5].digest


@lone_classes
def test_check_and_prepare(chest, children, tmp_path, capsys):
    report = audit(load_benchmark("chestmnist", chest), None, progress=False)
    assert (report.decoded, report.faults, report.unlisted, report.absent) == (20, [], [], [])
    assert report.sizes.values.tolist() == [["train", 12, 78_468], ["val", 4, 11_219], ["test", 4, 22_433]]
    assert cli.main(["data", "check", "pneumoniamnist", str(children), "--option", "size=28"]) == 0
    assert "20 images of 20 patients" in capsys.readouterr().out
    whole = load_benchmark("chestmnist", chest)
    prepare(whole, tmp_path / "out", workers=1, progress=False)
    assert prepare(whole, tmp_path / "out", workers=1, progress=False).kept == 20
    copy = load_benchmark("folder", tmp_path / "out")
    assert copy.name == "chestmnist" and copy.image_ids()[1] == "chestmnist_64/train_images.npy/1.png"
    assert np.array_equal(copy.read(1), whole.read(1)) and np.array_equal(copy.targets()[0], whole.targets()[0])


@lone_classes
def test_the_same_films_under_another_name_are_spoken_of(chest):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nih = load_benchmark("nih", FIXTURES / "nih")
    with pytest.warns(BenchmarkWarning, match="nih -> chestmnist: ChestMNIST is NIH ChestX-ray14"):
        [target] = make_targets(nih, [load_benchmark("chestmnist", chest)])
    assert target.test.labels == nih.labels


@lone_classes
def test_adapt_across_and_predict(chest, children, tmp_path, named, capsys, monkeypatch):
    """From one to the other; the film of the target that the model is trained on is left out."""
    monkeypatch.setattr("medbridge.viz.report.write_report", lambda *_: None)
    with np.load(chest / "chestmnist_64.npz") as file, np.load(children / "pneumoniamnist.npz") as labels:
        arrays = {name: (labels if "labels" in name else file)[name] for name in file.files}
    arrays["test_images"] = np.concatenate([255 - arrays["test_images"][:3], arrays["train_images"][:1]])
    np.savez_compressed(children / "pneumoniamnist_64.npz", **arrays)
    command = ["adapt", "--train", f"chestmnist={chest}", "--test", f"pneumoniamnist={children}", "--expert", "small-vit",
               "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--epochs", "1", "--queries", "2", "--width", "16",
               "--members", "2", "--crop", "0.6", "--overlap", "0", "--extra", "0"]
    assert cli.main([str(word) for word in command]) == 0
    said = capsys.readouterr()
    assert "1 of 4 films are films that the model is trained on" in said.err and "pneumoniamnist_64/test_images.npy/3" in said.err
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]) >= {"zero-shot", "MedBridge"}
    film = children / "pneumoniamnist_64" / "test_images.npy" / "0"
    assert cli.main(["predict", "--adapter", str(tmp_path / "run"), "--json", str(film)]) == 0
    assert str(film) in capsys.readouterr().out


def test_the_fixture_is_as_medmnist_packs_it():
    with zipfile.ZipFile(FIXTURES / "chestmnist" / "chestmnist_64.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
