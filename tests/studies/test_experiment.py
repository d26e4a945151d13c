"""A grid from a YAML file: what it refuses, that nothing is done twice, and that its numbers are those of plain calls."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread

from medbridge import cli, load_benchmark
from medbridge.adapter import load_adapter
from medbridge.baselines import _METHODS
from medbridge.baselines.method import MedBridgeMethod, Method
from medbridge.data.tasks import label_budget
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.features.cache import FeatureCache
from medbridge.metrics.evaluate import paired_difference
from medbridge.model import MedBridge
from medbridge.studies.adapt import adapt
from medbridge.studies.cells import PROBE, MethodSettings
from medbridge.studies.experiment import run_experiment
from medbridge.studies.experiment_file import parse_experiment
from medbridge.viz import studies as figures

pytestmark = pytest.mark.filterwarnings("ignore:.*one class only")


@pytest.fixture(scope="module")
def given(two_sites):
    return {
        "name": "small grid", "experts": ["small-vit"], "n_boot": 40, "seeds": [0, 1], "label_fractions": [1.0, 0.2],
        "benchmarks": {site: {"benchmark": "folder", "root": str(two_sites / site)} for site in ("north", "south")},
        "adapter": {"queries": 2, "width": 16}, "train": {"epochs": 1}, "sampler": {"crop": 0.6, "overlap": 0, "extra": 1},
        "tasks": [
            {"name": "across", "kind": "cross-domain", "train": ["north"], "test": ["south"]},
            {"name": "within", "kind": "multi-label", "train": ["north"]},
            {"name": "one", "kind": "binary", "train": ["south"], "label": "Effusion", "label_fractions": [1.0]},
        ],
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture(scope="module")
def whole(given, vit, cache, tmp_path_factory):
    """The grid, run once, uninterrupted."""
    out = tmp_path_factory.mktemp("whole")
    return out, run_experiment(parse_experiment(given), out, cache, [vit])


def test_every_place_of_the_grid_is_a_row(whole):
    out, found = whole
    # cells: MedBridge 2 fractions x 2 seeds + binary 2; probe 2 at 20 % + 1 at 100 % + binary 1; zero-shot 1 + binary 1
    assert (found.trained, found.cells) == (12, 12)
    table = pd.read_parquet(out / "results.parquet")
    pd.testing.assert_frame_equal(table, found.results)
    assert len(pd.read_csv(out / "results.csv")) == len(table) == 2 * 2 * 2 * 3 * 3 + 2 * 3 * 2
    assert set(table["label"]) == {"mean", "Effusion", "Mass"} and set(table["test"]) == {"north", "south"}
    assert set(table["method"]) == {"zero-shot", "linear probe", "MedBridge"}
    row = table[(table["task"] == "across") & (table["label"] == "Mass") & (table["label_fraction"] == 0.2)].iloc[0]
    assert (row["train"], row["test"], row["in_domain"], row["n"], row["patients"]) == ("north", "south", False, 16, 8)
    assert row["train_patients"] == 3 and row["train_films"] == 6 and 0 <= row["train_positives"] <= 6
    # a shared cell does not pass its budget on to the rows that share it
    zero = table[(table["method"] == "zero-shot") & (table["task"] == "within") & (table["label"] == "mean")]
    assert set(zip(zero["label_fraction"], zero["train_patients"], strict=True)) == {(0.2, 3), (1.0, 16)}
    assert zero["auc"].nunique() == 1


def test_across_and_within_share_one_training_run(whole):
    out, _ = whole
    told = [json.loads(path.read_text()) for path in out.glob("cells/*/cell.json")]
    assert len(told) == 12 and sum(t["method"] == "MedBridge" and t["source"] == "north" for t in told) == 4
    folder = next(p.parent for p in out.glob("cells/*/cell.json") if json.loads(p.read_text())["method"] == "MedBridge"
                  and json.loads(p.read_text())["source"] == "north")
    assert len(list(folder.glob("scores-*.npz"))) == 2 and not (folder / "checkpoint.pt").exists()


def test_the_grid_says_what_plain_adapt_says(whole, given, two_sites, vit, cache, tmp_path):
    north, south = (load_benchmark("folder", two_sites / site) for site in ("north", "south"))
    wanted = parse_experiment(given)
    settings = MethodSettings([vit], wanted.adapter, wanted.sampler, replace(wanted.train, seed=1))
    plain = adapt(label_budget(north, 0.2, 1), settings, tmp_path, cache, [south]).tested[0]
    table = whole[1].results
    here = table[(table["task"] == "across") & (table["label_fraction"] == 0.2) & (table["seed"] == 1)]
    for method in ("zero-shot", "linear probe", "MedBridge"):  # the grid's baselines see all views
        evaluation = plain.evaluations[PROBE if method == "linear probe" else method]
        rows = here[here["method"] == method].set_index("label")
        assert rows.loc["mean", "auc"] == pytest.approx(evaluation.macro["auc"], abs=1e-12)
        np.testing.assert_allclose(rows.loc[["Effusion", "Mass"], "auc"], evaluation.per_label["auc"], atol=1e-12)


def test_averages_and_differences_are_over_the_seeds(whole, two_sites):
    _, found = whole
    mean, each = found.averages, found.results
    at = (each["task"] == "within") & (each["label"] == "Mass") & (each["label_fraction"] == 1) & (each["method"] == "MedBridge")
    row = mean[(mean["task"] == "within") & (mean["label"] == "Mass") & (mean["label_fraction"] == 1)
               & (mean["method"] == "MedBridge")].iloc[0]
    assert row["auc"] == pytest.approx(each[at]["auc"].mean()) and row["seeds"] == 2
    assert (row["auc_min"], row["auc_max"]) == (each[at]["auc"].min(), each[at]["auc"].max()) and row["lo"] <= row["hi"]
    # the paired difference by hand, from the scores on disk
    experiment_scores = {}
    for folder in (whole[0] / "cells").iterdir():
        told = json.loads((folder / "cell.json").read_text())
        if told["source"] == "south":
            experiment_scores.setdefault(told["method"], []).append((told["seed"], next(folder.glob("scores-*.npz"))))
    runs = {m: [np.load(path)["scores"] for _, path in sorted(found)] for m, found in experiment_scores.items()}
    test = load_benchmark("folder", two_sites / "south").select(["Pleural Effusion"]).split("test")
    y, mask = test.targets()
    want = paired_difference(y, runs["MedBridge"], runs["linear probe"], mask, test.table["patient_id"], n_boot=80)
    d = found.differences
    got = d[(d["task"] == "one") & (d["baseline"] == "linear probe") & (d["label"] == "mean")].iloc[0]
    assert (got["diff"], got["lo"], got["hi"]) == pytest.approx((want.diff, want.lo, want.hi))
    assert got["holds_zero"] == (want.lo <= 0 <= want.hi) and got["p_value"] == pytest.approx(want.p_value)


def test_an_interrupted_grid_trains_nothing_twice(whole, given, vit, cache, tmp_path, monkeypatch):
    plain, fitted = MedBridgeMethod.fit, []

    def stop_before_the_second(self, *films):
        if len(fitted) == 1:
            fitted.append(None)
            raise KeyboardInterrupt
        fitted.append(self.out.name)
        return plain(self, *films)

    monkeypatch.setattr(MedBridgeMethod, "fit", stop_before_the_second)
    small = copy.deepcopy(given) | {"seeds": [1], "label_fractions": [0.2]}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    again = run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    trained = [name for name in fitted if name]
    assert len(trained) == len(set(trained)) == 2
    assert again.cells == 6 and again.trained == 1  # the cells before the interrupted one were not touched
    want = whole[1].results.query("seed == 1 and (label_fraction == 0.2 or task == 'one')")
    pd.testing.assert_frame_equal(again.results, want.reset_index(drop=True))
    # finished: not even a film is read, nor for a target that another task has had; a new seed trains its own run alone
    monkeypatch.setattr(FeatureCache, "films", lambda *a, **k: pytest.fail("films were read"))
    assert run_experiment(parse_experiment(small), tmp_path, cache, [vit]).trained == 0
    wider = copy.deepcopy(small)
    wider["tasks"] = [{"name": "across", "kind": "cross-domain", "train": ["north"], "test": ["south", "north"]}]
    assert run_experiment(parse_experiment(wider), tmp_path, cache, [vit]).trained == 0
    monkeypatch.undo()
    more = copy.deepcopy(small) | {"seeds": [1, 2], "tasks": given["tasks"][2:]}
    assert run_experiment(parse_experiment(more), tmp_path, cache, [vit]).trained == 1


def test_a_new_target_is_scored_by_the_saved_adapter(given, vit, cache, tmp_path, monkeypatch):
    small = copy.deepcopy(given) | {"seeds": [0], "label_fractions": [0.2], "methods": ["medbridge"]}
    small["tasks"] = given["tasks"][1:2]
    assert run_experiment(parse_experiment(small), tmp_path, cache, [vit]).cells == 1
    monkeypatch.setattr(MedBridgeMethod, "fit", lambda *a: pytest.fail("trained again"))
    small["tasks"] = given["tasks"][:2]
    found = run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    assert found.trained == 1 and set(found.results["test"]) == {"north", "south"} and len(found.differences) == 0
    scores = next(tmp_path.glob("cells/*/scores-*.npz"))
    scores.write_bytes(scores.read_bytes()[:50])
    with pytest.raises(AdapterError, match="delete the file"):
        run_experiment(parse_experiment(small), tmp_path, cache, [vit])


def test_an_interrupted_training_run_goes_on_from_its_checkpoint(given, vit, cache, tmp_path, monkeypatch):
    from medbridge import train

    small = copy.deepcopy(given) | {"seeds": [0], "methods": ["MedBridge"], "tasks": given["tasks"][2:], "train": {"epochs": 2}}
    plain, epochs = train.Loop._epoch, []

    def stop(self, epoch):
        epochs.append(epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return plain(self, epoch)

    monkeypatch.setattr(train.Loop, "_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    assert epochs == [0, 1, 1]
    assert isinstance(load_adapter(next(tmp_path.glob("cells/*")), [vit]), MedBridge)


def test_the_baselines_see_the_whole_film_where_the_file_says_so(whole, given, vit, cache, tmp_path):
    small = copy.deepcopy(given) | {"views": "whole", "seeds": [0], "methods": ["linear probe", "MedBridge"],
                                    "tasks": given["tasks"][2:]}
    found = run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    assert found.notes == ["the baselines see the whole film only, MedBridge all of its views (views: whole)"] != whole[1].notes
    same = {cell.name.split("-")[0]: (whole[0] / "cells" / cell.name).exists() for cell in (tmp_path / "cells").iterdir()}
    assert same == {"linear": False, "MedBridge": True}  # MedBridge sees what it saw


def test_another_baseline_is_one_entry(given, vit, cache, tmp_path, monkeypatch):
    class Prevalence(Method):
        name, seeded, trainable_parameters = "prevalence", False, 0

        def __init__(self, experts, labels, **options):
            pass

        def fit(self, train, val):
            self.share = train.benchmark.targets()[0].mean(axis=0)
            return self

        def predict_proba(self, films):
            return np.tile(self.share, (len(films), 1))

    monkeypatch.setitem(_METHODS, "prevalence", Prevalence)
    small = copy.deepcopy(given) | {"seeds": [0], "methods": ["Prevalence"], "tasks": given["tasks"][2:]}
    found = run_experiment(parse_experiment(small), tmp_path, cache, [vit])
    assert set(found.results["method"]) == {"prevalence"} and (found.results["auc"] == 0.5).all()


def test_pictures_show_the_numbers(whole, tmp_path):
    table = whole[1].averages
    curves = figures.budget_curves(table, "within")
    line = next(c for c in curves.axes[0].containers if c.get_label() == "MedBridge")
    rows = table[(table["task"] == "within") & (table["label"] == "mean") & (table["method"] == "MedBridge")]
    np.testing.assert_allclose(sorted(line.lines[0].get_ydata()), sorted(rows["auc"]))
    assert [t.get_text() for t in curves.axes[0].get_xticklabels()] == ["20 %", "100 %"]
    matrix = figures.domain_matrix(table, "across")
    cell = table[(table["task"] == "across") & (table["label"] == "mean") & (table["method"] == "MedBridge")
                 & (table["label_fraction"] == 1)].iloc[0]
    assert matrix.axes[1].texts[0].get_text() == f"{cell['auc']:.2f}\n[{cell['lo']:.2f}, {cell['hi']:.2f}]"
    # north is no target of this task, so its diagonal is not shown; synthetic films are marked
    assert len(matrix.axes[0].texts) == 1 and "SYNTHETIC" not in matrix.get_suptitle()
    marked = figures.domain_matrix(table.assign(synthetic=True), "across")
    assert "SYNTHETIC" in marked.get_suptitle()
    paths = figures.write_figures(table, tmp_path)
    assert sorted(p.name for p in paths) == ["budget-across.png", "budget-one.png", "budget-within.png", "matrix-across.png"]
    assert all(imread(p).std() > 0.05 for p in paths)


def test_the_command(given, vit, cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("medbridge.studies.experiment.create_expert", lambda name, **_: vit)
    small = copy.deepcopy(given) | {"seeds": [0], "tasks": given["tasks"][2:],
                                    "methods": ["zero-shot", "linear probe", "CLIP-Adapter", "MedBridge"]}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small))
    assert cli.main(["experiment", str(path), "--out", str(tmp_path / "out"), "--cache", str(cache.folder)]) == 0
    printed = capsys.readouterr().out
    assert "4 of 4 runs were made now" in printed and "MedBridge - CLIP-Adapter" in printed
    assert "MedBridge - linear probe" in printed and "not for clinical use" in printed
    tables = [f"{name}.{suffix}" for name in ("results", "averages", "differences") for suffix in ("csv", "parquet")]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"cells", "figures", *tables}
    assert cli.main(["experiment", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read" in capsys.readouterr().err


def test_what_the_benchmarks_lack_is_found_before_training(given, vit, tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureCache, "films", lambda *a, **k: pytest.fail("films were read"))
    faulty = copy.deepcopy(given)
    faulty["tasks"][2]["label"] = "Pneumothorax"
    with pytest.raises(BenchmarkError, match="has no label 'Pneumothorax'"):
        run_experiment(parse_experiment(faulty), tmp_path, experts=[vit])
