"""Interactive figures for the notebooks: move a control, see the film again. Needs ``pip install "medbridge[course]"``."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medbridge.data import Benchmark
from medbridge.experts import Expert
from medbridge.explain.attention import Explanation, explain
from medbridge.extras.regions import prompt_attention, prompt_boxes
from medbridge.extras.shift import shift_film
from medbridge.features.films import FrozenFilms
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.prompts import encode_prompts
from medbridge.viz import plots
from medbridge.viz.drawing import png, true_boxes
from medbridge.viz.studies import forest_plot


def explore(draw: Callable[..., Figure], buttons: Sequence[w.Button] = (), **controls: w.Widget) -> w.VBox:
    """The controls, such as ``weight=ipywidgets.FloatSlider()``, above the figure that ``draw(weight=...)`` makes of them.

    A click on one of ``buttons`` draws again, after what it does itself. A control without a description gets its name.
    """
    # an image in its own size, where there is room for it; the box around it would stretch it
    image = w.Image(format="png", layout=w.Layout(align_self="flex-start", max_width="100%"))

    def update(_: object = None) -> None:
        image.value = png(draw(**{name: control.value for name, control in controls.items()}), 80)

    for name, control in controls.items():
        control.description = control.description or name
        if hasattr(control, "continuous_update"):
            control.continuous_update = False
        control.observe(update, names="value")
    for button in buttons:
        button.on_click(update)
    update()
    return w.VBox([w.HBox([*controls.values(), *buttons], layout=w.Layout(flex_flow="row wrap")), image])


def _dial(value: float, low: float, high: float, step: float) -> w.FloatSlider:
    return w.FloatSlider(value, min=low, max=high, step=step)


def explore_views(film: np.ndarray, title: str | None = None) -> w.VBox:
    """Focal Sampling of one film ``(H, W)``: sliders for the window's size and overlap, and the windows that result."""

    def draw(crop: float, overlap: float) -> Figure:
        boxes = FocalSampler(crop, overlap).inference_boxes(*film.shape)
        return plots.film_grid([film], [f"the whole film and {len(boxes) - 1} windows"], 1, [boxes[1:]], title=title)

    return explore(draw, crop=_dial(0.5, 0.2, 1.0, 0.05), overlap=_dial(0.25, 0.0, 0.75, 0.05))


def explore_focus(film: np.ndarray, size: int = 224, title: str | None = None) -> w.VBox:
    """Place up to six views on one film ``(H, W)`` by hand, and see what an encoder of ``size`` pixels gets."""
    kept: list[list[float]] = []
    across, down, side = _dial(0.35, 0.0, 1.0, 0.02), _dial(0.45, 0.0, 1.0, 0.02), _dial(0.3, 0.05, 1.0, 0.05)
    add, drop = w.Button(description="add a view"), w.Button(description="remove the last")

    def box(across: float, down: float, side: float) -> list[float]:
        length = side * min(film.shape)
        x, y = across * (film.shape[1] - length), down * (film.shape[0] - length)
        return [x, y, x + length, y + length]

    def draw(**place: float) -> Figure:
        add.disabled, drop.disabled = len(kept) == 5, not kept
        return plots.placed_views(film, np.array([*kept, box(**place)], dtype=np.float32), size, title)

    def keep(_: object) -> None:
        kept.append(box(across.value, down.value, side.value))
        across.value = (across.value + 0.3) % 1.0  # the new view begins beside the last

    add.on_click(keep)
    drop.on_click(lambda _: kept.pop())
    return explore(draw, (add, drop), across=across, down=down, side=side)


def explore_ablation(table: pd.DataFrame, caption: str) -> w.VBox:
    """The forest plot of an ablation (:class:`medbridge.studies.ablation.Ablation`), all factors or one."""
    parts = {"all": table} | dict(list(table.iloc[1:].groupby("factor", sort=False)))
    return explore(lambda factor: forest_plot(parts[factor], caption), factor=w.Dropdown(options=list(parts)))


def explore_cache(draw: Callable[[float, float], Figure]) -> w.VBox:
    """Tip-Adapter's two settings: sliders for alpha and beta, and the figure ``draw(alpha, beta)`` that results."""
    alpha, beta = w.FloatLogSlider(100, min=0, max=4, step=0.25), w.FloatLogSlider(5.5, min=-1, max=2, step=0.125)
    return explore(draw, alpha=alpha, beta=beta)


def _explore_films(model: MedBridge, films: Benchmark, draw: Callable[..., Figure], **controls: w.Widget) -> w.VBox:
    """:func:`explore` with a slider over the films; ``draw`` gets a film's explanation, number and name, then the controls."""
    seen = lru_cache(maxsize=64)(lambda i: explain(model, films.read(i)))

    def picture(film: int, **values: Any) -> Figure:
        return draw(seen(film), film, f"{films.name}, {films.image_ids()[film]}", **values)

    return explore(picture, film=w.IntSlider(max=len(films) - 1), **controls)


def explore_film(model: MedBridge, films: Benchmark) -> w.VBox:
    """A model on a benchmark's films: choose film and label, see the views and where the queries of that label looked."""

    def draw(e: Explanation, film: int, name: str, label: str) -> Figure:
        state = {0: "absent", 1: "present"}.get(films.table[label].iloc[film], "unknown")
        return plots.query_attention(e, label, true_boxes(films, film, label), f"{name}: {label} is {state}")

    return _explore_films(model, films, draw, label=w.Dropdown(options=model.labels))


def explore_attention(model: MedBridge, films: Benchmark) -> w.VBox:
    """Attention of every query (:func:`medbridge.viz.plots.attention_view`): choose film, expert, query layer, view and query.

    A film with fewer views than the first shows its last view instead.
    """

    def draw(e: Explanation, film: int, name: str, expert: int, layer: int, view: int, query: int) -> Figure:
        return plots.attention_view(e, expert, layer, min(view, len(e.boxes) - 1), query, true_boxes(films, film), name)

    layers, views = model.config.query_layers, model.sampler.inference_boxes(*films.read(0).shape)
    return _explore_films(
        model, films, draw, expert=w.Dropdown(options=[(e.name, k) for k, e in enumerate(model.experts)]),
        layer=w.Dropdown(options=[(f"{i + 1} of {layers}", i) for i in range(layers)], value=layers - 1),
        view=w.IntSlider(max=len(views) - 1), query=w.IntSlider(max=model.config.queries - 1))


def explore_router(model: MedBridge, films: Benchmark) -> w.VBox:
    """Which expert decides which label, film by film (:func:`medbridge.viz.plots.router_film`)."""

    def draw(e: Explanation, film: int, name: str) -> Figure:
        return plots.router_film(e, films.table[list(model.labels)].iloc[film].to_numpy(dtype=np.float64), name)

    return _explore_films(model, films, draw)


def explore_shift(
    score: Callable[[np.ndarray], np.ndarray], film: np.ndarray, labels: Sequence[str], title: str | None = None
) -> w.VBox:
    """Turn exposure, contrast and grain of one film ``(H, W)`` and see the scores move (:mod:`medbridge.extras.shift`).

    ``score`` is any function of a film that gives ``(C,)`` scores in [0, 1], such as ``partial(predict_film, model)``.
    """
    before = score(film)

    def draw(**dials: float) -> Figure:
        shifted = shift_film(film, **dials)
        return plots.shifted_film(film, shifted, before, score(shifted), labels, title)

    exposure, contrast, noise = _dial(0.0, -1.5, 1.5, 0.1), _dial(1.0, 0.4, 2.0, 0.1), _dial(0.0, 0.0, 1.0, 0.05)
    return explore(draw, exposure=exposure, contrast=contrast, noise=noise)


def explore_prompts(experts: Sequence[Expert], films: FrozenFilms) -> w.VBox:
    """Type a prompt, and see how alike it is to films with and without a label, and to the labels' own prompts.

    A second prompt may be typed against the first: then films are placed by the difference of the two similarities. ``experts``
    share a space of images and texts; ``films`` are their frozen features: not the test split, if you choose by what you see.
    """
    embedded = [films.pooled("embed", k) for k in range(len(experts))]
    labels, name = films.benchmark.labels, films.benchmark.name

    def draw(prompt: str, against: str, label: str, expert: int) -> Figure:
        texts = experts[expert].encode_text([prompt or " ", *filter(None, [against])]).float().numpy()
        scores = embedded[expert] @ (texts[0] - texts[1] if against else texts[0])
        own = encode_prompts(experts[expert], labels)[0].numpy()
        truth = films.benchmark.table[label].to_numpy(dtype=np.float64)
        title = f"{name}: {prompt!r}" + (f" against {against!r}" if against else "") + f", {experts[expert].name}"
        return plots.prompt_similarity(scores, truth, label, own @ texts[0], labels, title)

    return explore(draw, prompt=w.Text(f"a chest x-ray showing {labels[0].lower()}"), against=w.Text(""),
                   label=w.Dropdown(options=labels, description="films by"),
                   expert=w.Dropdown(options=[(e.name, k) for k, e in enumerate(experts)]))


def explore_threshold(
    y: np.ndarray, p: np.ndarray, labels: Sequence[str], mask: np.ndarray | None = None, title: str | None = None
) -> w.VBox:
    """Move the threshold of a label and see who is predicted positive, on the histogram, the ROC curve and in numbers.

    The picture is :func:`medbridge.viz.plots.threshold_view`. ``y``, ``p`` and ``mask`` are ``(n, C)``: targets, probabilities,
    what is known. Labels with one class alone are left out; ValueError: no label has both.
    """
    films = np.ones(y.shape, dtype=bool) if mask is None else mask
    known = {label: (y[films[:, c], c], p[films[:, c], c]) for c, label in enumerate(labels)}
    both = [label for label, (truth, _) in known.items() if len(np.unique(truth)) == 2]
    if not both:
        raise ValueError("no label has films of both classes; there is no threshold to choose")

    def draw(label: str, threshold: float) -> Figure:
        return plots.threshold_view(*known[label], threshold, f"{title}: {label}" if title else label)

    return explore(draw, label=w.Dropdown(options=both), threshold=_dial(0.25, 0.0, 1.0, 0.01))


def explore_regions(
    model: MedBridge, film: np.ndarray, text: str = "a large bright area at the bottom", title: str | None = None
) -> w.VBox:
    """A trained model and one film ``(H, W)``: write what to look for, see where the queries that mean it looked."""
    seen = explain(model, film)

    def draw(text: str, share: float) -> Figure:
        heat = prompt_attention(model, seen, text.strip() or "a film")
        boxes = prompt_boxes(heat, film.shape, share)[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float32)
        return plots.prompt_regions(film, [heat], [text], [boxes], title=title)

    return explore(draw, text=w.Text(text, description="look for"), share=_dial(0.5, 0.2, 0.95, 0.05))
