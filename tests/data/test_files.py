"""What the loaders share: CSV files of a distribution, the films on disk, loading by name."""

import gzip
import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from medbridge.data import label_names, list_benchmarks, load_benchmark
from medbridge.data.files import Distribution, draw_val
from medbridge.errors import BenchmarkError, BenchmarkWarning

ROOT = Path(__file__).parents[2]


def toy(root):
    return Distribution("toy", root, "films", "toy 1.0", ["Mass"], {"train": 4})


def test_read_csv_keeps_text_and_the_order_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffid,x,label,y\r\n007,nan,1.0,\r\n008,NA,,z\r\n".encode())
    table = toy(tmp_path).csv("a.csv", ["label", "id", "x"], optional=["y", "w"], categories=["label"])
    assert list(table.columns) == ["label", "id", "x", "y"]
    assert table.astype(object).to_numpy().tolist() == [["1.0", "007", "nan", ""], ["", "008", "NA", "z"]]
    assert table["label"].dtype == "category"


def test_categories_are_text_where_every_cell_is_a_number(tmp_path):
    (tmp_path / "a.csv").write_text("id,age\n1,40\n2,58\n")
    assert toy(tmp_path).csv("a.csv", ["age"], categories=["age"])["age"].tolist() == ["40", "58"]


def test_trailing_commas_and_gzip(tmp_path):
    # as Data_Entry_2017.csv ends its lines
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id,w[a,b],\n1,2,3,\n"))
    for name in ("a.csv", "a.csv.gz"):
        assert toy(tmp_path).csv(name, ["id", "b]"]).iloc[0].tolist() == ["1", "3"]
    (tmp_path / "b.csv").write_text("id\n5\n")
    assert toy(tmp_path).csv("b.csv.gz", ["id"]).iloc[0, 0] == "5"


@pytest.mark.parametrize(("content", "words"), [
    (b"", "cannot be read as CSV.*toy 1.0"), (b"id,x\n", "no rows"),
    (b"id,y\n1,2\n", "missing column.*x; found id, y; .*toy 1.0"),
    (b"id,x\n1,\xff\n", "not UTF-8"), (b'id,x\n1,"2\n', "cannot be read as CSV")])
def test_csv_files_that_cannot_be_used(tmp_path, content, words):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(BenchmarkError, match=words) as error:
        toy(tmp_path).csv("a.csv", ["id", "x"])
    assert str(tmp_path / "a.csv") in str(error.value)


def test_a_gzip_cut_short_and_one_that_is_none(tmp_path):
    whole = gzip.compress(b"id\n" + b"\n".join(b"%d" % (i * i) for i in range(9999)))
    for content in (whole[: len(whole) // 2], b"<html>404</html>"):
        (tmp_path / "a.csv.gz").write_bytes(content)
        with pytest.raises(BenchmarkError, match="cannot be read as CSV"):
            toy(tmp_path).csv("a.csv.gz", ["id"])


@pytest.mark.parametrize("archive", ["train.csv.zip", "toy.tar.gz"])
def test_a_missing_csv_names_the_archive_that_holds_it(tmp_path, archive):
    (tmp_path / archive).touch()
    with pytest.raises(BenchmarkError, match=rf"train\.csv: no such file, part of toy 1.0; still packed in .*{archive}: unpack"):
        toy(tmp_path).csv("train.csv", ["id"])


def test_a_root_that_is_no_folder(tmp_path):
    (tmp_path / "nih.zip").touch()
    with pytest.raises(BenchmarkError, match=r"nih: no such folder; still packed.*nih\.zip.*the folder that holds films"):
        toy(tmp_path / "nih")


def _films(n, root=None):
    if root:
        for i in range(n):
            (root / f"p{i % 2}").mkdir(exist_ok=True)
            (root / f"p{i % 2}" / f"{i}.png").touch()
    films = pd.DataFrame({"image": [f"p{i % 2}/{i}.png" for i in range(n)], "Mass": [float(i % 4 < 2) for i in range(n)]})
    return films.assign(patient_id=films["image"], split=[("train", "val", "test")[i // 2 % 3] for i in range(n)])


def test_missing_films_are_told_once_with_counts_and_the_first_five(tmp_path, recwarn):
    table = _films(10, tmp_path)
    whole = toy(tmp_path).benchmark(table)
    assert len(whole) == 10 and len(whole.dropped) == 0 and list(whole.dropped.columns) == ["image", "reason"] and not recwarn
    for i in (1, 3, 5, 7, 8, 9):
        (tmp_path / table["image"].iloc[i]).unlink()
    source = toy(tmp_path)
    source.where = "t.csv"
    part = source.benchmark(table)
    (warning,) = recwarn
    assert warning.category is BenchmarkWarning and "t.csv: 6 of 10 images are not in" in str(warning.message)
    assert "p1/7.png, p0/8.png, ..." in str(warning.message) and "p1/9.png" not in str(warning.message)
    assert part.image_ids() == ["p0/0.png", "p0/2.png", "p0/4.png", "p0/6.png"]
    assert part.dropped["image"].tolist()[-1] == "p1/9.png" and set(part.dropped["reason"]) == {"not on disk"}
    assert len(toy(tmp_path).benchmark(table, files="all")) == 10


def test_no_film_at_all_is_an_error(tmp_path):
    (tmp_path / "images_001.tar.gz").touch()
    with pytest.raises(BenchmarkError, match=r"none of its 4 images is in .*p0/0\.png.*still packed.*images_001\.tar\.gz"):
        toy(tmp_path).benchmark(_films(4))
    with pytest.raises(BenchmarkError, match="files='some'"):
        toy(tmp_path).benchmark(_films(4), files="some")


def test_what_was_set_aside_is_said(tmp_path):
    table = pd.DataFrame({"image": ["a", "b"], "patient_id": ["1", "1"], "split": "train", "Mass": [0.0, 1.0]})
    source = toy(tmp_path)
    source.where = "t.csv"
    source.set_aside(pd.DataFrame({"image": ["c", "d"]}), [False, False], "view LL")
    with pytest.warns(BenchmarkWarning, match=r"t\.csv: split val, test holds no film; set aside: 2 \(view LL\)"):
        benchmark = source.benchmark(table, files="all")
    assert benchmark.dropped["image"].tolist() == ["c", "d"] and benchmark.official == {"train": 4}
    with pytest.raises(BenchmarkError, match=r"no film is left; set aside: 2 \(view LL\)"):
        source.benchmark(table[:0], files="all")


def test_draw_val():
    table = pd.DataFrame({"patient_id": [str(i // 3) for i in range(60)], "split": "train"})
    drawn = draw_val(table, 0.1, seed=0)
    assert drawn["split"].value_counts().to_dict() == {"train": 54, "val": 6}
    assert (drawn.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(draw_val(table, 0, seed=0)["split"]) == {"train"}
    with pytest.raises(BenchmarkError, match="val_share=1"):
        draw_val(table, 1, seed=0)


def test_names_in_any_case_and_a_root_where_one_is_needed():
    assert load_benchmark("PHANTOM-a", n_films=4).name == load_benchmark("phantom-A", n_films=4).name
    for name in list_benchmarks():
        if not name.startswith("phantom"):
            with pytest.raises(BenchmarkError, match=rf"'{name}' needs root=: the folder that holds \w+"):
                load_benchmark(name.upper())
    with pytest.raises(BenchmarkError, match="did you mean 'chexpert'"):
        load_benchmark("CheXprt")


def test_the_fixtures_are_what_their_script_writes(tmp_path, monkeypatch):
    shipped = ROOT / "data" / "fixtures"
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(sys, "argv", ["make_fixtures.py", "--out", str(tmp_path), "chexpert_plus"])
    importlib.import_module("make_fixtures").main()
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert written == sorted(p.relative_to(shipped) for p in (shipped / "chexpert_plus").rglob("*.*")) and len(written) > 10
    for name in written:
        if name.suffix != ".png":  # encoders differ between versions
            assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()
    assert sum(path.stat().st_size for path in shipped.rglob("*") if path.is_file()) < 2 * 2**20


def test_label_names_and_the_labels_command(capsys):
    from medbridge import cli
    from medbridge.data.labels import canonical

    names = label_names()
    assert {"nih", "chexpert", "chexpert-plus", "mimic", "rsna", "covidx"} <= set(names) and "folder" not in names
    assert all(canonical(label) for labels in names.values() for label in labels)
    assert cli.main(["labels", "--csv"]) == 0
    rows = {line.split(",")[0]: line.split(",") for line in capsys.readouterr().out.splitlines()}
    column = rows["finding"].index
    assert rows["Effusion"][column("nih")] == "Effusion" and rows["Effusion"][column("chexpert")] == "Pleural Effusion"
    assert rows["Pleural Thickening"][column("nih")] == "Pleural_Thickening" and not rows["Hernia"][column("mimic")]
    assert cli.main(["labels"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("finding ") and "Pleural_Thickening" in out
