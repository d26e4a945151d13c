"""Interactive figures for the notebooks: move a control, see the film again. Needs ``pip install "medbridge[course]"``. [ours]"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import ipywidgets as w
import numpy as np
from matplotlib.figure import Figure

from medbridge import plots
from medbridge.benchmarks import Benchmark
from medbridge.explain import Explanation, explain
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.regions import prompt_attention, prompt_boxes

__all__ = ["explore_film", "explore_prompt", "explore_views"]


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


def explore_prompt(model: MedBridge, film: np.ndarray, text: str = "a large bright area at the bottom") -> w.VBox:
    """A trained model and one film ``(H, W)``: write what to look for, see where the queries that mean it looked."""
    seen = explain(model, film)

    def draw(text: str, share: float) -> Figure:
        heat = prompt_attention(model, seen, text.strip() or "a film")
        found = prompt_boxes(heat, film.shape, share)
        boxes = found[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float32)
        return plots.prompt_regions(film, [heat], [text], [boxes])

    return _live(
        draw,
        text=w.Text(text, description="look for", continuous_update=False),
        share=w.FloatSlider(0.5, min=0.2, max=0.95, step=0.05, description="share", continuous_update=False),
    )
