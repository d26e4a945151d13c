"""Sources, targets and label budgets: what is trained on, what is scored, and what is refused."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from medbridge import cli, load_benchmark
from medbridge.adapter import load_adapter
from medbridge.cli.options import parse_options
from medbridge.data.tasks import BenchmarkRef, deal_folds, label_budget, make_target, make_targets, one_label
from medbridge.errors import BenchmarkError, BenchmarkWarning
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig
from medbridge.studies.adapt import adapt
from medbridge.studies.cells import PROBES, MethodSettings
from medbridge.train import TrainConfig

SETTINGS = ["--epochs", "1", "--queries", "2", "--width", "32", "--crop", "0.6", "--overlap", "0", "--extra", "1"]


@pytest.fixture(scope="module")
def north(two_sites):
    return load_benchmark("folder", two_sites / "north")


@pytest.fixture(scope="module")
def south(two_sites):
    return load_benchmark("folder", two_sites / "south")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def _run(*args):
    return cli.main([str(a) for a in args])


def test_select_restricts_and_renames(squares):
    boxed = replace(squares, boxes=squares.table[["image"]].assign(label=["bright", "wide"] * 30, x0=0, y0=0, x1=9, y1=9))
    one = boxed.select({"wide": "Mass"})
    assert one.labels == ("Mass",) and "bright" not in one.table and "wide" not in one.table
    assert one.table["Mass"].tolist() == squares.table["wide"].tolist()
    assert set(one.boxes["label"]) == {"Mass"} and len(one.boxes) == 30
    assert boxed.select(["wide", "bright"]).labels == ("wide", "bright")
    # a metadata column gives way to the label that takes its name
    meta = replace(squares, table=squares.table.assign(Mass="old"))
    assert meta.select({"wide": "Mass"}).table["Mass"].tolist() == squares.table["wide"].tolist()
    for bad in ([], ["narrow"], "wide", ["wide", "wide"], {"wide": "x", "bright": "x"}):
        with pytest.raises(BenchmarkError, match="select"):
            squares.select(bad)


def test_names_need_no_case_and_data_folders_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDBRIDGE_DATA", raising=False)
    assert BenchmarkRef.parse("PHANTOM-b") == BenchmarkRef("phantom-B")
    assert BenchmarkRef.parse("Folder=/a=b").root.as_posix() == "/a=b"
    with pytest.raises(BenchmarkError, match="folder=FOLDER, or set MEDBRIDGE_DATA"):
        BenchmarkRef.parse("folder")
    with pytest.raises(BenchmarkError, match="did you mean 'folder'"):
        BenchmarkRef.parse("Folderr")
    monkeypatch.setenv("MEDBRIDGE_DATA", str(tmp_path))
    with pytest.raises(BenchmarkError, match="holds no folder folder/"):
        BenchmarkRef.parse("folder")
    (tmp_path / "FOLDER").mkdir()
    assert BenchmarkRef.parse("folder").root == tmp_path / "FOLDER"
    (tmp_path / "Folder").mkdir()
    with pytest.raises(BenchmarkError, match="FOLDER and Folder"):
        BenchmarkRef.parse("folder")
    with pytest.raises(BenchmarkError, match="options .*colour"):
        BenchmarkRef.parse(f"folder={tmp_path}", {"colour": 1}).load()


def test_hospitals_of_the_phantom_have_names_of_their_own(tmp_path):
    a, b = (load_benchmark(f"phantom-{h}", tmp_path, n_films=3, workers=1) for h in "AB")
    assert (a.name, b.name) == ("PhantomCXR-A (synthetic)", "PhantomCXR-B (synthetic)")
    assert [t.in_domain for t in make_targets(a, [a, b])] == [True, False]


def test_a_target_holds_the_shared_labels_under_the_sources_names(north, south):
    home, away = make_targets(north, [north, south])
    assert home.in_domain and not away.in_domain
    assert home.test.labels == away.test.labels == ("Effusion", "Mass") and away.columns == (0, 1)
    assert away.mapping() == "Effusion = Pleural Effusion, Mass = Lung Mass"
    np.testing.assert_array_equal(away.test.table["Mass"], south.split("test").table["Lung Mass"])
    # from south to north the order is that of south, which has one label more
    back = make_targets(south, [north])[0]
    assert back.test.labels == ("Lung Mass", "Pleural Effusion")
    assert [south.labels[c] for c in back.columns] == ["Lung Mass", "Pleural Effusion"]


def test_what_cannot_be_scored_is_refused(north, south, squares):
    with pytest.raises(BenchmarkError, match=r"north -> squares \(synthetic\): no shared label"):
        make_targets(north, [squares])
    table = north.table.assign(split=np.where(north.table["split"] == "test", "train", "test"))
    with pytest.raises(BenchmarkError, match="44 test films are train or val films of the source, such as .*north-000.png"):
        make_targets(north, [replace(north, name="again", table=table)])
    with pytest.raises(BenchmarkError, match="'val' is empty"):
        make_target(north.labels, south.split("test"), "model", split="val")


def test_films_that_two_benchmarks_share_are_known_also_in_a_prepared_copy(north, south):
    """A prepared copy is read as a folder, and keeps the name of its benchmark."""
    with pytest.warns(BenchmarkWarning, match="nih -> rsna: RSNA's films were taken from NIH.*may be too good"):
        make_targets(replace(north, name="nih"), [replace(south, name="rsna")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_targets(replace(north, name="nih"), [replace(south, name="chexpert"), replace(north, name="nih")])


def test_one_label_goes_by_any_of_its_names(south):
    assert one_label(south, "Effusion").labels == one_label(south, "Pleural Effusion").labels == ("Pleural Effusion",)
    with pytest.raises(BenchmarkError, match="no label 'Nodule'; it has Hernia, Lung Mass, Pleural Effusion"):
        one_label(south, "Nodule")


@pytest.mark.filterwarnings("ignore:.*one class only")
@pytest.mark.parametrize("seed", [0, 1])
def test_budgets_are_nested_and_leave_test_whole(north, seed):
    budgets = [label_budget(north, f, seed) for f in (0.01, 0.1, 0.5, 1.0)]
    drawn = [set(b.split("train").table["patient_id"]) for b in budgets]
    assert [len(d) for d in drawn] == [1, 2, 8, 16] and drawn[0] < drawn[1] < drawn[2] < drawn[3]
    for budget, patients in zip(budgets, drawn, strict=True):
        assert budget.split("test").image_ids() == north.split("test").image_ids()
        whole = north.split("train").table
        assert len(budget.split("train")) == whole["patient_id"].isin(patients).sum()  # all films of whoever is drawn
    assert [len(set(b.split("val").table["patient_id"])) for b in budgets] == [1, 1, 3, 6]  # labels to choose by are labels too
    assert budgets[0].unlabelled.image_ids() == north.split("train").image_ids()
    assert budgets[-1] is north
    assert label_budget(north, 0.5, seed).image_ids() == budgets[2].image_ids()
    assert label_budget(north, 0.5, seed + 2).image_ids() != budgets[2].image_ids()


def test_a_tiny_budget_counts_what_it_cannot_teach(north):
    with pytest.warns(UserWarning, match=r"at 1 % \(1 training patients, 2 films, seed 0\) \d of 2 labels have one class only"):
        label_budget(north, 0.01)


def test_folds_hold_every_film_once_and_every_patient_together(north):
    rng = np.random.default_rng(0)
    table = north.table.assign(Effusion=(rng.random(60) < 0.3).astype(float), Mass=(rng.random(60) < 0.7).astype(float))
    table.loc[[5, 9], ["Effusion", "Mass"]] = np.nan
    films = replace(north, table=table)
    folds = deal_folds(films, 5)
    known = [name for i, name in enumerate(films.image_ids()) if i not in (5, 9)]
    for split in ("test", "val"):
        assert sorted(name for fold in folds for name in fold.split(split).image_ids()) == known
    for i, fold in enumerate(folds):
        assert fold.table.groupby("patient_id")["split"].nunique().eq(1).all() and fold.image_ids() == known
        assert fold.split("val").image_ids() == folds[(i + 1) % 5].split("test").image_ids()
        assert 10 <= len(fold.split("test")) <= 14
    assert np.ptp([fold.split("test").table["Effusion"].sum() for fold in folds]) <= 2
    assert [f.split("test").image_ids() for f in deal_folds(films, 5)] == [f.split("test").image_ids() for f in folds]
    assert deal_folds(films, 5, seed=1)[0].split("test").image_ids() != folds[0].split("test").image_ids()
    for count in (2, 31):
        with pytest.raises(BenchmarkError, match=f"north: {count} folds; give from 3 to 30, the number of patients"):
            deal_folds(films, count)


@pytest.mark.filterwarnings("ignore:.*one class only")
def test_a_patient_of_whom_nothing_is_known_is_not_drawn(north):
    table, first = north.table.copy(), label_budget(north, 0.01).split("train").table["patient_id"][0]
    table.loc[table["patient_id"] == first, list(north.labels)] = np.nan
    again = label_budget(replace(north, table=table), 0.01).split("train")
    assert again.table["patient_id"][0] != first and again.targets()[1].any()


def test_cross_domain_scores_are_those_of_a_saved_adapter(north, south, vit, tmp_path, cache, capsys, named, two_sites):
    settings = MethodSettings([vit], AdapterConfig(queries=2, width=32), FocalSampler(0.6, 0.0, 1), TrainConfig(epochs=1))
    result = adapt(north, settings, tmp_path, FeatureCache(cache, progress=False), tests=[south, north])
    away, home = result.tested
    assert away.target.test.name == "south" and result.model.labels == ("Effusion", "Mass")
    assert set(away.scores) == {"zero-shot", *PROBES, "MedBridge"}
    assert all(p.shape == (16, 2) for p in away.scores.values())
    # the films of north and south are the same pictures: so are the scores, if columns and films are matched
    for method in away.scores:
        np.testing.assert_allclose(away.scores[method], home.scores[method], atol=1e-6)
    assert away.evaluations["MedBridge"].macro["auc"] == pytest.approx(home.evaluations["MedBridge"].macro["auc"])
    assert _run("evaluate", "--adapter", tmp_path, "--test", f"folder={two_sites / 'south'}", "--cache", cache, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told[0]["macro"]["auc"] == pytest.approx(away.evaluations["MedBridge"].macro["auc"], abs=1e-6)
    assert told[0]["shared_labels"][1] == {"finding": "Mass", "train": "Mass", "test": "Lung Mass"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["target"] == "south" and metrics["further_targets"][0]["in_domain"] is True


@pytest.mark.filterwarnings("ignore:.*one class only")
def test_adapt_trains_on_one_and_prints_every_target(named, two_sites, tmp_path, cache, capsys, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_DATA", str(tmp_path))
    (tmp_path / "folder").symlink_to(two_sites / "north")
    out = tmp_path / "run"
    south = f"folder={two_sites / 'south'}"
    assert _run("adapt", "--train", "FOLDER", "--test", south, "--test", "folder", "--expert", "small-vit",
                "--label-fraction", "0.01", "--out", out, "--cache", cache, *SETTINGS) == 0
    printed = capsys.readouterr().out
    assert "south, test split" in printed and "north, test split" in printed
    assert "2 of the source's 2 labels are shared (source = target): Effusion = Pleural Effusion, Mass = Lung Mass" in printed
    assert printed.count("paired on the same films") == 2
    assert json.loads((out / "metrics.json").read_text())["films"] == {"train": 2, "val": 2, "test": 16}
    assert load_adapter(out).labels == ("Effusion", "Mass")
    assert "south" in (out / "report.html").read_text()


@pytest.mark.parametrize(("command", "message"), [
    (["adapt", "--expert", "small-vit"], "name the source once"),
    (["adapt", "--train", "phantom", "--benchmark", "folder", "--expert", "small-vit"], "name the source once"),
    (["adapt", "--train", "folder={south}", "--root", "{south}", "--expert", "small-vit"], "name the source once"),
    (["adapt", "--train", "folder={south}", "--test", "folder={alien}", "--expert", "small-vit"], "no shared label"),
    (["adapt", "--train", "folder={south}", "--label-fraction", "2", "--expert", "small-vit"], "fraction"),
    (["evaluate", "--adapter", "none"], "name what to score"),
])
def test_errors_come_before_training(named, two_sites, tmp_path, capsys, monkeypatch, command, message):
    monkeypatch.setattr("medbridge.features.cache.FeatureCache.films", lambda *a, **k: pytest.fail("films were read"))
    alien = tmp_path / "alien"
    alien.mkdir()
    (alien / "images").symlink_to(two_sites / "south" / "images")
    text = (two_sites / "south" / "labels.csv").read_text()
    (alien / "labels.csv").write_text(text.replace("Hernia", "a").replace("Lung Mass", "b").replace("Pleural Effusion", "c"))
    command = [part.format(south=two_sites / "south", alien=alien) for part in command]
    assert _run(*command, *(["--out", tmp_path / "x"] if command[0] == "adapt" else [])) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and not (tmp_path / "x").exists()


def test_loader_options_reach_the_benchmark_they_name():
    pairs = ["uncertain=ones", "NIH:val_share=0.2", "chexpert:views=['PA']"]
    assert parse_options(pairs, "nih") == {"uncertain": "ones", "val_share": 0.2}
    assert parse_options(pairs, "CheXpert") == {"uncertain": "ones", "views": ["PA"]}
    for wrong in ("uncertain", ":uncertain=ones", "nih:=1"):
        with pytest.raises(BenchmarkError, match=r"write NAME=VALUE or BENCHMARK:NAME=VALUE"):
            parse_options([wrong], "nih")


def test_a_wrong_loader_option_is_named_before_training(named, capsys, tmp_path):
    command = ("adapt", "--train", "phantom-A", "--option", "phantom-A:films=3", "--expert", "small-vit", "--out", tmp_path / "x")
    assert cli.main([str(word) for word in command]) == 2
    assert "phantom-A" in capsys.readouterr().err and not (tmp_path / "x").exists()
