"""The pictures behind the widgets, one function each, so that they can be had without a running kernel."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from medbridge.explain.attention import Explanation
from medbridge.focal import extract_views
from medbridge.viz.drawing import COLOURS, bars, chart, clean, draw_boxes, show_film

_VIEW_SIDE = 256  # pixels; only for show


def attention_view(
    e: Explanation, expert: int, layer: int, view: int, query: int, boxes: np.ndarray | None = None, title: str | None = None
) -> Figure:
    """One query of one layer on one view: the film with the view outlined, the view, and the attention over its patches.

    Expert, layer, view and query count from 0 (ValueError where there is none); ``boxes`` ``(M, 4)`` are the true findings.
    """
    for name, value, of in (("expert", expert, e.experts), ("layer", layer, e.layers[min(expert, len(e.layers) - 1)]),
                            ("view", view, e.boxes), ("query", query, e.layers[0][0][0])):
        if not 0 <= value < len(of):
            raise ValueError(f"{name}={value} is not there; choose 0 to {len(of) - 1}")
    box, attention = e.boxes[view], e.layers[expert][layer][view, query]
    picture, true = extract_views(e.film, box[None], _VIEW_SIDE)[0].numpy(), [] if boxes is None else boxes
    fig, (film, plain, seen) = chart(10.4, 3.9, title, ncols=3)
    show_film(film, e.film, "film, the view in blue" + (", true boxes in orange" if len(true) else ""), 9)
    draw_boxes(film, box[None], colour="tab:cyan")
    show_film(plain, picture, f"view {view}: " + ("the whole film" if view == 0 else "a window"), 9,
              extent=(box[0], box[2], box[3], box[1]))
    for ax in (film, plain):
        draw_boxes(ax, true)
    plain.set(xlim=(box[0], box[2]), ylim=(box[3], box[1]))
    show_film(seen, picture, f"{e.experts[expert]}, layer {layer + 1} of {len(e.layers[expert])}, query {query}:\n"
              f"{100 * attention.sum():.0f} % of its attention is on these patches", 9, extent=(0, 1, 1, 0))
    shown = seen.imshow(attention, cmap="inferno", alpha=0.6, vmin=0, vmax=max(float(attention.max()), 1e-6), extent=(0, 1, 1, 0))
    fig.colorbar(shown, ax=seen, shrink=0.75, label="attention of a patch")
    return fig


def router_film(e: Explanation, truth: np.ndarray | None = None, title: str | None = None) -> Figure:
    """One film: the router's weight of each expert for each label, over what each expert and the mixture say.

    A star marks a label that is present in ``truth``, ``(C,)`` of 0, 1, NaN.
    """
    fig, (top, bottom) = chart(1.6 + 0.95 * len(e.labels), 4.6, nrows=2, sharex=True, height_ratios=(1.6, 1))
    groups = dict(zip([*e.experts, "mixture"], [*e.expert_probabilities, e.probabilities], strict=True))
    bars(top, groups, e.labels, {name: {"edgecolor": "white", "hatch": "//" if name == "mixture" else None} for name in groups})
    here = np.flatnonzero([] if truth is None else np.asarray(truth) == 1)
    if len(here):
        top.plot(here, np.full(len(here), 1.05), "*", color="black", markersize=10, linestyle="none", label="present")
    at, base = np.arange(len(e.labels)), np.zeros(len(e.labels))
    for i, weights in enumerate(e.weights):
        stack = bottom.bar(at, weights, 0.7, bottom=base, color=COLOURS[i % 10], edgecolor="white")
        bottom.bar_label(stack, [f"{w:.2f}" if w >= 0.12 else "" for w in weights], label_type="center", fontsize=7)
        base += weights
    top.set(ylim=(0, 1.14), ylabel="probability")
    bottom.set(ylim=(0, 1), ylabel="router weight")
    bottom.set_xticks(at, e.labels, rotation=25, ha="right")
    clean(bottom)
    fig.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=len(groups) + 1, frameon=False, fontsize=8,
               title=title)
    return fig


def shifted_film(
    film: np.ndarray, shifted: np.ndarray, before: np.ndarray, after: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """A film ``(H, W)`` before and after a shift, and the scores ``(C,)`` in [0, 1] of both."""
    fig, (left, right, ax) = chart(10.4, 3.9, title, ncols=3, width_ratios=(1, 1, 1.1))
    show_film(left, film, "as it was taken", 9)
    show_film(right, shifted, "shifted", 9)
    at = np.arange(len(labels))
    ax.hlines(at, before, after, color="0.6", linewidth=1.5, zorder=1)
    ax.scatter(before, at, color=COLOURS[0], marker="o", label="as it was taken", zorder=2)
    ax.scatter(after, at, color=COLOURS[1], marker="D", label="shifted", zorder=3)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(labels) - 0.5, -0.5), xlabel="score")
    ax.set_yticks(at, labels, fontsize=8)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    clean(ax)
    return fig


def prompt_similarity(
    scores: np.ndarray, truth: np.ndarray, label: str, to_labels: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """How a prompt lies to films and to labels.

    ``scores`` ``(n,)`` are its cosine similarities with n films (or the difference of two prompts'), ``truth`` ``(n,)`` of 0, 1,
    NaN says where ``label`` is present, ``to_labels`` ``(C,)`` are its similarities with the prompt ensembles of ``labels``.
    """
    fig, (films, words) = chart(10.4, 3.6, title, ncols=2, width_ratios=(1.3, 1))
    rng = np.random.default_rng(0)  # moves the dots apart; their height means nothing within a row
    names = []
    for row, kind, marker in ((0, "without", "o"), (1, "with", "D")):
        own = scores[truth == row]
        films.scatter(own, row + rng.uniform(-0.25, 0.25, len(own)), s=14, color=COLOURS[row], marker=marker, alpha=0.6)
        if len(own):
            films.plot([own.mean()] * 2, [row - 0.36, row + 0.36], color="black", linewidth=1.5)
        names.append(f"{kind} {label}\n({len(own)})")
    known = np.isin(truth, (0, 1))
    both = len(np.unique(truth[known])) == 2
    auc = f"AUC {roc_auc_score(truth[known], scores[known]):.2f}" if both else "AUC undefined: one group is empty"
    films.set(ylim=(-0.6, 1.6), xlabel="cosine similarity with the prompt")
    films.set_title(f"{int(known.sum())} films, a dot each, means in black: {auc}", fontsize=9)
    films.set_yticks((0, 1), names)
    order = np.argsort(to_labels)
    words.barh(np.arange(len(labels)), to_labels[order], color=COLOURS[2])
    words.axvline(0, color="0.4", linewidth=0.8)
    words.set_xlabel("cosine similarity")
    words.set_title("the prompt and each label's own prompts", fontsize=9)
    words.set_yticks(np.arange(len(labels)), [labels[i] for i in order])
    for ax in (films, words):
        ax.tick_params(labelsize=8)
    clean(films, words)
    return fig


def placed_views(film: np.ndarray, boxes: np.ndarray, size: int, title: str | None = None) -> Figure:
    """A film ``(H, W)`` with numbered boxes ``(N, 4)``, and each as an encoder of input ``size`` x ``size`` sees it."""
    columns = 1 + (len(boxes) + 1) // 2
    fig = Figure(figsize=(3.9 + 2.1 * (columns - 1), 4.3), layout="constrained")
    grid = fig.add_gridspec(2, columns, width_ratios=[1.9] + [1] * (columns - 1))
    whole = fig.add_subplot(grid[:, 0])
    show_film(whole, film, f"film of {film.shape[0]} x {film.shape[1]} pixels", 9)
    draw_boxes(whole, boxes, [str(i + 1) for i in range(len(boxes))])
    for i, (view, (x0, _, x1, _)) in enumerate(zip(extract_views(film, boxes, size).numpy(), boxes, strict=True)):
        show_film(fig.add_subplot(grid[i % 2, 1 + i // 2]), view, f"view {i + 1}: {x1 - x0:.0f} pixels\nbecome {size}",
                  interpolation="nearest")
    if title:
        fig.suptitle(title, fontsize=10)
    return fig
