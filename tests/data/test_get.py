"""`medbridge data get` against a server on this machine: the layouts that loaders read, resumed by part, and clear refusals."""

import hashlib
import io
import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from web_server import serving

from medbridge import cli
from medbridge.data import get as module
from medbridge.data import load_benchmark
from medbridge.data.get import SOURCES, get
from medbridge.errors import BenchmarkError

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"


@pytest.fixture
def web(monkeypatch):
    """A server that holds what the table names: every link leads there, checksums and sizes are those of its files."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serving() as server:
        yield server


def offer(web, monkeypatch, name, files):
    """``files``: name -> bytes, as the table's entries for them."""
    entries = {}
    for file, entry in SOURCES[name]["files"].items():
        data = files.get(file, b"")
        web.files[f"{name}/{file}"] = data
        entries[file] = entry | {"url": f"{web.url}/{name}/{{name}}"} | {
            key: value for key, value in {"checksum": hashlib.md5(data).hexdigest(), "size": len(data)}.items() if key in entry}
    monkeypatch.setitem(SOURCES, name, SOURCES[name] | {"files": entries})


def packed(files, kind="tar"):
    """An archive of name -> bytes."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def jpeg(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def test_medmnist_in_one_command(web, monkeypatch, tmp_path, capsys):
    data = (FIXTURES / "chestmnist" / "chestmnist_64.npz").read_bytes()
    offer(web, monkeypatch, "chestmnist", {"chestmnist_64.npz": data})
    monkeypatch.setenv("MEDBRIDGE_DATA", str(tmp_path))
    web.faults.append("cut")
    assert cli.main(["data", "get", "ChestMNIST", "--size", "64"]) == 0
    said = capsys.readouterr()
    assert f"with: medbridge data check chestmnist {tmp_path / 'chestmnist'}" in said.out and "trying again" in said.err
    assert len(web.ranges) == 2 and len(load_benchmark("chestmnist", tmp_path / "chestmnist")) == 20
    assert cli.main(["data", "get", "chestmnist", "--size", "64"]) == 0 and len(web.ranges) == 2  # it is there
    (tmp_path / "chestmnist" / "chestmnist_64.npz").unlink()  # unpacked by the loader: there all the same
    assert cli.main(["data", "get", "chestmnist", "--size", "64"]) == 0 and len(web.ranges) == 2
    (tmp_path / "chestmnist" / "chestmnist_64" / "val_labels.npy").unlink()  # a part of it is not
    assert cli.main(["data", "get", "chestmnist", "--size", "64"]) == 0 and len(web.ranges) == 3


def _nih():
    """The miniature, its images in archives as NIH packs them."""
    root, files = FIXTURES / "nih", {}
    for path in root.glob("*.*"):
        files[path.name] = path.read_bytes()
    for part in ("images_001", "images_002"):
        files[f"{part}.tar.gz"] = packed({f"images/{p.name}": p.read_bytes() for p in sorted((root / part / "images").iterdir())})
    return files


@pytest.mark.filterwarnings("ignore:.*cannot be learned")
def test_nih_by_parts(web, monkeypatch, tmp_path):
    offer(web, monkeypatch, "nih", _nih())
    out = tmp_path / "nih"
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert len(load_benchmark("nih", get("nih", out, parts=[1], progress=False))) == 8
        asked = len(web.ranges)
        whole = load_benchmark("nih", get("NIH", out, parts=[1, 2], progress=False))
    assert len(whole) == 16 and len(whole.boxes) == 3 and len(web.ranges) == asked + 1
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (FIXTURES / "nih").iterdir())
    shutil.rmtree(out / "images_002")
    web.faults.extend(["cut"] * 30)
    with pytest.raises(BenchmarkError, match=r"images_002\.tar\.gz: cut off .*get it with a browser from https://nihcc"):
        get("nih", out, parts=[2], progress=False)
    web.faults.clear()
    get("nih", out, parts=[2], progress=False)
    assert web.ranges[-1] > 0 and len(list((out / "images_002" / "images").iterdir())) == 8


def test_an_unpacking_that_was_stopped_is_done_again(web, monkeypatch, tmp_path):
    offer(web, monkeypatch, "nih", _nih())
    written, plain = [], module.write_atomic

    def stopped(path, content):
        written.append(path)
        if len(written) == 6:
            raise KeyboardInterrupt
        return plain(path, content)

    monkeypatch.setattr(module, "write_atomic", stopped)
    with pytest.raises(KeyboardInterrupt):
        get("nih", tmp_path, parts=[1], progress=False)
    monkeypatch.setattr(module, "write_atomic", plain)
    films, asked = tmp_path / "images_001" / "images", len(web.ranges)
    assert len(list(films.iterdir())) == 4 and (tmp_path / "images_001.tar.gz").is_file()
    get("nih", tmp_path, parts=[1], progress=False)
    assert len(list(films.iterdir())) == 8 and len(web.ranges) == asked and not list(tmp_path.glob("*.tar*"))


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "images/../../evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_archive_writes_outside_its_folder(web, monkeypatch, tmp_path, name, kind):
    offer(web, monkeypatch, "nih", {"images_001.tar.gz": packed({"images/a.png": b"1", name: b"2"}, kind)})
    with pytest.raises(BenchmarkError, match=r"images_001\.tar\.gz: holds .*evil\.png', which leaves its folder"):
        get("nih", tmp_path / "nih", parts=[1], progress=False)
    assert not list(tmp_path.rglob("*evil*")) and not Path("/etc/evil.png").exists()


def test_links_and_devices_of_an_archive_are_passed_over(web, monkeypatch, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind, link in (("images", tarfile.SYMTYPE, "/tmp"), ("pipe", tarfile.FIFOTYPE, ""),
                                 ("hard", tarfile.LNKTYPE, "x")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
        info = tarfile.TarInfo("images/a.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    offer(web, monkeypatch, "nih", {"images_001.tar.gz": stream.getvalue()})
    get("nih", tmp_path, parts=[1], progress=False)
    assert [p.relative_to(tmp_path / "images_001").as_posix() for p in (tmp_path / "images_001").rglob("*") if p.is_file()] == [
        "images/a.png"] and not (tmp_path / "images_001" / "images").is_symlink()


def test_a_damaged_archive_is_named(web, monkeypatch, tmp_path):
    whole = packed({f"images/{i}.png": os.urandom(5000) for i in range(3)})
    for broken in (whole[:-3000], whole[:9000] + bytes(200) + whole[9200:], b"no archive"):
        offer(web, monkeypatch, "nih", {"images_001.tar.gz": broken})
        with pytest.raises(BenchmarkError, match=r"images_001\.tar\.gz: cannot be unpacked .*delete it, and the same command"):
            get("nih", tmp_path, parts=[1], progress=False)
        (tmp_path / "images_001.tar.gz").unlink()  # what was unpacked before the damage is not taken for all
    offer(web, monkeypatch, "nih", {"images_001.tar.gz": whole})
    get("nih", tmp_path, parts=[1], progress=False)
    assert len(list((tmp_path / "images_001" / "images").iterdir())) == 3 and not list(tmp_path.glob("images_001.tar*"))


KERMANY = {f"chest_xray/{split}/{folder}/{kind}-{patient}-000{i}.jpeg": jpeg(patient + i)
           for split, base in (("train", 100), ("test", 200)) for folder, kind, first in (
               ("NORMAL", "NORMAL", 0), ("PNEUMONIA", "BACTERIA", 10), ("PNEUMONIA", "VIRUS", 20))
           for patient in range(base + first, base + first + 5) for i in (1, 2)}
LEFT = {"__MACOSX/chest_xray/._train": b"x", "chest_xray/.DS_Store": b"x", "chest_xray/train/.DS_Store": b"x",
        "chest_xray/train/NORMAL/NORMAL-220-0003.jpeg": jpeg(0)}  # of a patient who is in test


def test_kermany_becomes_a_folder_with_its_table(web, monkeypatch, tmp_path, capsys):
    offer(web, monkeypatch, "kermany", {"ChestXRay2017.zip": packed(KERMANY | LEFT, "zip")})
    assert cli.main(["data", "get", "kermany", "--out", str(tmp_path / "kermany")]) == 0
    assert f"medbridge data check folder {tmp_path / 'kermany'}" in capsys.readouterr().out
    films = load_benchmark("folder", tmp_path / "kermany")
    assert films.labels == ("Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia") and films.name == "kermany"
    assert films.table["split"].value_counts().to_dict() == {"train": 27, "val": 3, "test": 30} or len(films) == 60
    assert set(films.split("test").table["patient_id"]) == {str(200 + i + j) for i in (0, 10, 20) for j in range(5)}
    assert len(films) == 60 and films.split("val").table["patient_id"].nunique() == 1
    row = films.table.set_index("image").loc["test/PNEUMONIA/VIRUS-220-0001.jpeg"]
    assert row[list(films.labels)].tolist() == [1, 0, 1] and films.table["Pneumonia"].sum() == 40
    assert films.read(0).shape == (40, 40) and not list((tmp_path / "kermany").rglob(".*"))
    before = pd.read_csv(tmp_path / "kermany" / "labels.csv")
    get("kermany", tmp_path / "kermany", progress=False)
    assert pd.read_csv(tmp_path / "kermany" / "labels.csv").equals(before) and len(web.ranges) == 1


def test_kermany_of_another_version_is_refused(web, monkeypatch, tmp_path):
    older = {"chest_xray/train/NORMAL/IM-0115-0001.jpeg": jpeg(1)}
    offer(web, monkeypatch, "kermany", {"ChestXRay2017.zip": packed(older, "zip")})
    with pytest.raises(BenchmarkError, match=r"IM-0115-0001\.jpeg: not named FINDING-PATIENT-NUMBER"):
        get("kermany", tmp_path, progress=False)


def _kaggle(folder, script):
    """A program of that name; $P is the folder after -p."""
    folder.mkdir()
    (folder / "kaggle").write_text(f'#!/bin/sh\nwhile [ "$1" != -p ]; do ALL="$ALL $1"; shift; done\nP="$2"\n{script}\n')
    (folder / "kaggle").chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the program")
def test_kaggle_is_called_where_it_is_installed(web, monkeypatch, tmp_path, capfd):
    fixture = FIXTURES / "covidx"
    data = packed({p.relative_to(fixture).as_posix(): p.read_bytes() for p in fixture.rglob("*") if p.is_file()}, "zip")
    (tmp_path / "there.zip").write_bytes(data)
    _kaggle(tmp_path / "bin", f'echo "called$ALL"; cp {tmp_path / "there.zip"} "$P/covidx-cxr2.zip"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    assert cli.main(["data", "get", "covidx", "--out", str(tmp_path / "covidx")]) == 0
    assert "called datasets download -d andyczhao/covidx-cxr2" in capfd.readouterr().out
    assert len(load_benchmark("covidx", tmp_path / "covidx")) == 16 and not list((tmp_path / "covidx").glob("*.zip"))
    (tmp_path / "bin" / "kaggle").write_text("#!/bin/sh\nexit 9\n")
    assert cli.main(["data", "get", "covidx", "--out", str(tmp_path / "covidx")]) == 0  # all is there: not called again
    shutil.rmtree(tmp_path / "covidx")
    assert cli.main(["data", "get", "covidx", "--out", str(tmp_path / "covidx")]) == 2
    said = capfd.readouterr().err
    assert "ended with status 9" in said and "accept a Kaggle account" in said


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the program")
def test_rsna_comes_with_its_map_of_patients(web, monkeypatch, tmp_path):
    fixture, mapping = FIXTURES / "rsna", "pneumonia-challenge-dataset-mappings_2018.json"
    offer(web, monkeypatch, "rsna", {mapping: (fixture / mapping).read_bytes()})
    (tmp_path / "there.zip").write_bytes(packed({p.relative_to(fixture).as_posix(): p.read_bytes() for p in fixture.rglob("*")
                                                 if p.is_file() and p.name != mapping}, "zip"))
    _kaggle(tmp_path / "bin", f'cp {tmp_path / "there.zip"} "$P/rsna-pneumonia-detection-challenge.zip"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    rsna = load_benchmark("rsna", get("rsna", tmp_path / "rsna", progress=False))
    assert len(rsna) == len(load_benchmark("rsna", fixture)) and "nih_image" in rsna.table


@pytest.mark.parametrize(("name", "words"), [
    ("rsna", "kaggle competitions download -c rsna-pneumonia-detection-challenge -p"), ("covidx", "pip install kaggle"),
    ("chexpert", r"research use agreement.*\n  2\. azcopy copy .* --recursive\n"), ("chexpert-plus", "azcopy copy"),
    ("mimic", r"credentialed.*\n  2\. wget .*-P \"{out}\" .*mimic-cxr-jpg/2\.1\.0/\n")])
def test_what_needs_a_yes_says_what_and_how(monkeypatch, tmp_path, name, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match=words.replace("{out}", str(tmp_path / "x"))) as error:
        get(name, tmp_path / "x")
    assert f"medbridge data check {name} {tmp_path / 'x'}" in str(error.value) and not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "options", "message"), [
    ("chestmist", {}, "did you mean 'chestmnist'"), ("phantom", {}, "known are chestmnist, pneumoniamnist, nih, kermany"),
    ("chestmnist", {"size": 32}, "size=32; choose from 224, 128, 64, 28"), ("nih", {"size": 64}, "--size is for chestmnist"),
    ("nih", {"parts": [13]}, "no part 13; the archives are 1 to 12"), ("kermany", {"parts": [1]}, "--part for nih")])
def test_what_cannot_be_asked_for(tmp_path, name, options, message):
    with pytest.raises(BenchmarkError, match=message):
        get(name, tmp_path / "x", **options)


def test_no_room_and_no_folder(web, monkeypatch, tmp_path):
    offer(web, monkeypatch, "nih", _nih())
    files = SOURCES["nih"]["files"]
    monkeypatch.setitem(files, "images_003.tar.gz", files["images_003.tar.gz"] | {"size": 10**15})
    with pytest.raises(BenchmarkError, match=r"2000000 GB are needed, .* GB are free; make room, or get a part \(--part 1\)"):
        get("nih", tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BenchmarkError, match=r"(Not a directory|File exists); make room, or name a folder .*\(--out\)"):
        get("nih", tmp_path / "file" / "nih", parts=[1])
    web.faults.append("page")
    with pytest.raises(BenchmarkError, match="a web page, not the file"):
        get("nih", tmp_path / "new", parts=[1], progress=False)


def test_the_table_of_links():
    """Checksums have the digits of MD5 or SHA-256, links are https, and NIH's archives are all there."""
    entries = [entry for source in SOURCES.values() for entry in source.get("files", {}).values()]
    assert all(entry["url"].startswith("https://") for entry in entries)
    assert {len(entry["checksum"]) for entry in entries if "checksum" in entry} == {32, 64}
    assert sum(entry["size"] for entry in entries if "size" in entry) == 45_079_862_784
    assert len({entry["checksum"] for entry in entries if "checksum" in entry}) == len(entries) - 2  # no two alike
    assert all("files" in source or "command" in source for source in SOURCES.values())
