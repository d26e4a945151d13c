"""Curves, bars and points stand where their numbers say."""

import numpy as np
import pandas as pd

from medbridge.viz import charts, plots


def test_curves_take_pairs_and_series_and_mark_their_levels():
    lines = {"a": {"pair": ([1, 2], [3, 4]), "series": pd.Series([5, 6], [7, 8])}, "b": {"one": ([0, 1], [0, 1])}}
    figure = charts.curves(lines, xlabel="x", ylim=(0, 9), level={"chance": 0.5})
    left, right = figure.axes
    assert [line.get_ydata()[0] for line in left.lines] == [3, 5, 0.5] and left.lines[1].get_xdata().tolist() == [7, 8]
    assert [t.get_text() for t in left.get_legend().texts] == ["pair", "series", "chance"]
    assert (left.get_title(), right.get_title(), right.get_xlabel(), right.get_ylim()) == ("a", "b", "x", (0, 9))


def test_bars_stand_beside_or_on_each_other():
    table = pd.DataFrame({"one": [1.0, 2], "two": [3.0, 4]}, ["x", "y"])
    beside, stacked = (charts.bar_chart(table, stacked=s, ylabel="films").axes[0] for s in (False, True))
    assert [b.get_height() for b in beside.patches] == [b.get_height() for b in stacked.patches] == [1, 2, 3, 4]
    assert [b.get_y() for b in beside.patches] == [0] * 4 and [b.get_y() for b in stacked.patches] == [0, 0, 1, 2]
    assert beside.patches[0].get_x() < beside.patches[2].get_x() and stacked.patches[0].get_x() == stacked.patches[2].get_x()
    assert [t.get_text() for t in stacked.get_xticklabels()] == ["x", "y"]


def test_points_have_their_intervals_and_the_first_stands_on_top():
    table = pd.DataFrame({"diff": [0.1, 0.3], "lo": [0.0, 0.2], "hi": [0.4, 0.5]}, ["a", "b"])
    ax = charts.points({"only": table}, level={"": 0}, xlabel="difference").axes[0]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.1, 0.3])
    (first, second), = (c.get_segments() for c in ax.collections)
    np.testing.assert_allclose([first[:, 0], second[:, 0]], [[0, 0.4], [0.2, 0.5]])
    assert ax.yaxis_inverted() and ax.get_legend() is None


def test_maps_over_films_share_one_scale():
    grid = plots.film_grid([np.zeros((4, 6))] * 2, ["a", "b"], 2, heats=[np.eye(2), 5 * np.eye(2)])
    assert [ax.images[1].get_clim() for ax in grid.axes] == [(0, 5)] * 2
    assert [*grid.axes[0].images[1].get_extent()] == [0, 6, 4, 0]
    plain, covered = plots.film_grid([np.zeros((4, 6))] * 2, ["a", "b"], 2, heats=[None, np.eye(2)]).axes
    assert len(plain.images) == 1 and len(covered.images) == 2
