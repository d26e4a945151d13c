"""Decisions and probabilities beside AUC: the card itself, and what a run writes of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_curve

from medbridge.errors import MedBridgeError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.metrics.calibration import ece
from medbridge.metrics.evaluate import evaluate, json_safe
from medbridge.metrics.thresholds import Scorecard, f1_thresholds, make_scorecard
from medbridge.model import AdapterConfig
from medbridge.predict import predict
from medbridge.studies.adapt import adapt
from medbridge.studies.cells import PROBES, MethodSettings
from medbridge.train import TrainConfig
from medbridge.viz.report import write_report


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    y = (rng.random((200, 3)) < 0.3).astype(float)
    mask = rng.random((200, 3)) > 0.1
    y[:, 2] = 0  # one class alone
    return y, rng.random((200, 3)) * 0.7 + 0.3 * y, mask


def test_a_card_is_scikit_learns_numbers(drawn):
    y, p, mask = drawn
    thresholds = np.array([0.4, 0.6, np.nan])
    card = make_scorecard(evaluate(y, p, mask, labels=["a", "b", "c"], n_boot=0), y, p, thresholds, mask)
    table = card.per_label.set_index("label")
    for c, label in enumerate(("a", "b")):
        t, s = y[mask[:, c], c], p[mask[:, c], c]
        false, true, _ = roc_curve(t, s)
        want = [len(t), t.sum(), average_precision_score(t, s), true[false <= 1 - Scorecard.specificity].max(), thresholds[c],
                f1_score(t, s >= thresholds[c])]
        assert table.loc[label].tolist() == pytest.approx(want)
    assert table.loc["c", ["ap", "sensitivity", "threshold", "f1"]].isna().all()
    assert card.mean["f1"] == pytest.approx(table["f1"][:2].mean()) and card.mean["ap"] == pytest.approx(table["ap"][:2].mean())
    assert card.mean["brier"] == pytest.approx(brier_score_loss(y[mask], p[mask]))
    assert card.mean["ece"] == ece(y, p, mask)
    saved = json.loads(json.dumps(json_safe(card), allow_nan=False))
    assert saved["per_label"][2]["f1"] is None and saved["specificity"] == Scorecard.specificity


def test_a_card_refuses_logits(drawn):
    y, p, mask = drawn
    with pytest.raises(MedBridgeError, match="probabilities"):
        make_scorecard(evaluate(y, p, mask, n_boot=0), y, p + 1, np.full(3, 0.5), mask)


@pytest.fixture(scope="module")
def run(tmp_path_factory, squares, vit):
    """A run on films with sex and hospital; every film of this benchmark is of one view."""
    rng = np.random.default_rng(1)
    number = squares.table["patient_id"].str[1:].astype(int)
    table = squares.table.assign(sex=np.where(number % 2, "F", "M"), view="PA", hospital=rng.choice(["X", "Y"], 30)[number])
    out = tmp_path_factory.mktemp("run")
    settings = MethodSettings([vit], AdapterConfig(queries=2, width=32), FocalSampler(0.6, 0.0, 1), TrainConfig(epochs=2))
    result = adapt(replace(squares, table=table), settings, out, FeatureCache(out / "cache", progress=False))
    write_report(result, out / "report.html")
    return out, result


def test_thresholds_are_those_of_the_validation_films(run, squares):
    out, result = run
    cache = FeatureCache(out / "cache", progress=False)
    val, test = (predict(result.model, cache.of(result.model, squares.split(s)), progress=False).probabilities
                 for s in ("val", "test"))
    chosen = f1_thresholds(*_arrays(squares.split("val"), val))
    assert result.tested[0].scorecards["MedBridge"].per_label["threshold"].to_numpy() == pytest.approx(chosen)
    assert not np.allclose(chosen, f1_thresholds(*_arrays(squares.split("test"), test)))


def _arrays(part, scores):
    y, mask = part.targets()
    return y, scores, mask


def test_metrics_hold_the_cards_and_the_subgroups(run):
    out, result = run
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["scorecards"]) == set(metrics["test"]) == {"zero-shot", *PROBES, "MedBridge"}
    for name, card in metrics["scorecards"].items():
        assert card["mean"]["brier"] == pytest.approx(result.tested[0].scorecards[name].mean["brier"])
        assert card["mean"]["ap"] == pytest.approx(metrics["test"][name]["macro"]["ap"])
    # one view only: nothing to compare, so no row of it
    assert [(row["column"], row["group"]) for row in metrics["subgroups"]] == [
        ("sex", "F"), ("sex", "M"), ("hospital", "X"), ("hospital", "Y")]


def test_the_report_shows_them(run):
    out, result = run
    page = (out / "report.html").read_text()
    assert "average precision" in page and "sensitivity at 90 % specificity" in page and "reliability of each" in page
    for card in result.tested[0].scorecards.values():
        assert f"<td>{card.mean['brier']:.3f}</td><td>{card.mean['ece']:.3f}</td>" in "".join(page.split("\n"))
    first = result.tested[0].subgroups.iloc[0]
    assert f"<td>{first['films']}</td><td>{first['patients']}</td>" in "".join(page.split("\n"))
    assert "4 groups were looked at" in page


def test_without_columns_there_is_no_table_of_subgroups(squares, vit, tmp_path):
    settings = MethodSettings([vit], AdapterConfig(queries=2, width=32), FocalSampler(0.6, 0.0, 1), TrainConfig(epochs=1))
    result = adapt(squares, settings, tmp_path, FeatureCache(tmp_path / "cache", progress=False))
    assert result.tested[0].subgroups.empty
    assert "by subgroup" not in write_report(result, tmp_path / "report.html").read_text()
