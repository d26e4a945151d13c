"""Published results: every number has an address, labels are the benchmark's own, and they never stand among measured rows."""

import numpy as np
import pandas as pd
import pytest
import yaml

from medbridge.cli import main
from medbridge.data import label_names, list_benchmarks
from medbridge.data.labels import canonical
from medbridge.errors import BenchmarkError
from medbridge.studies.leaderboard import Leaderboard
from medbridge.studies.published import (
    _FILE,
    HEADING,
    published_benchmarks,
    published_markdown,
    published_results,
    published_table,
)


def test_every_number_has_an_address_and_a_stated_difference():
    for entry in yaml.safe_load(_FILE.read_text()):
        assert set(entry) - {"auc"} == {"benchmarks", "method", "citation", "source", "seen", "difference"}, entry["method"]
        assert all(isinstance(value, float) for value in entry.get("auc", {}).values()), entry["method"]
    for _, r in published_results().iterrows():
        assert "https://" in r["source"] and r["citation"] and r["protocol difference"], r["method"]
        shown = "no table" not in r["seen"]
        assert np.isfinite(r["auc"]) == shown, f"{r['method']}: numbers without a page that shows them, or the reverse"
        assert all(0.5 < value < 1 for value in r["per_label"].values())


def test_names_are_the_benchmarks_own():
    assert set(published_benchmarks()) <= set(list_benchmarks())
    names = label_names()
    for r in published_results().itertuples():
        assert set(r.per_label) <= set(names[r.benchmark]), r.method
        assert all(canonical(label) for label in r.per_label)


def test_a_stated_mean_is_that_of_its_labels():
    """CheXNet's mean and its labels were read on one page: a slip of the pen in either would show."""
    chexnet = published_results("nih").set_index("method").loc["CheXNet"]
    per_label = chexnet["per_label"]
    assert chexnet["mean_of"] == "stated" and len(per_label) == 14
    assert np.mean(list(per_label.values())) == pytest.approx(chexnet["auc"], abs=5e-4)


def test_the_table():
    table = published_table("NIH", labels=True).set_index("method")
    chexnet = table.loc["CheXNet", ["auc", "mean_of", "Effusion", "Pleural Thickening"]]
    assert chexnet.tolist() == [0.841, "stated", 0.8638, 0.8062]
    assert table.loc["Yao et al.", "mean_of"] == "14 labels" and table.loc["Yao et al.", "auc"] == pytest.approx(0.803, abs=5e-4)
    ours = table.loc["MedBridge, as its authors report it"]
    assert np.isnan(ours["auc"]) and ours["mean_of"] == "not seen"
    assert table["auc"].notna().tolist() == sorted(table["auc"].notna(), reverse=True), "entries without numbers come last"
    assert set(published_table()["benchmark"]) == set(published_benchmarks())


def test_unknown_benchmarks():
    with pytest.raises(BenchmarkError, match=r"did you mean 'chexpert'\? Listed: nih"):
        published_results("chexpertt")


def _board(benchmark):
    row = {"method": "linear probe", "auc": 0.7, "lo": 0.6, "hi": 0.8, "seed_sd": np.nan, "parameters": 3, "seconds": 1.0,
           "experts": "e", "ours_minus": np.nan, "ours_lo": np.nan, "ours_hi": np.nan}
    labels = pd.DataFrame([{"method": "linear probe", "test": benchmark, "label": "Mass", "auc": 0.7}])
    return Leaderboard(pd.DataFrame([row]), labels, {}, "caption").markdown()


def test_a_leaderboard_keeps_them_apart():
    measured, _, context = _board("nih").partition(f"## {HEADING}")
    assert "linear probe" in measured and "CheXNet" not in measured
    assert "CheXNet" in context and "linear probe" not in context and "not comparable line by line" in context
    assert "chexpert" not in context
    assert HEADING not in _board("PhantomCXR (synthetic)") and _board("nih").endswith("\n")
    header, rule, *rows = [line for line in published_markdown("chexpert").splitlines() if line.startswith("|")]
    assert {line.count("|") for line in (header, rule, *rows)} == {9}
    assert "| source |" in header and "protocol difference |" in header


def test_the_command(capsys):
    assert main(["published", "--benchmark", "CheXpert", "--labels"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(HEADING) and "AUC 0.930 (stated)" in told and "CheXzero: numbers not seen" in told
    assert "Pleural Effusion 0.9166" in told and "nih" not in told
    assert main(["published", "--csv"]) == 0 and "Effusion" in capsys.readouterr().out.splitlines()[0]
    assert main(["published", "--benchmark", "phantom"]) == 2 and "nothing published is listed" in capsys.readouterr().err
