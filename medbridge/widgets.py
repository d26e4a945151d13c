"""Interactive figures for the notebooks: move a control, see the film again. Needs ``pip install "medbridge[course]"``. [ours]"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache

import ipywidgets as w
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medbridge import plots
from medbridge.ablate import forest_plot
from medbridge.benchmarks import Benchmark
from medbridge.explain import Explanation, explain
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge

__all__ = ["explore_ablation", "explore_cache", "explore_film", "explore_threshold", "explore_views"]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _live(draw: Callable[..., Figure], **controls: w.Widget) -> w.VBox:
    """The controls above the figure that ``draw`` makes of their values."""
    image = w.Image(format="png")

    def update(_: object = None) -> None:
        image.value = _png(draw(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return w.VBox([w.HBox(list(controls.values())), image])


def explore_views(film: np.ndarray) -> w.VBox:
    """Focal Sampling of one film ``(H, W)``: sliders for the window's size and overlap, and the windows that result."""

    def draw(crop: float, overlap: float) -> Figure:
        boxes = FocalSampler(crop, overlap).inference_boxes(*film.shape)
        return plots.film_grid([film], [f"the whole film and {len(boxes) - 1} windows"], 1, [boxes[1:]])

    return _live(
        draw,
        crop=w.FloatSlider(0.5, min=0.2, max=1.0, step=0.05, description="crop", continuous_update=False),
        overlap=w.FloatSlider(0.25, min=0.0, max=0.75, step=0.05, description="overlap", continuous_update=False),
    )


def explore_ablation(table: pd.DataFrame, caption: str) -> w.VBox:
    """The forest plot of an ablation (:class:`medbridge.ablate.Ablation`), all factors or one."""

    def draw(factor: str) -> Figure:
        return forest_plot(table if factor == "all" else table[table["factor"] == factor], caption)

    factors = list(dict.fromkeys(table["factor"].iloc[1:]))
    return _live(draw, factor=w.Dropdown(options=["all", *factors], description="factor"))


def explore_cache(draw: Callable[[float, float], Figure]) -> w.VBox:
    """Tip-Adapter's two settings: sliders for alpha and beta, and the figure ``draw(alpha, beta)`` that results."""
    return _live(
        draw,
        alpha=w.FloatLogSlider(100, min=0, max=4, step=0.25, description="alpha", continuous_update=False),
        beta=w.FloatLogSlider(5.5, min=-1, max=2, step=0.125, description="beta", continuous_update=False),
    )


def explore_film(model: MedBridge, films: Benchmark) -> w.VBox:
    """A model on a benchmark's films: choose film and label, see the views and where the queries of that label looked."""

    @lru_cache(maxsize=64)
    def seen(i: int) -> Explanation:
        return explain(model, films.read(i))

    def draw(film: int, label: str) -> Figure:
        e = seen(film)
        boxes = None
        if films.boxes is not None:
            rows = films.boxes[(films.boxes["image"] == films.image_ids()[film]) & (films.boxes["label"] == label)]
            boxes = rows[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float32)
        truth = films.table[label].iloc[film]
        told = "unknown" if np.isnan(truth) else "present" if truth == 1 else "absent"
        return plots.query_attention(e, label, boxes, f"{films.name}, {films.image_ids()[film]}: {label} is {told}")

    return _live(
        draw,
        film=w.IntSlider(0, min=0, max=len(films) - 1, description="film", continuous_update=False),
        label=w.Dropdown(options=list(model.labels), description="label"),
    )


def explore_threshold(
    y: np.ndarray, p: np.ndarray, labels: Sequence[str], mask: np.ndarray | None = None, title: str | None = None
) -> w.VBox:
    """Move the threshold of a label and see who is told positive, on the histogram, the ROC curve and in numbers.

    The same picture without a kernel is :func:`medbridge.plots.threshold_view`.

    Args:
        y, p, mask: ``(n, C)``: targets, probabilities, what is known.
        labels: C names; those with one class alone are left out.
        title: of the figure; says where the films are synthetic.

    Raises:
        ValueError: no label has both classes.
    """
    known = np.ones(y.shape, dtype=bool) if mask is None else mask
    both = [c for c in range(y.shape[1]) if len(np.unique(y[known[:, c], c])) == 2]
    if not both:
        raise ValueError("no label has films of both classes; there is no threshold to choose")

    def draw(label: str, threshold: float) -> Figure:
        c = list(labels).index(label)
        return plots.threshold_view(y[:, c], p[:, c], threshold, known[:, c], f"{title}: {label}" if title else label)

    return _live(
        draw,
        label=w.Dropdown(options=[labels[c] for c in both], description="label"),
        threshold=w.FloatSlider(0.25, min=0.0, max=1.0, step=0.01, description="threshold", continuous_update=False),
    )
