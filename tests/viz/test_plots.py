"""Pictures show the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medbridge.metrics.evaluate import evaluate
from medbridge.viz import plots
from medbridge.viz.studies import leaderboard_plot


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=(80, 3)).astype(float)
    mask = rng.random((80, 3)) > 0.1
    scores = {"good": y + rng.normal(0, 0.5, y.shape), "chance": rng.random(y.shape)}
    return y, mask, scores


def test_auc_bars_are_as_high_as_the_auc(results):
    y, mask, scores = results
    evaluations = {name: evaluate(y, p, mask, labels=["a", "b", "c"], n_boot=50) for name, p in scores.items()}
    figure = plots.auc_bars(evaluations)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    want = [v for e in evaluations.values() for v in (e.macro["auc"], *e.per_label["auc"])]
    np.testing.assert_allclose(heights, want)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["mean", "a", "b", "c"]


def test_roc_curves_hold_the_auc(results):
    y, mask, scores = results
    figure = plots.roc_curves(y, scores, mask, ["a", "b", "c"])
    x, t = figure.axes[1].lines[1].get_data()
    assert np.trapezoid(t, x) == pytest.approx(evaluate(y, scores["good"], mask).per_label["auc"][1])


def test_router_weights_are_written_in_the_cells():
    weights = np.array([[[0.2, 1.0], [0.8, 0.0]], [[0.4, 1.0], [0.6, 0.0]]])
    figure = plots.router_weights(weights, ["x", "y"], ["a", "b"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.30\n± 0.10", "1.00\n± 0.00", "0.70\n± 0.10", "0.00\n± 0.00"]


def test_films_boxes_and_curves_draw():
    film = np.random.default_rng(0).random((30, 40))
    grid = plots.film_grid([film] * 3, ["a", "b", "c"], 2, [np.array([[1, 2, 11, 12]])] * 3, [["box"]] * 3)
    box = grid.axes[0].patches[0]
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (1, 2, 10, 10)
    rows = [{"epoch": i, "loss": 1 / (i + 1), "val_auc": 0.5 + i / 10} for i in range(3)]
    assert plots.training_curves(rows, 2).axes[0].lines[0].get_ydata().tolist() == [1, 1 / 2, 1 / 3]
    assert isinstance(plots.view_strip(np.zeros((3, 8, 8))), Figure)
    bars = plots.prevalence_bars({"A": [0.1, 0.2]}, ["x", "y"]).axes[0].patches
    assert [b.get_height() for b in bars] == pytest.approx([10, 20])


def test_the_leaderboard_is_in_its_order_with_its_intervals():
    table = pd.DataFrame({"method": ["MedBridge", "k-NN"], "auc": [0.8, 0.7], "lo": [0.75, 0.6], "hi": [0.85, 0.8],
                          "parameters": [1200, 0]})
    figure = leaderboard_plot(table, "films (synthetic)")
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["MedBridge (1,200)", "k-NN (0)"] and ax.yaxis_inverted()
    assert ax.lines[2].get_xdata().tolist() == [0.6, 0.8] and ax.lines[3].get_xdata()[0] == 0.7
    assert figure.get_suptitle() == "films (synthetic)"


def test_the_threshold_view_shows_its_operating_point(results):
    y, mask, scores = results
    known = mask[:, 0]
    figure = plots.threshold_view(y[known, 0], scores["good"][known, 0], 0.4, "films (synthetic)")
    told, truth = scores["good"][mask[:, 0], 0] >= 0.4, y[mask[:, 0], 0] == 1
    assert [t.get_text() for t in figure.axes[2].texts] == [
        str(int(n)) for n in ((told & truth).sum(), (~told & truth).sum(), (told & ~truth).sum(), (~told & ~truth).sum())]
    x, sensitivity = figure.axes[1].lines[2].get_data()
    assert x[0] == pytest.approx((told & ~truth).sum() / (~truth).sum()) and sensitivity[0] == pytest.approx(told[truth].mean())
    assert figure.get_suptitle() == "films (synthetic)"
