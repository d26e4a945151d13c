"""Pictures of data, films and results; every function returns a matplotlib Figure and shows nothing by itself."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from medbridge.data import Benchmark
from medbridge.data.audit import Audit
from medbridge.explain.attention import Explanation
from medbridge.extras.retrieve import FilmIndex, Neighbours
from medbridge.metrics.calibration import brier, ece, reliability
from medbridge.metrics.evaluate import Evaluation
from medbridge.metrics.thresholds import operating_points
from medbridge.viz.drawing import COLOURS, bars, caption, chart, clean, draw_boxes, errors, interval, panels, show_film


def film_grid(
    films: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4, boxes: Sequence[np.ndarray] = (),
    names: Sequence[Sequence[str]] = (), title: str | None = None,
) -> Figure:
    """Films ``(H, W)`` in [0, 1] side by side, each with its title and, where given, its boxes ``(N, 4)`` and their names."""
    fig, axes = panels(len(films), columns, (2.6, 2.8), title)
    for i, (film, text) in enumerate(zip(films, titles, strict=True)):
        show_film(axes[i], film, text)
        if len(boxes):
            draw_boxes(axes[i], boxes[i], names[i] if names else ())
    return fig


def view_strip(views: np.ndarray, titles: Sequence[str] | None = None, columns: int = 5, title: str | None = None) -> Figure:
    """The N views of one film, ``(N, R, R)`` in [0, 1], as the expert gets them."""
    texts = titles or ["whole film", *(f"window {i}" for i in range(1, len(views)))]
    return film_grid(list(views), texts, columns, title=title)


def roc_curves(
    y: np.ndarray, scores: Mapping[str, np.ndarray], mask: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """One panel per label, one curve per method; ``y``, ``mask`` and each of ``scores`` are ``(n, C)``."""
    fig, axes = panels(len(labels), min(4, len(labels)), (2.5, 2.6), title)
    for c, label in enumerate(labels):
        ax, known = axes[c], mask[:, c]
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        for i, (name, p) in enumerate(scores.items()):
            if len(np.unique(y[known, c])) == 2:
                false, true, _ = roc_curve(y[known, c], p[known, c])
                ax.plot(false, true, ("-", "--", "-.", ":")[i % 4], color=COLOURS[i % 10], linewidth=1.4, label=name)
        ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel="false positive rate",
               ylabel="true positive rate" if c % 4 == 0 else "")
        ax.set_title(label, fontsize=9)
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=max(1, len(names)), frameon=False, fontsize=9)
    return fig


def auc_bars(evaluations: Mapping[str, Evaluation], title: str | None = None) -> Figure:
    """Test AUC of each label and their mean, one bar per method, with its interval."""
    names = ["mean", *next(iter(evaluations.values())).per_label["label"]]
    fig, ax = chart(max(6.0, 1.15 * len(names)), 3.6)
    values = {name: [np.array([e.macro[key], *e.per_label[column]]) for key, column in
                     (("auc", "auc"), ("lo", "auc_lo"), ("hi", "auc_hi"))] for name, e in evaluations.items()}
    bars(ax, {name: auc for name, (auc, *_) in values.items()}, names,
         {name: {"yerr": errors(*triple), "error_kw": {"elinewidth": 0.9}} for name, triple in values.items()})
    ax.axhline(0.5, color="0.3", linewidth=0.8, linestyle="--")
    ax.axvline(0.5, color="0.7", linewidth=0.8)
    ax.set(ylim=(min(0.4, *(e.per_label["auc"].min() for e in evaluations.values())) - 0.1, 1.02), ylabel="AUC (95 % interval)")
    fig.legend(loc="outside upper center", ncols=len(evaluations), frameon=False, fontsize=9, title=title)
    return fig


def reliability_plot(
    y: np.ndarray, scores: Mapping[str, np.ndarray], mask: np.ndarray | None = None, bins: int = 15, title: str | None = None
) -> Figure:
    """One panel per method: what was predicted against what was seen, over all known film-label pairs, with Brier score and ECE.

    ``y``, ``mask`` and each of ``scores`` (probabilities) are ``(n, C)``; bars are 95 % intervals of the observed share.
    """
    fig, axes = panels(len(scores), min(4, len(scores)), (2.8, 3.3), title)
    for ax, (name, p) in zip(axes, scores.items(), strict=False):
        table = reliability(y, p, mask, bins)
        seen = table["observed"].to_numpy()
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        ax.errorbar(table["predicted"], seen, errors(seen, table["observed_lo"], table["observed_hi"]), color=COLOURS[0],
                    marker=".", linewidth=1.0, elinewidth=0.8)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="predicted probability", ylabel="share with the finding")
        ax.set_title(f"{name}\nBrier {brier(y, p, mask):.3f}, ECE {ece(y, p, mask, bins):.3f}", fontsize=9)
    return fig


def threshold_view(
    y: np.ndarray, p: np.ndarray, threshold: float, mask: np.ndarray | None = None, title: str | None = None
) -> Figure:
    """One label at one threshold: who is predicted positive, where that is on the ROC curve, and what follows.

    ``y``, ``p`` and ``mask`` are ``(n,)``; both classes must be there.
    """
    known = np.ones(len(y), dtype=bool) if mask is None else mask
    truth, scores = np.asarray(y)[known] == 1, np.asarray(p)[known]
    point = operating_points(truth.astype(float), scores, threshold).iloc[0]
    fig, (histogram, roc, table) = panels(3, 3, (3.4, 3.1), title)
    bins = np.linspace(scores.min(), scores.max(), 25)
    for group, colour, hatch, name in ((~truth, COLOURS[0], "", "without"), (truth, COLOURS[1], "///", "with the finding")):
        histogram.hist(scores[group], bins, color=colour, hatch=hatch, alpha=0.6, edgecolor="white", label=name)
    histogram.axvline(threshold, color="black", label=f"threshold {threshold:.2f}")
    histogram.set(xlabel="score", ylabel="films")
    histogram.legend(frameon=False, fontsize=8)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    roc.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
    roc.plot(false, true, color=COLOURS[0])
    roc.plot(1 - point["specificity"], point["sensitivity"], "o", color="black", markersize=8)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
    cells = np.array([[point["tp"], point["fn"]], [point["fp"], point["tn"]]], dtype=int)
    sns.heatmap(cells, annot=True, fmt="d", cmap="Blues", cbar=False, ax=table, vmin=0, vmax=len(scores),
                xticklabels=["predicted\npositive", "predicted\nnegative"], yticklabels=["with", "without"])
    lines = (("sensitivity", "specificity"), ("precision", "f1", "accuracy"))
    table.set_xlabel("\n".join("   ".join(f"{name} {point[name]:.2f}" for name in line) for line in lines), fontsize=9)
    return fig


def leaderboard_plot(table: pd.DataFrame, text: str) -> Figure:
    """Test AUC of every method with its interval, best on top, and how many numbers each trained; MedBridge in orange.

    ``table`` is that of :class:`medbridge.studies.leaderboard.Leaderboard`; ``text`` says what was measured.
    """
    fig, ax = chart(7.5, 1.6 + 0.32 * len(table))
    for row in table.itertuples():
        interval(ax, row.Index, row.auc, row.lo, row.hi, COLOURS[1] if row.method == "MedBridge" else COLOURS[0])
    ax.axvline(0.5, color="0.7", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(table)), [f"{r.method} ({r.parameters:,})" for r in table.itertuples()])
    ax.invert_yaxis()
    # centred on the figure, not on the axes, whose left half is method names
    fig.supxlabel("mean test AUC over labels and seeds, 95 % interval over patients (brackets: trained parameters)", fontsize=8)
    caption(fig, text, 105)
    clean(ax)
    return fig


def router_weights(
    weights: np.ndarray, experts: Sequence[str], labels: Sequence[str],
    title: str = "router weights: mean over films ± standard deviation",
) -> Figure:
    """The mixture's weights ``(n, K, C)``: mean over films beside their spread from film to film."""
    fig, ax = chart(1.5 + 0.85 * len(labels), 1.6 + 0.5 * len(experts))
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
    fig, (film, views, looked) = panels(3, 3, (3.4, 3.5), title)
    true = [] if boxes is None else boxes
    show_film(film, e.film, "film" + (" (true boxes in orange)" if len(true) else ""))
    draw_boxes(film, true)
    show_film(views, e.film, "focal views (brighter: won more of the pool)")
    share = np.mean(e.share, axis=0)
    for box, won in zip(e.boxes[1:], share[1:], strict=True):
        inset = 0.012 * (box[2] - box[0]) * np.array([1, 1, -1, -1])
        draw_boxes(views, [box + inset], colour="tab:cyan", linewidth=1.5, alpha=float(0.25 + 0.75 * won / share.max()))
    show_film(looked, e.film, f"queries of {label}: p = {e.probabilities[e.labels.index(label)]:.2f}")
    _lay(looked, e.heatmap(label), e.film.shape, "inferno", 0.55)
    return fig


def _lay(ax: Axes, heat: np.ndarray, shape: tuple[int, int], colours: str, alpha: float) -> None:
    """A map over a film of this shape."""
    ax.imshow(heat, cmap=colours, alpha=alpha, extent=(0, shape[1], shape[0], 0), interpolation="bilinear")


def evidence_strip(index: FilmIndex, neighbours: Neighbours, queries: Benchmark, query: int) -> Figure:
    """A query film and the films nearest to it, each under its labels."""
    row = queries.table.iloc[query]
    names = ", ".join(c for c in queries.labels if row[c] == 1) or "no finding"
    films = [queries.read(query), *(index.benchmark.read(int(r)) for r in neighbours.rows[query])]
    titles = [f"the film\n{textwrap.fill(names, 30)}"]
    titles += [f"{e.rank}. cosine {e.similarity:.2f}\n{textwrap.fill(e.labels, 30)}"
               for e in index.evidence(neighbours, query).itertuples()]
    mark = " (synthetic films)" if index.benchmark.synthetic else ""
    return film_grid(films, titles, columns=len(films), title=f"Nearest films of other patients{mark}")


def prompt_regions(
    film: np.ndarray, heats: Sequence[np.ndarray], texts: Sequence[str], boxes: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None = None, title: str | None = None,
) -> Figure:
    """A film ``(H, W)`` under a map for each prompt, with the prompt's boxes (dashed) and, where given, the true ones (solid)."""
    fig, axes = panels(len(heats), min(4, len(heats)), (2.9, 3.2), title)
    for i, heat in enumerate(heats):
        show_film(axes[i], film, texts[i])
        _lay(axes[i], heat, film.shape, "viridis", 0.45)
        draw_boxes(axes[i], boxes[i], colour="white", linestyle="--", linewidth=1.5)
        if truth is not None:
            draw_boxes(axes[i], truth[i])
    return fig


def training_curves(rows: Sequence[Mapping[str, float]], best_epoch: int, title: str | None = None) -> Figure:
    """Training loss and validation AUC by epoch, with the epoch that was kept."""
    fig, axes = panels(2, 2, (3.6, 2.6), title)
    epochs = [r["epoch"] + 1 for r in rows]
    for ax, key, text in ((axes[0], "loss", "training loss"), (axes[1], "val_auc", "validation mean AUC")):
        ax.plot(epochs, [r[key] for r in rows], color=COLOURS[0], marker=".")
        ax.axvline(best_epoch + 1, color="0.6", linestyle="--", linewidth=0.9)
        ax.set_xlabel("epoch")
        ax.set_title(text, fontsize=9)
    clean(*axes)
    return fig


def prevalence_bars(prevalence: Mapping[str, Sequence[float]], labels: Sequence[str], title: str | None = None) -> Figure:
    """Share of positive films of each label, one bar per group (hospital, split ...)."""
    fig, ax = chart(max(5.0, 1.0 * len(labels)), 3.0)
    bars(ax, {name: 100 * np.asarray(values) for name, values in prevalence.items()}, labels)
    ax.set_ylabel("films with the finding (%)")
    fig.legend(loc="outside upper center", ncols=len(prevalence), frameon=False, fontsize=9, title=title)
    return fig


def audit_panels(audit: Audit) -> Figure:
    """Films of each split beside the published number, positive share of each label by split, and unknown labels where any."""
    labels, splits = list(dict.fromkeys(audit.labels["label"])), list(dict.fromkeys(audit.labels["split"]))
    columns = ["here", "published"] if audit.sizes["published"].notna().any() else ["here"]
    known = audit.labels.assign(share=100 * audit.labels["prevalence"].fillna(0))
    unknown = audit.labels.assign(share=100 * audit.labels["unknown"] / (audit.labels["unknown"] + audit.labels["n"]))
    shown = [("positive among known labels (%)", known), ("unknown labels (% of films)", unknown)]
    shown = shown if unknown["share"].any() else shown[:1]
    ratios = [max(3.2, 0.9 * len(audit.sizes)), max(3.2, 1.1 + 0.55 * len(labels))]
    fig = Figure(figsize=(sum(ratios) + 1, 1.0 + 2.8 * len(shown)), layout="constrained")
    axes = list(fig.subplot_mosaic([["films", i] for i in range(len(shown))], width_ratios=ratios).values())
    sizes = {column: audit.sizes[column].to_numpy(float) for column in columns}
    drawn = _audit_bars(axes[0], sizes, list(audit.sizes["part"]), [COLOURS[0], "0.75"], "films")
    for group, values in zip(drawn, sizes.values(), strict=True):
        axes[0].bar_label(group, ["" if np.isnan(v) else f"{int(v):,}" for v in values], fontsize=7, padding=1)
    for ax, (text, table) in zip(axes[1:], shown, strict=True):
        shares = table.pivot(index="label", columns="split", values="share").loc[labels]
        _audit_bars(ax, {split: shares[split].to_numpy() for split in splits}, labels, COLOURS[1:], text)
    name = audit.benchmark if "synthetic" in audit.benchmark or not audit.synthetic else f"{audit.benchmark} (synthetic)"
    fig.suptitle(f"{name}: {audit.images:,} images of {audit.patients:,} patients", fontsize=10)
    return fig


def _audit_bars(ax: Axes, groups: Mapping[str, np.ndarray], names: Sequence[str], colours: Sequence, ylabel: str) -> list:
    drawn = bars(ax, {group: np.nan_to_num(values) for group, values in groups.items()}, names,
                 {group: {"color": colour} for group, colour in zip(groups, colours, strict=False)})
    ax.set_ylim(0, None)
    ax.set_ylabel(ylabel, fontsize=8)
    ax.margins(y=0.1)
    ax.tick_params(labelsize=8)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(groups), frameon=False, fontsize=8)
    return drawn
