"""What the pictures share: colours, panels, films, boxes, bars, intervals and captions."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medbridge.data import Benchmark

COLOURS = sns.color_palette("colorblind")
_STYLE = {"axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}


def chart(width: float, height: float, title: str | None = None, mosaic: list | None = None, **grid: Any) -> tuple[Figure, Any]:
    """A figure of this size in inches and its axes: ``Figure.subplots(**grid)``, or ``subplot_mosaic`` where one is given."""
    fig = Figure(figsize=(width, height), layout="constrained")
    if title:
        fig.suptitle(title, fontsize=10)
    with rc_context(_STYLE):
        return fig, fig.subplots(**grid) if mosaic is None else fig.subplot_mosaic(mosaic, **grid)


def panels(count: int, columns: int, size: tuple[float, float], title: str | None = None, **grid: Any) -> tuple[Figure, list]:
    """``count`` panels of ``size`` inches each, row by row; what is left of the last row stays blank."""
    rows = -(-count // columns)
    fig, axes = chart(size[0] * columns, size[1] * rows, title, nrows=rows, ncols=columns, squeeze=False, **grid)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return fig, axes.ravel().tolist()


def png(fig: Figure, dpi: int) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def caption(fig: Figure, text: str, width: int) -> None:
    """A small text over the figure, at most ``width`` letters per line."""
    fig.suptitle("\n".join(textwrap.wrap(text, width)), fontsize=8)


def show_film(ax: Axes, film: np.ndarray, title: str = "", size: int = 8, **options: Any) -> None:
    """A film or view ``(H, W)`` in [0, 1] without axes."""
    ax.imshow(film, cmap="gray", vmin=0, vmax=1, **{"interpolation": "antialiased", **options})
    ax.set_title(title, fontsize=size)
    ax.set_axis_off()


def draw_boxes(ax: Axes, boxes: np.ndarray, names: Sequence[str] = (), colour: str = "tab:orange", **options: Any) -> None:
    """Outline boxes ``(N, 4)`` in pixels on a film that ``ax`` shows, with a name above each."""
    for x0, y0, x1, y1 in boxes:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, **{"linewidth": 1.2, **options}))
    for name, (x0, y0, *_) in zip(names, boxes, strict=False):
        ax.text(x0, y0 - 4, name, color=colour, fontsize=7, va="bottom")


def true_boxes(films: Benchmark, i: int, label: str | None = None) -> np.ndarray | None:
    """Boxes ``(M, 4)`` of film ``i``, of one label or of all; None where the benchmark has none."""
    if films.boxes is None:
        return None
    rows = films.boxes[films.boxes["image"] == films.image_ids()[i]]
    rows = rows if label is None else rows[rows["label"] == label]
    return rows[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float32)


def bars(ax: Axes, groups: Mapping[str, np.ndarray], names: Sequence[str], options: Mapping[str, Mapping] | None = None,
         stacked: bool = False) -> list:
    """Bars over each of ``names``, one per group beside each other; ``options``: group -> what ``Axes.bar`` takes further."""
    width, at = 0.8 / (1 if stacked else len(groups)), np.arange(len(names))
    ax.set_xticks(at, names, rotation=25, ha="right")
    return [ax.bar(at + (0 if stacked else i - (len(groups) - 1) / 2) * width, values, width * 0.92, label=group,
                   **{"color": COLOURS[i % 10], **(options or {}).get(group, {})})
            for i, (group, values) in enumerate(groups.items())]


def errors(value: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Lengths ``(2, n)`` of error bars; 0 where a percentile interval leaves its estimate outside or is undefined."""
    return np.clip(np.nan_to_num([value - lo, hi - value]), 0, None)


def interval(ax: Axes, y: float, value: float, lo: float, hi: float, colour: Any, filled: bool = True) -> None:
    """A point with its interval, lying at height ``y``."""
    ax.plot([lo, hi], [y, y], color=colour, linewidth=1.4)
    ax.plot(value, y, "o", color=colour, markersize=5, markerfacecolor=colour if filled else "white")
