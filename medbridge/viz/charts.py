"""Charts of plain numbers, for any notebook: curves, bars, and points with their intervals; every one returns a Figure."""

from collections.abc import Mapping
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medbridge.viz.drawing import COLOURS, bars, chart, errors, panels


def _finish(ax: Axes, level: Mapping[str, float] | None, axis: Mapping[str, Any], groups: int, across: bool = True) -> None:
    """Dashed lines at the levels, what ``Axes.set`` takes, and a legend where there is something to tell apart."""
    for name, value in (level or {}).items():
        (ax.axhline if across else ax.axvline)(value, color="0.4", linestyle="--", linewidth=0.9, label=name or None)
    ax.set(**axis)
    if groups > 1 or any(level or {}):
        # points lie in rows from edge to edge: no corner is free
        (ax.legend if across else partial(ax.figure.legend, loc="outside lower center", ncols=3))(frameon=False, fontsize=8)


def curves(lines: Mapping[str, Mapping], title: str | None = None, size: tuple[float, float] = (4.6, 3.0), marker: str = "",
           level: Mapping[str, float] | None = None, **axis: Any) -> Figure:
    """One panel per key, its title; in it one curve per name: an ``(x, y)`` pair, or a Series over its index.

    ``size`` is of a panel, in inches; ``level``: name -> height of a dashed line; ``axis`` is what ``Axes.set`` takes.
    """
    fig, axes = panels(len(lines), min(3, len(lines)), size, title)
    for ax, (text, named) in zip(axes, lines.items(), strict=False):
        for i, (name, line) in enumerate(named.items()):
            x, y = (line.index, line) if isinstance(line, pd.Series) else line
            ax.plot(x, y, ("-", "--", "-.", ":")[i % 4], color=COLOURS[i % 10], marker=marker, label=name)
        _finish(ax, level, {"title": text, **axis}, len(named))
    return fig


def bar_chart(table: pd.DataFrame, title: str | None = None, stacked: bool = False, width: float = 5.0,
              level: Mapping[str, float] | None = None, **axis: Any) -> Figure:
    """Bars over each row of ``table``, one per column, beside each other or ``stacked``; ``width`` in inches."""
    fig, ax = chart(width, 3.2, title)
    below = table.cumsum(axis=1) - table if stacked else 0 * table
    looks = {name: {"hatch": hatch, "edgecolor": "white", "bottom": below[name]}
             for name, hatch in zip(table, cycle(("", "//", "..", "xx")), strict=False)}
    bars(ax, dict(table.items()), list(table.index), looks, stacked)
    _finish(ax, level, axis, table.shape[1])
    return fig


def points(groups: Mapping[str, pd.DataFrame], title: str | None = None, level: Mapping[str, float] | None = None,
           **axis: Any) -> Figure:
    """One row per name, from top to bottom, one point per group with its interval: columns value, lo and hi of each table."""
    names = list(next(iter(groups.values())).index)
    fig, ax = chart(7.0, 1.2 + 0.3 * len(names), title)
    for i, (group, table) in enumerate(groups.items()):
        value, lo, hi = table.iloc[:, :3].to_numpy(float).T
        at = np.arange(len(names)) + 0.22 * (i - (len(groups) - 1) / 2)
        ax.errorbar(value, at, xerr=errors(value, lo, hi), fmt="oDs^"[i % 4], color=COLOURS[i % 10], label=group)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    _finish(ax, level, axis, len(groups), across=False)
    return fig
