"""``data check``: what is in a folder, what is wrong with it, and the exit status that says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbridge import cli
from medbridge.data import load_benchmark
from medbridge.data.audit import audit
from medbridge.errors import BenchmarkError
from medbridge.viz.plots import audit_panels

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"


@pytest.fixture
def covidx(tmp_path):
    return Path(shutil.copytree(FIXTURES / "covidx", tmp_path / "covidx"))


def run(*args) -> int:
    return cli.main(["data", "check", *map(str, args)])


def test_a_whole_benchmark_has_no_fault():
    found = audit(load_benchmark("covidx", FIXTURES / "covidx"), progress=False)
    assert (found.images, found.patients, found.decoded, found.seed, found.faults) == (16, 15, 16, None, [])
    assert found.sizes.values.tolist() == [["train", 8, 67_863], ["val", 4, 8_473], ["test", 4, 8_482]]
    assert not (found.unreadable or found.absent or found.patients_in_two_splits or found.duplicates or found.left_out)


def test_splits_that_were_drawn_are_not_held_against_published_numbers():
    sizes = audit(load_benchmark("rsna", FIXTURES / "rsna"), progress=False).sizes
    assert sizes["part"].tolist() == ["train", "val", "test", "official stage_2_train"]
    assert sizes["here"].tolist()[3] == sizes["here"].iloc[:3].sum() == 12
    assert np.isnan(sizes["published"].iloc[:3]).all() and sizes["published"].iloc[3] == 26_684


def test_the_sample_is_seeded_and_all_is_all(squares, capsys):
    bad = squares.table["image"].iloc[7]
    broken = replace(squares, table=squares.table.replace({"image": {bad: "none.png"}}))
    a, b = (audit(broken, 20, seed=1, progress=False) for _ in range(2))
    assert a.to_dict() == b.to_dict() and a.decoded + len(a.absent) == 20 and a.seed == 1
    whole = audit(broken, None, progress=False)
    assert whole.absent == ["none.png"] and whole.decoded == 59 and whole.faults == []
    audit(broken, 5)
    assert "checking films" in capsys.readouterr().err
    for sample in (0, -3, True):
        with pytest.raises(BenchmarkError, match="sample="):
            audit(squares, sample)


@pytest.fixture
def own(squares, tmp_path):
    """Films that a test may write to: other tests share the others."""
    return replace(squares, root=Path(shutil.copytree(squares.root, tmp_path / "films")))


def test_many_films_lose_none(own):
    table = own.table.assign(image=[f"{i}.png" if i in (6, 7, 59) else image for i, image in enumerate(own.image_ids())])
    for i in (6, 7, 59):
        (own.root / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = audit(replace(own, table=table), None, progress=False)
    assert [image for image, _ in found.unreadable] == ["6.png", "7.png", "59.png"] and found.decoded == 60
    assert found.faults == ["3 of 60 decoded films cannot be read"]


def test_patients_in_two_splits_and_equal_bytes(own):
    table = own.table.copy()
    table.loc[31, "split"] = "val"  # p15, the other film of which is in train
    table.loc[[30, 31], "image"] = table["image"].iloc[0], "copy.png"
    shutil.copy2(own.root / table["image"].iloc[1], own.root / "copy.png")
    found = audit(replace(own, table=table.drop(index=30).reset_index(drop=True)), None, progress=False)
    assert found.patients_in_two_splits == {} and found.duplicates == [["001.png", "copy.png"]]
    assert found.duplicates_across_splits == 1
    table.loc[30, "image"] = "030.png"
    found = audit(replace(own, table=table), None, progress=False)
    assert found.patients_in_two_splits == {"p15": ["train", "val"]} and found.faults == [
        "1 groups of copies are in more than one split", "1 patients are in more than one split"]
    assert "patients in more than one split: 1: p15 (train, val)" in found.text()
    assert "copies of one another: 1 groups" in found.text() and "1 of them across splits: 001.png = copy.png" in found.text()


def test_unreadable_films_set_the_exit_status(covidx, tmp_path, capsys):
    bad = covidx / "train" / "c0ffee00-0001.png"
    bad.write_bytes(bad.read_bytes()[:-700])
    assert run("covidx", covidx, "--out", tmp_path / "out") == 1
    text = capsys.readouterr().out
    assert "unreadable: 1 of 16 films" in text and "damaged or truncated" in text and "FAULT: 1 of 16" in text
    assert "published" in text and "67,863" in text and "50.0 %" in text
    assert Image.open(tmp_path / "out" / "audit.png").size[0] > 500
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["unreadable"][0]["image"] == "train/c0ffee00-0001.png" and report["faults"]
    assert run("covidx", FIXTURES / "covidx", "--sample", "3") == 0
    assert "3 films, drawn with seed 0" in capsys.readouterr().out


def test_a_partial_download_is_described(covidx, capsys):
    shutil.rmtree(covidx / "test")
    (covidx / "train" / "c0ffee00-0002.png").unlink()
    assert run("covidx", covidx, "--json") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["left_out"]["not on disk"]["images"] == 5 and len(report["left_out"]["not on disk"]["first"]) == 5
    assert [row["here"] for row in report["sizes"]] == [7, 4, 0]
    assert "warning: " in err and "5 of 16 images are not in" in err and "Traceback" not in err


def test_overlap_that_the_loader_refuses_is_counted_by_check(covidx, capsys):
    path = covidx / "test.txt"
    path.write_text(path.read_text().replace("103 ", "101 ", 1))
    assert run("covidx", covidx) == 1
    assert "left out, patient also in test: 2: train/patient101-day0.jpg" in capsys.readouterr().out
    assert run("covidx", covidx, "--option", "overlap=error") == 2
    assert "in more than one of train.txt" in capsys.readouterr().err


@pytest.mark.parametrize(("args", "words"), [
    (["covidx", "{tmp}/nowhere"], "no such folder"),
    (["covid", "{tmp}"], "did you mean 'covidx'"),
    (["covidx"], "needs root="),
    (["covidx", "{covidx}", "--option", "overlap"], "write NAME=VALUE"),
    (["covidx", "{covidx}", "--option", "views=frontal"], "each is an argument of its loader"),
    (["covidx", "{covidx}", "--sample", "0"], "sample=0"),
    (["covidx", "{covidx}", "--out", "{covidx}/train.txt"], "train.txt/.tried: File exists; check that its disk"),
])
def test_commands_that_cannot_run(covidx, tmp_path, capsys, args, words):
    assert run(*(arg.format(tmp=tmp_path, covidx=covidx) for arg in args)) == 2
    assert words in capsys.readouterr().err


def test_synthetic_is_marked_and_unknown_labels_get_a_panel(squares):
    found = audit(replace(squares, name="squares"), 2, progress=False)
    assert "SYNTHETIC" in found.text() and found.to_dict()["synthetic"] is True
    fig = audit_panels(found)
    assert "synthetic" in fig.get_suptitle()
    assert [ax.get_ylabel() for ax in fig.axes] == [
        "films", "positive among known labels (%)", "unknown labels (% of films)"]
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert heights == [32, 12, 16]  # nothing published, no bars for it
    assert fig.axes[2].patches[0].get_height() == pytest.approx(100 / 32)
    published = audit_panels(audit(load_benchmark("covidx", FIXTURES / "covidx"), 2, progress=False))
    assert len(published.axes) == 2 and [bar.get_height() for bar in published.axes[0].patches][3:] == [67_863, 8_473, 8_482]


def test_films_that_show_no_patient_are_a_fault(squares, tmp_path):
    film = np.asarray(Image.open(squares.paths()[0]))
    half, noisy, mark = film.copy(), film.copy(), np.zeros_like(film)
    half[:, : film.shape[1] // 2] = 7
    noisy[:] = 200 + np.arange(noisy.size).reshape(noisy.shape) % 2
    mark[:3, :3] = 255
    films = {"black": np.zeros_like(film), "white": np.full_like(film, 255), "one grey": np.full_like(film, 90),
             "one grey ": noisy, "black ": mark, "50 % from the left are one grey": half, "5 x 4 pixels": film[:4, :5]}
    for i, picture in enumerate(films.values()):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    Image.fromarray(film.astype(np.uint16) * 0 + 300).save(tmp_path / "7.png")
    shutil.copy2(squares.paths()[0], tmp_path / "8.png")
    Image.fromarray(film).save(tmp_path / "9.bmp")  # the same film in another format
    names = [*(f"{i}.png" for i in range(9)), "9.bmp"]
    found = audit(replace(squares, root=tmp_path, table=squares.table.head(10).assign(image=names)), None, progress=False)
    assert dict(found.blank) == {f"{i}.png": what.strip() for i, what in enumerate(films)} | {"7.png": found.blank[-1][1]}
    assert found.faults == ["8 of 10 decoded films show no patient"] and "  5.png: 50 % from the left" in found.text()
    assert ["8.png", "9.bmp"] in found.duplicates and found.to_dict()["blank"][0] == {"image": "0.png", "reason": "black"}


def test_the_folder_is_searched_for_what_the_table_does_not_name(squares, tmp_path):
    own = replace(squares, root=tmp_path, table=squares.table.head(2), synthetic=False)
    shutil.copy2(squares.paths()[0], tmp_path / "000.png")
    (tmp_path / "001.png").symlink_to("nowhere.png")
    shutil.copy2(squares.paths()[2], tmp_path / "IM0002")
    (tmp_path / "IM0003").symlink_to("nowhere")
    found = audit(own, None, progress=False)
    assert found.unlisted == ["IM0002"] and len(found.unopened) == 1 and "IM0003" in found.unopened[0]
    assert [image for image, _ in found.unreadable] == ["001.png"] and found.absent == []
    assert len(found.faults) == 2 and "in no row of the table: 1 films: IM0002" in found.text()
