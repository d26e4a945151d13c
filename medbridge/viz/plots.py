"""Pictures of data, films and results; every function returns a matplotlib Figure and shows nothing by itself."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_curve

from medbridge.data import Benchmark
from medbridge.data.audit import Audit
from medbridge.explain.attention import Explanation
from medbridge.extras.retrieve import FilmIndex, Neighbours
from medbridge.metrics.calibration import brier, ece, reliability
from medbridge.metrics.evaluate import Evaluation
from medbridge.metrics.thresholds import operating_points

__all__ = [
    "auc_bars", "audit_panels", "draw_boxes", "evidence_strip", "film_grid", "leaderboard_plot", "prevalence_bars",
    "prompt_regions", "query_attention", "reliability_plot", "roc_curves", "router_weights", "threshold_view",
    "training_curves", "view_strip",
]

_COLOURS = sns.color_palette("colorblind")


def _axes(count: int, columns: int, size: tuple[float, float], title: str | None) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    fig = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[count:]:
        ax.set_axis_off()
    if title:
        fig.suptitle(title, fontsize=11)
    return fig, axes


def _show(ax: Axes, film: np.ndarray, title: str = "") -> None:
    ax.imshow(film, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()


def draw_boxes(ax: Axes, boxes: np.ndarray, names: Sequence[str] | None = None, colour: str = "tab:orange") -> None:
    """Outline boxes ``(N, 4)`` in pixels on a film that ``ax`` shows, with a name above each."""
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.2))
        if names is not None:
            ax.text(x0, y0 - 4, names[i], color=colour, fontsize=7, va="bottom")


def film_grid(
    films: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4, boxes: Sequence[np.ndarray] | None = None,
    names: Sequence[Sequence[str]] | None = None, title: str | None = None,
) -> Figure:
    """Films ``(H, W)`` in [0, 1] side by side, each with its title and, where given, its boxes ``(N, 4)`` and their names."""
    fig, axes = _axes(len(films), columns, (2.6, 2.8), title)
    for i, (film, text) in enumerate(zip(films, titles, strict=True)):
        _show(axes[i], film, text)
        if boxes is not None:
            draw_boxes(axes[i], boxes[i], None if names is None else names[i])
    return fig


def view_strip(views: np.ndarray, titles: Sequence[str] | None = None, columns: int = 5, title: str | None = None) -> Figure:
    """The N views of one film, ``(N, R, R)`` in [0, 1], as the expert gets them."""
    texts = titles or ["whole film", *(f"window {i}" for i in range(1, len(views)))]
    return film_grid(list(views), texts, columns, title=title)


def roc_curves(
    y: np.ndarray, scores: Mapping[str, np.ndarray], mask: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """One panel a label, one curve a method; ``y``, ``mask`` and each of ``scores`` are ``(n, C)``."""
    fig, axes = _axes(len(labels), min(4, len(labels)), (2.5, 2.6), title)
    for c, label in enumerate(labels):
        ax, known = axes[c], mask[:, c]
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        for i, (colour, (name, p)) in enumerate(zip(_COLOURS, scores.items(), strict=False)):
            if len(np.unique(y[known, c])) == 2:
                false, true, _ = roc_curve(y[known, c], p[known, c])
                ax.plot(false, true, ("-", "--", "-.", ":")[i % 4], color=colour, linewidth=1.4, label=name)
        ax.set(title=label, xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel="false positive rate",
               ylabel="true positive rate" if c % 4 == 0 else "")
        ax.title.set_fontsize(9)
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=max(1, len(names)), frameon=False, fontsize=9)
    return fig


def auc_bars(evaluations: Mapping[str, Evaluation], title: str | None = None) -> Figure:
    """Test AUC of each label and their mean, one bar a method, with its interval."""
    first = next(iter(evaluations.values()))
    names = ["mean", *first.per_label["label"]]
    fig = Figure(figsize=(max(6.0, 1.15 * len(names)), 3.6), layout="constrained")
    ax = fig.subplots()
    width = 0.8 / len(evaluations)
    for i, (name, e) in enumerate(evaluations.items()):
        value = np.array([e.macro["auc"], *e.per_label["auc"]])
        low = np.array([e.macro["lo"], *e.per_label["auc_lo"]])
        high = np.array([e.macro["hi"], *e.per_label["auc_hi"]])
        at = np.arange(len(names)) + (i - (len(evaluations) - 1) / 2) * width
        # a percentile interval may leave the point estimate outside where a label has a handful of films
        error = np.clip(np.nan_to_num([value - low, high - value]), 0, None)
        ax.bar(at, value, width * 0.92, yerr=error, color=_COLOURS[i], label=name, error_kw={"elinewidth": 0.9})
    ax.axhline(0.5, color="0.3", linewidth=0.8, linestyle="--")
    ax.axvline(0.5, color="0.7", linewidth=0.8)
    lowest = min(0.4, *(e.per_label["auc"].min() for e in evaluations.values()))
    ax.set(ylim=(lowest - 0.1, 1.02), ylabel="AUC (95 % interval)")
    ax.set_xticks(range(len(names)), names, rotation=25, ha="right")
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside upper center", ncols=len(evaluations), frameon=False, fontsize=9, title=title)
    return fig


def reliability_plot(
    y: np.ndarray, scores: Mapping[str, np.ndarray], mask: np.ndarray | None = None, bins: int = 15, title: str | None = None
) -> Figure:
    """One panel a method: what was told against what was seen, over all known film-label pairs, with Brier score and ECE.

    ``y``, ``mask`` and each of ``scores`` (probabilities) are ``(n, C)``; bars are 95 % intervals of the observed share.
    """
    fig, axes = _axes(len(scores), min(4, len(scores)), (2.8, 3.3), title)
    for ax, (name, p) in zip(axes, scores.items(), strict=False):
        table = reliability(y, p, mask, bins)
        seen = table["observed"].to_numpy()
        error = np.clip([seen - table["observed_lo"], table["observed_hi"] - seen], 0, None)
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        ax.errorbar(table["predicted"], seen, error, color=_COLOURS[0], marker=".", linewidth=1.0, elinewidth=0.8)
        ax.set(title=f"{name}\nBrier {brier(y, p, mask):.3f}, ECE {ece(y, p, mask, bins):.3f}", xlim=(0, 1), ylim=(0, 1),
               aspect="equal", xlabel="probability told", ylabel="share with the finding")
        ax.title.set_fontsize(9)
    return fig


def threshold_view(
    y: np.ndarray, p: np.ndarray, threshold: float, mask: np.ndarray | None = None, title: str | None = None
) -> Figure:
    """One label at one threshold: who is told positive, where that is on the ROC curve, and what follows.

    ``y``, ``p`` and ``mask`` are ``(n,)``; both classes must be there.
    """
    known = np.ones(len(y), dtype=bool) if mask is None else mask
    truth, scores = np.asarray(y)[known] == 1, np.asarray(p)[known]
    point = operating_points(truth.astype(float), scores, threshold).iloc[0]
    fig, axes = _axes(3, 3, (3.4, 3.1), title)
    bins = np.linspace(scores.min(), scores.max(), 25)
    for group, colour, hatch, name in ((~truth, _COLOURS[0], "", "without"), (truth, _COLOURS[1], "///", "with the finding")):
        axes[0].hist(scores[group], bins, color=colour, hatch=hatch, alpha=0.6, edgecolor="white", label=name)
    axes[0].axvline(threshold, color="black", label=f"threshold {threshold:.2f}")
    axes[0].set(xlabel="score", ylabel="films")
    axes[0].legend(frameon=False, fontsize=8)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    axes[1].plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
    axes[1].plot(false, true, color=_COLOURS[0])
    axes[1].plot(1 - point["specificity"], point["sensitivity"], "o", color="black", markersize=8)
    axes[1].set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
    cells = np.array([[point["tp"], point["fn"]], [point["fp"], point["tn"]]], dtype=int)
    sns.heatmap(cells, annot=True, fmt="d", cmap="Blues", cbar=False, ax=axes[2], vmin=0, vmax=len(scores),
                xticklabels=["told yes", "told no"], yticklabels=["with", "without"])
    lines = (("sensitivity", "specificity"), ("precision", "f1", "accuracy"))
    axes[2].set_xlabel("\n".join("   ".join(f"{name} {point[name]:.2f}" for name in line) for line in lines), fontsize=9)
    return fig


def leaderboard_plot(table: pd.DataFrame, caption: str) -> Figure:
    """Test AUC of every method with its interval, best on top, and how many numbers each trained; MedBridge in orange.

    ``table`` is that of :class:`medbridge.studies.leaderboard.Leaderboard`.
    """
    fig = Figure(figsize=(7.5, 1.6 + 0.32 * len(table)), layout="constrained")
    ax = fig.subplots()
    for row in table.itertuples():
        colour = _COLOURS[1] if row.method == "MedBridge" else _COLOURS[0]
        ax.plot([row.lo, row.hi], [row.Index] * 2, color=colour, linewidth=1.4)
        ax.plot(row.auc, row.Index, "o", color=colour, markersize=5)
    ax.axvline(0.5, color="0.7", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(table)), [f"{r.method} ({r.parameters:,})" for r in table.itertuples()])
    ax.invert_yaxis()
    # centred on the figure, not on the axes, whose left half is method names
    fig.supxlabel("mean test AUC over labels and seeds, 95 % interval over patients (brackets: trained parameters)", fontsize=8)
    fig.suptitle("\n".join(textwrap.wrap(caption, 105)), fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return fig


def router_weights(
    weights: np.ndarray, experts: Sequence[str], labels: Sequence[str],
    title: str = "router weights: mean over films ± standard deviation",
) -> Figure:
    """The mixture's weights ``(n, K, C)``: mean over films beside their spread from film to film."""
    fig = Figure(figsize=(1.5 + 0.85 * len(labels), 1.6 + 0.5 * len(experts)), layout="constrained")
    ax = fig.subplots()
    mean, spread = weights.mean(axis=0), weights.std(axis=0)
    text = np.array([[f"{m:.2f}\n± {s:.2f}" for m, s in zip(a, b, strict=True)] for a, b in zip(mean, spread, strict=True)])
    sns.heatmap(mean, annot=text, fmt="", vmin=0, vmax=1, cmap="viridis", ax=ax, annot_kws={"fontsize": 8},
                xticklabels=list(labels), yticklabels=list(experts), cbar_kws={"label": "weight"})
    ax.set_title(title, fontsize=9)
    ax.tick_params(axis="x", rotation=25)
    ax.tick_params(axis="y", rotation=0)
    return fig


def query_attention(e: Explanation, label: str, boxes: np.ndarray | None = None, title: str | None = None) -> Figure:
    """One film: its views, and where the queries of ``label`` looked; ``boxes`` ``(M, 4)`` are the true findings."""
    fig, axes = _axes(3, 3, (3.4, 3.5), title)
    _show(axes[0], e.film, "film" + (" (true boxes in orange)" if boxes is not None and len(boxes) else ""))
    if boxes is not None:
        draw_boxes(axes[0], boxes)
    _show(axes[1], e.film, "focal views (brighter: won more of the pool)")
    share = np.mean(e.share, axis=0)
    for box, won in zip(e.boxes[1:], share[1:], strict=True):
        x0, y0, x1, y1 = box
        inset = 0.012 * (x1 - x0)
        axes[1].add_patch(Rectangle((x0 + inset, y0 + inset), x1 - x0 - 2 * inset, y1 - y0 - 2 * inset, fill=False,
                                    edgecolor="tab:cyan", linewidth=1.5, alpha=float(0.25 + 0.75 * won / share.max())))
    p = e.probabilities[e.labels.index(label)]
    _show(axes[2], e.film, f"queries of {label}: p = {p:.2f}")
    height, width = e.film.shape
    axes[2].imshow(e.heatmap(label), cmap="inferno", alpha=0.55, extent=(0, width, height, 0), interpolation="bilinear")
    return fig


def evidence_strip(index: FilmIndex, found: Neighbours, queries: Benchmark, query: int) -> Figure:
    """A query film and the films that it found, each under its labels."""
    row = queries.table.iloc[query]
    names = ", ".join(c for c in queries.labels if row[c] == 1) or "no finding"
    films = [queries.read(query), *(index.benchmark.read(int(r)) for r in found.rows[query])]
    titles = [f"the film\n{textwrap.fill(names, 30)}"]
    evidence = index.evidence(found, query)
    titles += [f"{e.rank}. cosine {e.similarity:.2f}\n{textwrap.fill(e.labels, 30)}" for e in evidence.itertuples()]
    mark = " (synthetic films)" if index.benchmark.synthetic else ""
    return film_grid(films, titles, columns=len(films), title=f"Nearest films of other patients{mark}")


def prompt_regions(
    film: np.ndarray, heats: Sequence[np.ndarray], texts: Sequence[str], found: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None = None, title: str | None = None,
) -> Figure:
    """A film ``(H, W)`` under a map for each prompt, with the boxes found (dashed) and, where given, the true ones (solid)."""
    fig, axes = _axes(len(heats), min(4, len(heats)), (2.9, 3.2), title)
    for i, (ax, heat) in enumerate(zip(axes, heats, strict=False)):
        _show(ax, film, texts[i])
        ax.imshow(heat, cmap="viridis", alpha=0.45, extent=(0, film.shape[1], film.shape[0], 0), interpolation="bilinear")
        for x0, y0, x1, y1 in found[i]:
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linestyle="--", linewidth=1.5))
        if truth is not None:
            draw_boxes(ax, truth[i])
    return fig


def training_curves(rows: Sequence[Mapping[str, float]], best_epoch: int, title: str | None = None) -> Figure:
    """Training loss and validation AUC by epoch, with the epoch that was kept."""
    fig, axes = _axes(2, 2, (3.6, 2.6), title)
    epochs = [r["epoch"] + 1 for r in rows]
    for ax, key, text in ((axes[0], "loss", "training loss"), (axes[1], "val_auc", "validation mean AUC")):
        ax.plot(epochs, [r[key] for r in rows], color=_COLOURS[0], marker=".")
        ax.axvline(best_epoch + 1, color="0.6", linestyle="--", linewidth=0.9)
        ax.set(xlabel="epoch", title=text)
        ax.title.set_fontsize(9)
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def prevalence_bars(prevalence: Mapping[str, Sequence[float]], labels: Sequence[str], title: str | None = None) -> Figure:
    """Share of positive films of each label, one bar a group (hospital, split ...)."""
    fig = Figure(figsize=(max(5.0, 1.0 * len(labels)), 3.0), layout="constrained")
    ax = fig.subplots()
    width = 0.8 / len(prevalence)
    for i, (name, values) in enumerate(prevalence.items()):
        at = np.arange(len(labels)) + (i - (len(prevalence) - 1) / 2) * width
        ax.bar(at, 100 * np.asarray(values), width * 0.92, color=_COLOURS[i], label=name)
    ax.set(ylabel="films with the finding (%)")
    ax.set_xticks(range(len(labels)), labels, rotation=25, ha="right")
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside upper center", ncols=len(prevalence), frameon=False, fontsize=9, title=title)
    return fig


def audit_panels(audit: Audit) -> Figure:
    """Films of each split beside the published number, positive share of each label by split, and unknown labels where any."""
    labels, splits = list(dict.fromkeys(audit.labels["label"])), list(dict.fromkeys(audit.labels["split"]))
    columns = ["here", "published"] if audit.sizes["published"].notna().any() else ["here"]
    known = audit.labels.assign(share=100 * audit.labels["prevalence"].fillna(0))
    unknown = audit.labels.assign(share=100 * audit.labels["unknown"] / (audit.labels["unknown"] + audit.labels["n"]))
    panels = [("positive among known labels (%)", known), ("unknown labels (% of films)", unknown)]
    panels = panels if unknown["share"].any() else panels[:1]
    ratios = [max(3.2, 0.9 * len(audit.sizes)), max(3.2, 1.1 + 0.55 * len(labels))]
    fig = Figure(figsize=(sum(ratios) + 1, 1.0 + 2.8 * len(panels)), layout="constrained")
    axes = list(fig.subplot_mosaic([["films", i] for i in range(len(panels))], width_ratios=ratios).values())
    _bar_groups(axes[0], {column: audit.sizes[column].to_numpy(float) for column in columns}, list(audit.sizes["part"]),
                {"here": _COLOURS[0], "published": "0.75"}, "films", counts=True)
    for ax, (text, table) in zip(axes[1:], panels, strict=True):
        shares = table.pivot(index="label", columns="split", values="share").loc[labels]
        _bar_groups(ax, {split: shares[split].to_numpy() for split in splits}, labels,
                    dict(zip(splits, _COLOURS[1:], strict=False)), text)
    name = audit.benchmark if "synthetic" in audit.benchmark or not audit.synthetic else f"{audit.benchmark} (synthetic)"
    fig.suptitle(f"{name}: {audit.images:,} images of {audit.patients:,} patients", fontsize=10)
    return fig


def _bar_groups(ax: Axes, groups: Mapping[str, np.ndarray], names: Sequence[str], colours: Mapping, ylabel: str,
                counts: bool = False) -> None:
    width, at = 0.8 / len(groups), np.arange(len(names))
    for i, (group, values) in enumerate(groups.items()):
        bars = ax.bar(at + (i - (len(groups) - 1) / 2) * width, np.nan_to_num(values), width * 0.92, color=colours[group],
                      label=group)
        if counts:
            ax.bar_label(bars, ["" if np.isnan(v) else f"{int(v):,}" for v in values], fontsize=7, padding=1)
    ax.set(ylabel=ylabel, ylim=(0, None))
    ax.margins(y=0.1)
    ax.set_xticks(at, names, rotation=25, ha="right")
    ax.yaxis.label.set_size(8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(groups), frameon=False, fontsize=8)
