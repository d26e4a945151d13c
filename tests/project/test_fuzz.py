"""Hostile and damaged input: a small share of scripts/fuzz_inputs.py, bombs, paths that climb out, adapters from strangers."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image

from medbridge.adapter import load_adapter
from medbridge.data import dicom, files, load_benchmark, pixels
from medbridge.data.dicom import open_dicom
from medbridge.data.images import probe_film, read_film
from medbridge.errors import AdapterError, BenchmarkError, ExpertError, ImageError
from medbridge.experts.weights import load_state

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import fuzz_inputs  # noqa: E402


def test_a_share_of_the_fuzz(tmp_path):
    start = "fork" if sys.platform.startswith("linux") else "spawn"
    counts, faults, peak = fuzz_inputs.fuzz(seed=2, cases=list(range(200)), log=str(tmp_path / "log"), start=start)
    assert not faults, "\n".join(faults)
    assert sum(counts.values()) == 200 and peak < fuzz_inputs.MEMORY
    for kind in ("film read", "film refused", "table read", "table refused", "adapter refused"):
        assert counts[kind] > 0, f"the fuzz does not reach {kind!r}"


def test_the_fuzz_finds_what_it_should(monkeypatch, tmp_path):
    """A reader that raises anything else, or breaks its promise, is a fault."""
    fuzzer = fuzz_inputs.Fuzzer(0, tmp_path)
    film = next(n for n in range(100) if fuzzer.case(n)[0] == "film")
    for broken in (lambda path: 1 / 0, lambda path: np.full((2, 2), 7, np.float32)):
        monkeypatch.setattr("medbridge.data.images.probe_film", lambda path: (2, 2))
        monkeypatch.setattr("medbridge.data.images.read_film", broken)
        assert fuzz_inputs.judge(fuzzer, film)[1] == "FAULT"


def test_a_table_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data" / "fixtures" / "mimic", tmp_path / "mimic")
    path = tmp_path / "mimic" / "mimic-cxr-2.0.0-split.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\n" * 50_000_000))
    monkeypatch.setattr(files, "MAX_UNPACKED", 10_000_000)
    with pytest.raises(BenchmarkError, match=r"split\.csv\.gz: unpacks to more than 10,000,000 bytes"):
        load_benchmark("mimic", tmp_path / "mimic")


def test_a_deflated_dicom_is_read_and_a_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "film.dcm"
    whole = pydicom.dcmread(next((ROOT / "data" / "fixtures" / "rsna").rglob("*.dcm")))
    whole.decompress()
    before = whole.pixel_array
    whole.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    whole.save_as(path, enforce_file_format=True)
    assert read_film(path).shape == before.shape[:2] == probe_film(path)
    monkeypatch.setattr(dicom, "MAX_DEFLATED", 2**24)
    data = path.read_bytes()
    meta = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join([packer.compress(zlib.decompress(data[meta:], -zlib.MAX_WBITS)),
                     *(packer.compress(bytes(2**22)) for _ in range(5)), packer.flush()])
    path.write_bytes(data[:meta] + bomb)
    for read in (read_film, probe_film, open_dicom):
        with pytest.raises(ImageError, match=r"film\.dcm: unpacks to more than 16,777,216 bytes"):
            read(path)


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    path = tmp_path / "film.jpg"
    path.write_bytes(data)
    assert read_film(path).shape == (64, 64)
    scan = data.rfind(b"\xff\xda")
    path.write_bytes(data[:scan] + data[scan:-2] * (pixels.MAX_SCANS + 1) + data[-2:])
    with pytest.raises(ImageError, match=r"film\.jpg: a JPEG of \d+ scans"):
        read_film(path)


def test_the_sizes_inside_a_stream_count_too(tmp_path):
    """A DICOM header that says 8 x 8 before a JPEG 2000 stream of another size."""
    stream = imagecodecs.jpeg2k_encode(np.zeros((64, 64), np.uint8))
    whole = pydicom.dcmread(next((ROOT / "data" / "fixtures" / "rsna").rglob("*.dcm")))
    whole.Rows = whole.Columns = 8
    whole.PixelData = pydicom.encaps.encapsulate([stream])
    whole["PixelData"].is_undefined_length = True
    whole.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    whole.save_as(tmp_path / "film.dcm")
    with pytest.raises(ImageError, match=r"film\.dcm"):
        read_film(tmp_path / "film.dcm")


CLIMBS = {  # the table of each benchmark that films are named in
    "nih": "Data_Entry_2017_v2020.csv", "chexpert": "CheXpert-v1.0-small/train.csv", "folder": "labels.csv",
    "chexpert-plus": "df_chexpert_plus_240401.csv", "mimic": "mimic-cxr-2.0.0-metadata.csv.gz",
    "rsna": "stage_2_train_labels.csv", "covidx": "train.txt"}


def _first_film(name, path):
    """The text in the file that the first film's path is made of."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8-sig")
    first = text.splitlines()[0 if name == "covidx" else 1]
    cells = first.split() if name == "covidx" else first.split(",")
    return text, cells[1 if name == "covidx" else 0]


@pytest.mark.parametrize("climb", ["../../../secret.png", "/etc/secret.png", "x/../../../secret.png", "..\\..\\secret.png",
                                   "C:/secret.png", "a\0/b.png"])
@pytest.mark.parametrize(("name", "options"), [(n, {"files": m}) for n in CLIMBS for m in ("present", "all") if n != "folder"]
                         + [("folder", {})])
def test_no_table_names_a_file_outside_its_folder(tmp_path, name, options, climb):
    root = tmp_path / "data" / "set"
    shutil.copytree(ROOT / "data" / "fixtures" / name.replace("-", "_"), root)
    (tmp_path / "secret.png").write_bytes(b"")
    path = root / CLIMBS[name]
    text, film = _first_film(name, path)
    changed = text.replace(film, climb).encode()
    path.write_bytes(gzip.compress(changed) if path.suffix == ".gz" else changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            benchmark = load_benchmark(name, root, **options)
        except BenchmarkError:
            return
    # a loader may leave the row out or take it for a name; a path that leads outside it may not keep
    inside = root.resolve()
    for film in benchmark.table["image"]:
        assert "\0" not in film and "\\" not in film and not film.startswith("/") and ".." not in film.split("/")
        assert (root / film).resolve().is_relative_to(inside)


class _Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _adapter(tmp_path, **changes):
    folder = tmp_path / "adapter"
    shutil.copytree(ROOT / "data" / "quickstart", folder, dirs_exist_ok=True)
    saved = json.loads((folder / "adapter.json").read_text())
    saved |= changes
    (folder / "adapter.json").write_text(json.dumps(saved))
    return folder


def test_an_adapter_runs_no_code(tmp_path):
    trap = tmp_path / "sprung"
    folder = _adapter(tmp_path)
    (folder / "adapter.safetensors").write_bytes(pickle.dumps(_Trap(trap)))
    with pytest.raises(AdapterError, match="damaged"):
        load_adapter(folder)
    archive = tmp_path / "weights.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Trap(trap)))
        file.writestr("archive/version", "3")
    with pytest.raises(ExpertError):
        load_state(archive)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Trap(trap)))
    with pytest.raises(ExpertError):
        load_state(tmp_path / "plain.pt")
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Trap(trap)))  # the trap does work
    assert trap.exists()


@pytest.mark.parametrize(("part", "value", "message"), [
    ("labels", "Mass", "labels: 'Mass': write a list"), ("labels", ["Mass", "Mass"], "labels need distinct names"),
    ("experts", [{"name": "tiny-resnet"}], r"experts\[0\]: key 'fingerprint' is missing"),
    ("experts", [1], r"experts\[0\]: 1: write it as key: value"), ("prompts", {}, "positive and negative prompts"),
    ("card", [], r"card: \[\]: write it as name: value"),
    ("config", {"width": "__import__('os')"}, r"config.width: \"__import__.*write a whole number"),
    ("config", {"cross_view": 1}, "config.cross_view: 1: write true or false"),
    ("config", {"__class__": 1}, "config: unknown key '__class__'"), ("sampler", {"crop": 10**400}, "sampler.crop: 1000.*number"),
    ("config", {"queries": 2**40}, "queries x width is more than"), ("config", {"width": 2**20}, "is more than the"),
    ("config", {"heads": 2**40}, "heads is more than"), ("sampler", {"crop": 1e-5}, "windows"),
    ("sampler", {"extra": 2**40}, "extra="), ("sampler", {"overlap": 0.9999999}, "windows")])
def test_a_strangers_settings_are_checked_before_they_are_used(tmp_path, part, value, message):
    folder = _adapter(tmp_path)
    saved = json.loads((folder / "adapter.json").read_text())
    folder = _adapter(tmp_path, **{part: {**saved[part], **value} if part in ("config", "sampler") else value})
    with pytest.raises(AdapterError, match=message):
        load_adapter(folder)


def test_json_of_endless_depth_is_refused(tmp_path):
    folder = _adapter(tmp_path)
    (folder / "adapter.json").write_text("[" * 100_000)
    with pytest.raises(AdapterError, match="not readable as JSON"):
        load_adapter(folder)
