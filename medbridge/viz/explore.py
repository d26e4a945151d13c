"""The pictures behind the widgets, one function each, so that they can be had without a running kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from medbridge.explain.attention import Explanation
from medbridge.focal import extract_views
from medbridge.viz.plots import draw_boxes

__all__ = ["attention_view", "placed_views", "prompt_similarity", "router_film", "shifted_film"]

_COLOURS = sns.color_palette("colorblind")
_VIEW_SIDE = 256  # pixels; only for show


def attention_view(
    e: Explanation, expert: int, layer: int, view: int, query: int, boxes: np.ndarray | None = None, title: str | None = None
) -> Figure:
    """One query of one layer on one view: the film with the view outlined, the view, and the attention over its patches.

    Args:
        expert, layer, view, query: which, from 0; ``boxes`` ``(M, 4)`` are the true findings.

    Raises:
        ValueError: an index that the explanation does not have.
    """
    sizes = {"expert": len(e.experts), "view": len(e.boxes)}
    if 0 <= expert < sizes["expert"]:
        sizes |= {"layer": len(e.layers[expert]), "query": e.layers[expert][0].shape[1]}
    for name, value in (("expert", expert), ("layer", layer), ("view", view), ("query", query)):
        if not 0 <= value < sizes[name]:
            raise ValueError(f"{name}={value} is not there; choose 0 to {sizes[name] - 1}")
    box, attention = e.boxes[view], e.layers[expert][layer][view, query]
    picture = extract_views(e.film, box[None], _VIEW_SIDE)[0].numpy()
    fig = Figure(figsize=(10.4, 3.9), layout="constrained")
    film, plain, seen = fig.subplots(1, 3)
    film.imshow(e.film, cmap="gray", vmin=0, vmax=1)
    draw_boxes(film, box[None], colour="tab:cyan")
    plain.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(box[0], box[2], box[3], box[1]))
    if boxes is not None and len(boxes):
        for ax in (film, plain):
            draw_boxes(ax, boxes)
    plain.set(xlim=(box[0], box[2]), ylim=(box[3], box[1]))
    film.set_title("film, the view in blue" + (", true boxes in orange" if boxes is not None and len(boxes) else ""), fontsize=9)
    plain.set_title(f"view {view}: " + ("the whole film" if view == 0 else "a window"), fontsize=9)
    seen.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    shown = seen.imshow(attention, cmap="inferno", alpha=0.6, vmin=0, vmax=max(float(attention.max()), 1e-6), extent=(0, 1, 1, 0))
    seen.set_title(f"{e.experts[expert]}, layer {layer + 1} of {len(e.layers[expert])}, query {query}:\n"
                   f"{100 * attention.sum():.0f} % of its attention is on these patches", fontsize=9)
    fig.colorbar(shown, ax=seen, shrink=0.75, label="attention of a patch")
    for ax in (film, plain, seen):
        ax.set_axis_off()
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def router_film(e: Explanation, truth: np.ndarray | None = None, title: str | None = None) -> Figure:
    """One film: the router's weight of each expert for each label, over what each expert and the mixture say.

    Args:
        truth: ``(C,)`` of 0, 1, NaN; a star marks a label that is present.
    """
    fig = Figure(figsize=(1.6 + 0.95 * len(e.labels), 4.6), layout="constrained")
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
    at, names = np.arange(len(e.labels)), [*e.experts, "mixture"]
    width = 0.8 / len(names)
    for i, (name, p) in enumerate(zip(names, [*e.expert_probabilities, e.probabilities], strict=True)):
        top.bar(at + (i - (len(names) - 1) / 2) * width, p, width * 0.92, color=_COLOURS[i % 10], label=name,
                hatch="//" if name == "mixture" else None, edgecolor="white")
    if truth is not None and (np.asarray(truth) == 1).any():
        here = np.flatnonzero(np.asarray(truth) == 1)
        top.plot(here, np.full(len(here), 1.05), "*", color="black", markersize=10, linestyle="none", label="present")
    base = np.zeros(len(e.labels))
    for i, weights in enumerate(e.weights):
        bars = bottom.bar(at, weights, 0.7, bottom=base, color=_COLOURS[i % 10], edgecolor="white")
        bottom.bar_label(bars, [f"{w:.2f}" if w >= 0.12 else "" for w in weights], label_type="center", fontsize=7)
        base += weights
    top.set(ylim=(0, 1.14), ylabel="probability")
    bottom.set(ylim=(0, 1), ylabel="router weight")
    bottom.set_xticks(at, e.labels, rotation=25, ha="right")
    for ax in (top, bottom):
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=len(names) + 1, frameon=False, fontsize=8,
               title=title)
    return fig


def shifted_film(
    film: np.ndarray, shifted: np.ndarray, before: np.ndarray, after: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """A film ``(H, W)`` before and after a shift, and the scores ``(C,)`` in [0, 1] of both."""
    fig = Figure(figsize=(10.4, 3.9), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for ax, picture, text in zip(axes, (film, shifted), ("as it was taken", "shifted"), strict=False):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
        ax.set_title(text, fontsize=9)
        ax.set_axis_off()
    at, ax = np.arange(len(labels)), axes[2]
    ax.hlines(at, before, after, color="0.6", linewidth=1.5, zorder=1)
    ax.scatter(before, at, color=_COLOURS[0], marker="o", label="as it was taken", zorder=2)
    ax.scatter(after, at, color=_COLOURS[1], marker="D", label="shifted", zorder=3)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(labels) - 0.5, -0.5), xlabel="score")
    ax.set_yticks(at, labels, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def prompt_similarity(
    scores: np.ndarray, truth: np.ndarray, label: str, to_labels: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """How a prompt lies to films and to labels.

    Args:
        scores: ``(n,)`` cosine similarity of the prompt (or of the difference of two) with n films.
        truth: ``(n,)`` of 0, 1, NaN: whether ``label`` is present.
        to_labels: ``(C,)`` cosine similarity of the prompt with the prompt ensemble of each of ``labels``.
    """
    fig = Figure(figsize=(10.4, 3.6), layout="constrained")
    films, words = fig.subplots(1, 2, width_ratios=(1.3, 1))
    rng = np.random.default_rng(0)  # moves the dots apart; their height means nothing within a row
    groups = [(0, f"without {label}", _COLOURS[0], "o"), (1, f"with {label}", _COLOURS[1], "D")]
    for row, _, colour, marker in groups:
        own = scores[truth == row]
        films.scatter(own, row + rng.uniform(-0.25, 0.25, len(own)), s=14, color=colour, marker=marker, alpha=0.6)
        if len(own):
            films.plot([own.mean()] * 2, [row - 0.36, row + 0.36], color="black", linewidth=1.5)
    known = np.isin(truth, (0, 1))
    both = len(np.unique(truth[known])) == 2
    told = f"AUC {roc_auc_score(truth[known], scores[known]):.2f}" if both else "AUC undefined: one group is empty"
    films.set(ylim=(-0.6, 1.6), xlabel="cosine similarity with the prompt",
              title=f"{int(known.sum())} films, a dot each, means in black: {told}")
    films.set_yticks([row for row, *_ in groups], [f"{name}\n({int((truth == row).sum())})" for row, name, *_ in groups])
    order = np.argsort(to_labels)
    words.barh(np.arange(len(labels)), to_labels[order], color=_COLOURS[2])
    words.axvline(0, color="0.4", linewidth=0.8)
    words.set(xlabel="cosine similarity", title="the prompt and each label's own prompts")
    words.set_yticks(np.arange(len(labels)), [labels[i] for i in order])
    for ax in (films, words):
        ax.title.set_fontsize(9)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def placed_views(film: np.ndarray, boxes: np.ndarray, size: int, title: str | None = None) -> Figure:
    """A film ``(H, W)`` with numbered boxes ``(N, 4)``, and each as an encoder of input ``size`` x ``size`` sees it."""
    views = extract_views(film, boxes, size).numpy()
    columns = 1 + (len(boxes) + 1) // 2
    fig = Figure(figsize=(3.9 + 2.1 * (columns - 1), 4.3), layout="constrained")
    grid = fig.add_gridspec(2, columns, width_ratios=[1.9] + [1] * (columns - 1))
    whole = fig.add_subplot(grid[:, 0])
    whole.imshow(film, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    draw_boxes(whole, boxes, [str(i + 1) for i in range(len(boxes))])
    whole.set_title(f"film of {film.shape[0]} x {film.shape[1]} pixels", fontsize=9)
    whole.set_axis_off()
    for i, (view, (x0, _, x1, _)) in enumerate(zip(views, boxes, strict=True)):
        ax = fig.add_subplot(grid[i % 2, 1 + i // 2])
        ax.imshow(view, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(f"view {i + 1}: {x1 - x0:.0f} pixels\nbecome {size}", fontsize=8)
        ax.set_axis_off()
    if title:
        fig.suptitle(title, fontsize=10)
    return fig
