"""The leaderboard: what it writes is what was measured, finished work is not done again, and other settings are refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from medbridge.baselines.method import MedBridgeMethod
from medbridge.cli import main
from medbridge.data import load_benchmark
from medbridge.errors import BenchmarkError, ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import auc, evaluate, paired_difference
from medbridge.model import AdapterConfig
from medbridge.studies.cells import Cell, MethodSettings
from medbridge.studies.leaderboard import run_leaderboard
from medbridge.train import TrainConfig

METHODS = ["zero-shot", "linear-probe", "coop", "MaPLe", "MedBridge"]


@pytest.fixture(scope="module")
def settings(squares, resnet, tmp_path_factory):
    adapter = AdapterConfig(queries=2, query_layers=1, width=16, heads=2)
    how = MethodSettings([resnet], adapter, FocalSampler(0.9, 0.0, 1), TrainConfig(epochs=2), views="all", tries=2)
    return {"benchmark": squares, "settings": how, "methods": METHODS, "seeds": (0, 1), "n_boot": 50,
            "cache": FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)}


@pytest.fixture(scope="module")
def board(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("board")
    return out, run_leaderboard(out=out, **settings)


def _scores(out, method):
    """Kept test scores of each run of a method."""
    return [np.load(path)["scores"] for path in sorted(out.glob(f"cells/{method}-*/scores-*.npz"))]


def test_the_table_is_what_the_kept_scores_say(board, squares):
    out, result = board
    y, mask = squares.split("test").targets()
    table = result.table.set_index("method")
    runs = _scores(out, "CoOp")
    each = [auc(y, p, mask).mean() for p in runs]
    assert table.loc["CoOp", "auc"] == pytest.approx(np.mean(each))
    assert table.loc["CoOp", "seed_sd"] == pytest.approx(np.std(each, ddof=1)) and table.loc["CoOp", "seeds"] == 2
    one = evaluate(y, *_scores(out, "linear-probe"), mask, squares.split("test").table["patient_id"], n_boot=50)
    probe = table.loc["linear probe"]
    assert [probe["auc"], probe["lo"], probe["hi"]] == pytest.approx([one.macro[k] for k in ("auc", "lo", "hi")])
    assert probe["ours_minus"] == pytest.approx(table.loc["MedBridge", "auc"] - probe["auc"])
    assert table.loc["zero-shot", ["seeds", "parameters"]].tolist() == [1, 0] and np.isnan(table.loc["MedBridge", "ours_minus"])
    assert result.table["auc"].is_monotonic_decreasing and (table["seconds"] > 0).all()


def test_labels_are_told_apart_and_make_the_mean(board, squares):
    out, result = board
    y, mask = squares.split("test").targets()
    coop = result.labels[result.labels["method"] == "CoOp"].set_index("label")
    runs = _scores(out, "CoOp")
    assert coop["auc"].loc[["bright", "wide"]].tolist() == pytest.approx(np.mean([auc(y, p, mask) for p in runs], axis=0))
    means = result.labels.groupby("method")["auc"].mean()
    table = result.table.set_index("method")["auc"]
    assert means.loc[table.index].tolist() == pytest.approx(table.tolist())
    ours = _scores(out, "MedBridge")
    d = paired_difference(y, ours, runs, mask, squares.split("test").table["patient_id"], n_boot=50, labels=squares.labels)
    assert coop.loc["wide", ["ours_minus", "ours_lo", "ours_hi"]].tolist() == pytest.approx(
        d.per_label.set_index("label").loc["wide", ["diff", "lo", "hi"]].tolist())
    row = result.table.set_index("method").loc["CoOp", ["ours_minus", "ours_lo", "ours_hi"]]
    assert row.tolist() == pytest.approx([d.diff, d.lo, d.hi])


def test_other_benchmarks_are_scored_over_shared_labels_and_averaged(settings, two_sites, tmp_path):
    north, south = (load_benchmark("folder", two_sites / site) for site in ("north", "south"))
    few = settings | {"benchmark": north, "methods": ["linear-probe", "zero-shot"],
                      "cache": FeatureCache(tmp_path / "cache", progress=False)}
    result = run_leaderboard(out=tmp_path / "out", tests=[north, south], **few)
    labels = result.labels[result.labels["method"] == "linear probe"]
    assert labels.groupby("test").size().tolist() == [2, 2]
    means = labels.groupby("test")["auc"].mean()
    assert result.table.set_index("method").loc["linear probe", "auc"] == pytest.approx(means.mean())
    assert f"{south.name}: 16 test films" in result.caption
    with pytest.raises(BenchmarkError, match="differs in: tests"):
        run_leaderboard(out=tmp_path / "out", tests=[north], **few)


def test_folds_test_every_film_once_and_average_what_each_fold_says(settings, squares, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "cache", progress=False)
    few = settings | {"methods": ["zero-shot", "linear-probe", "MedBridge"], "folds": 3, "cache": cache}
    result = run_leaderboard(out=tmp_path / "out", **few)
    scored = {}
    for path in (tmp_path / "out").glob("cells/MedBridge-seed*/scores-*.npz"):
        with np.load(path) as saved:
            scored.setdefault(path.parent.name.split("-")[1], []).append((saved["images"].tolist(), saved["scores"]))
    table = squares.table.set_index("image")
    each = []
    for parts in scored.values():
        assert sorted(image for images, _ in parts for image in images) == squares.image_ids()
        each.append(np.mean([auc(table.loc[images, ["bright", "wide"]].to_numpy(), p) for images, p in parts], axis=0))
    ours = result.labels[result.labels["method"] == "MedBridge"].set_index("label")["auc"]
    assert ours[["bright", "wide"]].tolist() == pytest.approx(np.mean(each, axis=0))
    row, probe = (result.table.set_index("method").loc[name] for name in ("MedBridge", "linear probe"))
    assert (row["auc"], row["seeds"]) == (pytest.approx(np.mean(each)), 2)
    assert row["seed_sd"] == pytest.approx(np.std(np.mean(each, axis=1), ddof=1))
    assert probe["ours_minus"] == pytest.approx(row["auc"] - probe["auc"])
    assert probe["ours_lo"] <= probe["ours_minus"] <= probe["ours_hi"]
    assert "60 test films of 30 patients in 3 folds, each scored by models of 1 others" in result.caption
    kept = [len(load_file(path)["keys"]) for path in cache.folder.rglob("*.safetensors") if path.parent.name != "bases"]
    assert len(list((cache.folder / "bases").iterdir())) == 1 and sum(kept) <= 120  # a film alone, and with its random windows
    monkeypatch.setattr(MedBridgeMethod, "fit", lambda *a: pytest.fail("MedBridge was trained again"))
    again = run_leaderboard(out=tmp_path / "out", **few)
    pd.testing.assert_frame_equal(again.table, result.table)
    with pytest.raises(BenchmarkError, match="differs in: films, tests"):
        run_leaderboard(out=tmp_path / "out", **few | {"folds": 4})
    with pytest.raises(ValueError, match="leave out the other benchmarks"):
        run_leaderboard(out=tmp_path / "out", tests=[squares], **few)


def test_the_files_say_the_same(board):
    out, result = board
    pd.testing.assert_frame_equal(pd.read_csv(out / "leaderboard.csv"), result.table)
    pd.testing.assert_frame_equal(pd.read_csv(out / "leaderboard_labels.csv"), result.labels)
    text = (out / "leaderboard.md").read_text()
    assert "squares (synthetic): 32 training films, 16 test films of 8 patients" in text and "2 settings tried" in text
    assert "MaPLe was not run: MaPLe needs an expert with CLIP's text transformer and a ViT" in text
    assert not [*out.rglob("*.part*"), *out.rglob("checkpoint.pt")]


def test_what_is_finished_is_not_done_again(board, settings, monkeypatch):
    out, result = board
    next(out.glob("cells/CoOp-seed1-*/scores-*.npz")).unlink()
    done = []
    real = Cell.create
    monkeypatch.setattr(Cell, "create", lambda self, *a, **k: done.append((self.method, self.seed)) or real(self, *a, **k))
    monkeypatch.setattr(MedBridgeMethod, "fit", lambda *a: pytest.fail("MedBridge was trained again"))
    again = run_leaderboard(out=out, **settings)
    assert ("CoOp", 1) in done and not {("CoOp", 0), ("linear probe", 0)} & set(done)
    pd.testing.assert_frame_equal(again.table.drop(columns="seconds"), result.table.drop(columns="seconds"))


def test_other_settings_and_unknown_methods_are_refused(board, settings):
    out, _ = board
    with pytest.raises(BenchmarkError, match=r"settings\.json: belongs to a run with other data or settings"):
        run_leaderboard(out=out, **settings | {"settings": replace(settings["settings"], config=TrainConfig(epochs=3))})
    thin = settings["benchmark"].subset(0.5, "train")
    with pytest.raises(BenchmarkError, match="other data or settings"):
        run_leaderboard(out=out, **settings | {"benchmark": thin})
    with pytest.raises(ValueError, match="unknown method 'bert'; known: zero-shot"):
        run_leaderboard(out=out, **settings | {"methods": ["bert"]})


def test_no_method_can_run(settings, tmp_path):
    with pytest.raises(ExpertError, match="MaPLe: MaPLe needs"):
        run_leaderboard(out=tmp_path, **settings | {"methods": ["maple"]})


def test_the_command(squares, tmp_path, capsys):
    part = squares.take([*range(8), *range(32, 38), *range(44, 52)])
    root = tmp_path / "films"
    (root / "images").mkdir(parents=True)
    for path, name in zip(part.paths(), part.image_ids(), strict=True):
        (root / "images" / name).write_bytes(path.read_bytes())
    part.table.to_csv(root / "labels.csv", index=False)
    arguments = ["leaderboard", "--benchmark", "folder", "--root", str(root), "--expert", "tiny-resnet", "--method", "zero-shot",
                 "--method", "k-nn", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--views", "whole",
                 "--label-fraction", "0.5", "--tries", "1", "--workers", "0", "--width", "64"]
    assert main(arguments) == 0
    told, error = capsys.readouterr()
    assert "warning: " in error and "1 of 2 labels have one class only" in error
    assert "| k-NN |" in told and "leaderboard_labels.csv are in" in told and "4 training films, 8 test films" in told
    assert (tmp_path / "out" / "leaderboard.png").read_bytes()[:4] == b"\x89PNG"
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["tries"] == 1 and settings["adapter"]["width"] == 64
    with pytest.raises(SystemExit):
        main([*arguments, "--seeds", "0"])
    assert "argument --seeds: '0': write at least 1" in capsys.readouterr().err
