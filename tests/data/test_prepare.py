"""``data prepare``: a resized copy that loads as a folder, survives a kill, and loses no film in silence."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tqdm import tqdm

from medbridge import cli
from medbridge.data import Benchmark, load_benchmark
from medbridge.data.prepare import prepare
from medbridge.errors import BenchmarkError, BenchmarkWarning

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"


def copy_of(benchmark, out, **options) -> Benchmark:
    prepare(benchmark, out, workers=1, progress=False, **options)
    return load_benchmark("folder", out)


def test_the_copy_says_what_the_original_says(tmp_path, squares):
    b = copy_of(squares, tmp_path / "out", size=48)
    assert b.labels == squares.labels and b.name == squares.name and b.synthetic and b.boxes is None
    pd.testing.assert_frame_equal(b.table, squares.table, check_dtype=False)  # unknown labels stay unknown
    film, small = squares.read(5), b.read(5)
    assert small.shape == (48, 64) and Image.open(b.paths()[5]).mode == "L"
    blocks = film.reshape(48, 2, 64, 2).mean(axis=(1, 3))  # antialiased: every pixel counts
    assert np.abs(small - blocks).mean() < 0.03 and small.std() < film.std()


def test_a_smaller_film_keeps_its_size_and_its_values(tmp_path, squares):
    b = copy_of(squares.split("val"), tmp_path / "out")
    assert b.read(3).shape == (96, 128) and np.array_equal(b.read(3), squares.split("val").read(3))


def test_dicom_is_read_as_a_film_and_boxes_are_scaled(tmp_path):
    rsna = load_benchmark("rsna", FIXTURES / "rsna")
    b = copy_of(rsna, tmp_path / "out", size=64)
    for i in range(3):  # JPEG, MONOCHROME1, 12 bits with a window
        assert np.corrcoef(b.read(i).ravel(), rsna.read(i).reshape(64, 2, 64, 2).mean(axis=(1, 3)).ravel())[0, 1] > 0.99
    assert b.image_ids()[0] == rsna.image_ids()[0].replace(".dcm", ".png") and len(b.boxes) == len(rsna.boxes) == 8
    corners = ["x0", "y0", "x1", "y1"]
    np.testing.assert_allclose(b.boxes[corners], rsna.boxes[corners] / 2, atol=1e-3)


def test_boxes_outside_their_film_are_told_and_left_out(tmp_path, squares):
    boxes = pd.DataFrame([["000.png", "bright", 100, 50, 200, 60], ["001.png", "bright", 500, 500, 600, 600]],
                         columns=["image", "label", "x0", "y0", "x1", "y1"])
    with pytest.warns(BenchmarkWarning, match=r"1 of 2 boxes lie outside their film.*001\.png \(128 x 96\)"):
        b = copy_of(replace(squares, boxes=boxes), tmp_path / "out", size=48)
    assert b.boxes.values.tolist() == [["000.png", "bright", 50, 25, 64, 30]]


def test_films_that_differ_by_their_ending_alone_both_stay(tmp_path, squares):
    root = tmp_path / "films"
    root.mkdir()
    for i, name in enumerate(("a.png", "a.jpg")):
        Image.fromarray(np.full((8, 8), 100 * i + 50, np.uint8)).save(root / name)
    table = squares.split("test").table.iloc[:2].assign(image=["a.png", "a.jpg"])
    b = copy_of(replace(squares, root=root, table=table), tmp_path / "out")
    assert b.image_ids() == ["a.png.png", "a.jpg.png"] and [round(255 * b.read(i).mean()) for i in (0, 1)] == [50, 150]


def test_unreadable_films_are_counted_listed_and_left_out(tmp_path, capsys):
    root = Path(shutil.copytree(FIXTURES / "covidx", tmp_path / "covidx"))
    bad = root / "val" / "A900001_1.png"
    bad.write_bytes(bad.read_bytes()[:-700])
    out = tmp_path / "out"
    assert cli.main(["data", "prepare", "covidx", str(root), "--out", str(out), "--size", "48", "--workers", "1"]) == 0
    text = capsys.readouterr()
    assert "15 films written" in text.out and "1 films cannot be read" in text.err and "A900001_1.png: damaged" in text.err
    lost = pd.read_csv(out / "unreadable.csv")
    assert lost["image"].tolist() == ["val/A900001_1.png"] and "truncated" in lost["reason"].iloc[0]
    assert len(load_benchmark("folder", out)) == 15
    # the file is mended: the same command adds it, and nothing else is done again
    shutil.copy(FIXTURES / "covidx" / "val" / bad.name, bad)
    assert cli.main(["data", "prepare", "covidx", str(root), "--out", str(out), "--size", "48", "--workers", "1"]) == 0
    assert "1 films written, 15 were there already" in capsys.readouterr().out
    assert len(load_benchmark("folder", out)) == 16 and len(pd.read_csv(out / "unreadable.csv")) == 0


def _killed_at_the_sixth_film(benchmark: Benchmark, out: Path) -> None:
    rename, films = os.replace, []

    def replace_or_die(source, target):
        films.extend([target] * str(target).endswith(".png"))
        if len(films) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replace_or_die  # in this process alone
    prepare(benchmark, out, size=48, workers=1, progress=False)


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, squares):
    out = tmp_path / "out"
    child = multiprocessing.get_context("fork").Process(target=_killed_at_the_sixth_film, args=(squares, out))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in sorted((out / "images").glob("[!.]*.png"))}
    assert len(done) == 5 and len(list(out.rglob(".*.part.png"))) == 1 and not (out / "labels.csv").exists()
    for path in done:  # what has its name is whole
        assert Image.open(path).convert("L").size == (64, 48)
    with pytest.raises(BenchmarkError, match=r"labels\.csv: no such file"):
        load_benchmark("folder", out)
    result = prepare(squares, out, size=48, workers=1, progress=False)
    assert (result.written, result.kept) == (55, 5) and not list(out.rglob(".*.part*"))
    assert all(path.stat().st_mtime_ns == at for path, at in done.items())
    prepare(squares, tmp_path / "whole", size=48, workers=1, progress=False)
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "whole")).read_bytes()


def test_ctrl_c_ends_the_workers_and_keeps_what_they_finished(tmp_path, squares, monkeypatch):
    class Stopped(tqdm):
        def __iter__(self):
            for i, result in enumerate(super().__iter__()):
                if i == 9:
                    raise KeyboardInterrupt
                yield result

    monkeypatch.setattr("medbridge.data.prepare.tqdm", Stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(squares, tmp_path / "out", size=48, workers=2, progress=False)
    monkeypatch.undo()
    result = prepare(squares, tmp_path / "out", size=48, workers=2, progress=False)
    assert result.kept >= 9 and result.written + result.kept == 60 and len(load_benchmark("folder", tmp_path / "out")) == 60


def test_processes_write_the_same_bytes_and_show_a_bar(tmp_path, squares, capsys):
    one = prepare(squares, tmp_path / "one", size=40, workers=1, progress=False)
    two = prepare(squares, tmp_path / "two", size=40, workers=2)
    assert one.written == two.written == 60 and "preparing films" in capsys.readouterr().err
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_folders_that_are_refused(tmp_path, squares):
    out = tmp_path / "out"
    prepare(squares.split("val"), out, size=32, workers=1, progress=False)
    with pytest.raises(BenchmarkError, match=r"prepared\.json: the folder holds .*'size': 32"):
        prepare(squares.split("val"), out, size=40, workers=1)
    with pytest.raises(BenchmarkError, match="no folder that was prepared before"):
        prepare(squares, out / "images", workers=1)
    with pytest.raises(BenchmarkError, match="no folder that was prepared before"):
        prepare(squares, out / "labels.csv", workers=1)
    with pytest.raises(BenchmarkError, match="cannot write to"):
        prepare(squares, out / "labels.csv" / "sub", workers=1)
    for bad in ({"size": 0}, {"size": 1.5}, {"workers": 0}):
        with pytest.raises(BenchmarkError, match="give a whole number >= 1"):
            prepare(squares, tmp_path / "other", **bad)
    nothing = replace(squares.split("val"), root=tmp_path)
    with pytest.raises(BenchmarkError, match=r"none of 12 films .* can be read: .*no such file"):
        prepare(nothing, tmp_path / "other", workers=1, progress=False)


@pytest.mark.parametrize(("text", "words"), [
    ("image,label,x0,y0,x1\n", r"missing column.*y1"),
    ("image,label,x0,y0,x1,y1\nz.png,Opacity,0,0,1,1\n", r"row 2: 'z\.png, Opacity.*no film of labels\.csv"),
    ("image,label,x0,y0,x1,y1\nf0.png,Mass,0,0,1,1\n", r"row 2: .*no column of labels\.csv"),
    ("image,label,x0,y0,x1,y1\nf0.png,Opacity,0,0,1,1\nf0.png,Opacity,5,0,5,1\n", r"row 3: .*no box in pixels"),
    ("image,label,x0,y0,x1,y1\nf0.png,Opacity,-1,0,5,1\n", r"row 2: .*no box in pixels"),
    ("image,label,x0,y0,x1,y1\nf0.png,Opacity,a,0,5,1\n", r"row 2: .*no box in pixels"),
])
def test_boxes_of_a_folder_that_are_refused(tmp_path, text, words):
    root = Path(shutil.copytree(FIXTURES / "folder", tmp_path / "films"))
    (root / "boxes.csv").write_text(text)
    with pytest.raises(BenchmarkError, match=words) as error:
        load_benchmark("folder", root)
    assert "boxes.csv" in str(error.value)


def test_boxes_of_a_folder(tmp_path):
    root = Path(shutil.copytree(FIXTURES / "folder", tmp_path / "films"))
    (root / "boxes.csv").write_text("image,label,x0,y0,x1,y1\nf1.png,Opacity,1,2,30.5,40\nsub/f3.png,Effusion,0,0,9,9\n")
    b = load_benchmark("folder", root)
    assert b.boxes.iloc[0].tolist() == ["f1.png", "Opacity", 1.0, 2.0, 30.5, 40.0] and len(b.boxes) == 2
    assert len(load_benchmark("folder", root, labels=["Effusion"]).boxes) == 1
    (root / "prepared.json").write_text(json.dumps({"benchmark": "x"}))
    with pytest.raises(BenchmarkError, match=r"prepared\.json: cannot be read \(KeyError"):
        load_benchmark("folder", root)


def test_a_film_that_was_replaced_is_prepared_anew(squares, tmp_path):
    own = replace(squares, root=tmp_path / "films", table=squares.table.head(3))
    own.root.mkdir()
    for image in own.image_ids():
        Image.fromarray(np.full((80, 80), 9, np.uint8)).save(own.root / image)
    assert prepare(own, tmp_path / "out", workers=1, progress=False).written == 3
    for image in own.image_ids()[:2]:
        Image.fromarray(np.full((80, 80), 200, np.uint8)).save(own.root / image)
        os.utime(own.root / image, (1, 1))  # as `cp -p` leaves an old film
    result = prepare(own, tmp_path / "out", workers=1, progress=False)
    assert (result.written, result.kept) == (2, 1)
    films = [np.asarray(Image.open(tmp_path / "out" / "images" / image)).max() for image in own.image_ids()]
    assert films == [200, 200, 9]
