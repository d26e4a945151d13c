"""Pictures of data, films and results; every function returns a matplotlib Figure and shows nothing by itself."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from medbridge.data import Benchmark
from medbridge.data.audit import Audit
from medbridge.explain.attention import Explanation
from medbridge.extras.retrieve import FilmIndex, Neighbours
from medbridge.focal import extract_views
from medbridge.metrics.calibration import brier, ece, reliability
from medbridge.metrics.evaluate import Evaluation
from medbridge.metrics.thresholds import operating_points
from medbridge.viz.charts import bar_chart
from medbridge.viz.drawing import COLOURS, bars, chart, draw_boxes, errors, panels, show_film

_VIEW_SIDE = 256  # pixels; only for show


def film_grid(
    films: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4, boxes: Sequence[np.ndarray] = (),
    names: Sequence[Sequence[str]] = (), title: str | None = None, heats: Sequence[np.ndarray | None] = (), alpha: float = 0.55,
    size: float = 2.6,
) -> Figure:
    """Films ``(H, W)`` in [0, 1] side by side, each with its title and, where given, its boxes ``(N, 4)`` and their names.

    ``heats``: over each film a map of any shape or None, of one colour scale and not smoothed. ``size`` is of a film, in inches.
    """
    fig, axes = panels(len(films), columns, (size, size + 0.2), title)
    ends = [f([f(heat) for heat in heats if heat is not None] or [0]) for f in (np.min, np.max)]
    for i, (film, text) in enumerate(zip(films, titles, strict=True)):
        show_film(axes[i], film, text)
        if len(heats) and heats[i] is not None:
            extent = (0, film.shape[1], film.shape[0], 0)
            axes[i].imshow(heats[i], cmap="viridis", alpha=alpha, extent=extent, vmin=ends[0], vmax=ends[1])
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
        axes[c].plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        axes[c].set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel="false positive rate", title=label,
                    ylabel="true positive rate" if c % 4 == 0 else "")
        truth = y[mask[:, c], c]
        for i, (name, p) in enumerate(scores.items()):
            if len(np.unique(truth)) == 2:
                false, true, _ = roc_curve(truth, p[mask[:, c], c])
                axes[c].plot(false, true, ("-", "--", "-.", ":")[i % 4], color=COLOURS[i % 10], linewidth=1.4, label=name)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(scores), frameon=False, fontsize=9)
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
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        ax.errorbar(table["predicted"], table["observed"], errors(*(table[f"observed{end}"] for end in ("", "_lo", "_hi"))),
                    color=COLOURS[0], marker=".", linewidth=1.0, elinewidth=0.8)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="predicted probability", ylabel="share with the finding",
               title=f"{name}\nBrier {brier(y, p, mask):.3f}, ECE {ece(y, p, mask, bins):.3f}")
    return fig


def threshold_view(y: np.ndarray, scores: np.ndarray, threshold: float, title: str | None = None) -> Figure:
    """One label at one threshold: who is predicted positive, where that is on the ROC curve, and what follows.

    ``y`` and ``scores`` are ``(n,)``, of films whose label is known; both classes must be there.
    """
    truth = np.asarray(y) == 1
    point = operating_points(truth.astype(float), scores, threshold).iloc[0]
    fig, (histogram, roc, table) = panels(3, 3, (3.4, 3.1), title)
    bins = np.linspace(scores.min(), scores.max(), 25)
    for group, colour, hatch, name in ((~truth, COLOURS[0], "", "without"), (truth, COLOURS[1], "///", "with the finding")):
        histogram.hist(scores[group], bins, color=colour, hatch=hatch, alpha=0.6, edgecolor="white", label=name)
    histogram.axvline(threshold, color="black", label=f"threshold {threshold:.2f}")
    histogram.set(xlabel="score", ylabel="films")
    histogram.legend(frameon=False, fontsize=8)
    roc.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
    roc.plot(*roc_curve(truth, scores, drop_intermediate=False)[:2], color=COLOURS[0])
    roc.plot(1 - point["specificity"], point["sensitivity"], "o", color="black", markersize=8)
    cells = np.array([[point["tp"], point["fn"]], [point["fp"], point["tn"]]], dtype=int)
    sns.heatmap(cells, annot=True, fmt="d", cmap="Blues", cbar=False, ax=table, vmin=0, vmax=len(scores),
                xticklabels=["predicted\npositive", "predicted\nnegative"], yticklabels=["with", "without"])
    lines = (("sensitivity", "specificity"), ("precision", "f1", "accuracy"))
    table.set_xlabel("\n".join("   ".join(f"{name} {point[name]:.2f}" for name in line) for line in lines), fontsize=9)
    return fig


def router_weights(weights: np.ndarray, experts: Sequence[str], labels: Sequence[str], title: str = "") -> Figure:
    """The mixture's weights ``(n, K, C)``: mean over films beside their spread from film to film."""
    fig, ax = chart(1.5 + 0.85 * len(labels), 1.6 + 0.5 * len(experts))
    mean, spread = (pd.DataFrame(values, list(experts), list(labels)) for values in (weights.mean(axis=0), weights.std(axis=0)))
    sns.heatmap(mean, annot=mean.map("{:.2f}".format) + spread.map("\n± {:.2f}".format), fmt="", vmin=0, vmax=1, cmap="viridis",
                ax=ax, annot_kws={"fontsize": 8}, cbar_kws={"label": "weight"})
    ax.set(title=title)
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
    titles = [f"the film\n{textwrap.fill(names, 30)}", *(f"{e.rank}. cosine {e.similarity:.2f}\n{textwrap.fill(e.labels, 30)}"
                                                         for e in index.evidence(neighbours, query).itertuples())]
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
    for ax, key, text in zip(axes, ("loss", "val_auc"), ("training loss", "validation mean AUC"), strict=True):
        ax.plot([r["epoch"] + 1 for r in rows], [r[key] for r in rows], color=COLOURS[0], marker=".")
        ax.axvline(best_epoch + 1, color="0.6", linestyle="--", linewidth=0.9)
        ax.set(xlabel="epoch", title=text)
    return fig


def prevalence_bars(prevalence: Mapping[str, Sequence[float]], labels: Sequence[str], title: str | None = None) -> Figure:
    """Share of positive films of each label, one bar per group (hospital, split ...)."""
    shares = 100 * pd.DataFrame(prevalence, list(labels))
    return bar_chart(shares, title, width=max(5.0, 1.0 * len(labels)), ylabel="films with the finding (%)")


def audit_panels(audit: Audit) -> Figure:
    """Films of each split beside the published number, positive share of each label by split, and unknown labels where any."""
    table, names = audit.labels, list(dict.fromkeys(audit.labels["label"]))
    shares = {"positive among known labels (%)": 100 * table["prevalence"].fillna(0)}
    if table["unknown"].any():
        shares["unknown labels (% of films)"] = 100 * table["unknown"] / (table["unknown"] + table["n"])
    ratios = [max(3.2, 0.9 * len(audit.sizes)), max(3.2, 1.1 + 0.55 * len(names))]
    mark = " (synthetic)" if audit.synthetic and "synthetic" not in audit.benchmark else ""
    fig, axes = chart(sum(ratios) + 1, 1.0 + 2.8 * len(shares),
                      f"{audit.benchmark}{mark}: {audit.images:,} images of {audit.patients:,} patients",
                      [["films", text] for text in shares], width_ratios=ratios)
    groups = {"films": (audit.sizes.set_index("part")[["here", "published"]].dropna(axis=1, how="all"), [COLOURS[0], "0.75"])}
    for text, share in shares.items():
        by_split = table.assign(share=share).pivot(index="label", columns="split", values="share")
        groups[text] = by_split.loc[names, list(dict.fromkeys(table["split"]))], COLOURS[1:]
    for text, (values, colours) in groups.items():
        ax, columns = axes[text], {name: column.to_numpy(float) for name, column in values.items()}
        drawn = bars(ax, {name: np.nan_to_num(column) for name, column in columns.items()}, list(values.index),
                     {name: {"color": colour} for name, colour in zip(columns, colours, strict=False)})
        if text == "films":
            for group, column in zip(drawn, columns.values(), strict=True):
                ax.bar_label(group, ["" if np.isnan(v) else f"{int(v):,}" for v in column], fontsize=7, padding=1)
        ax.set_ylim(0, None)
        ax.set_ylabel(text, fontsize=8)
        ax.margins(y=0.1)
        ax.tick_params(labelsize=8)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(columns), frameon=False, fontsize=8)
    return fig


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
    present = np.flatnonzero([] if truth is None else np.asarray(truth) == 1)
    if len(present):
        top.plot(present, np.full(len(present), 1.05), "*", color="black", markersize=10, linestyle="none", label="present")
    base = np.cumsum(e.weights, axis=0) - e.weights
    for i, weights in enumerate(e.weights):
        stack = bottom.bar(np.arange(len(e.labels)), weights, 0.7, bottom=base[i], color=COLOURS[i % 10], edgecolor="white")
        bottom.bar_label(stack, [f"{w:.2f}" if w >= 0.12 else "" for w in weights], label_type="center", fontsize=7)
    top.set(ylim=(0, 1.14), ylabel="probability")
    bottom.set(ylim=(0, 1), ylabel="router weight")
    bottom.set_xticks(np.arange(len(e.labels)), e.labels, rotation=25, ha="right")
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
    for row, marker in enumerate("oD"):
        own = scores[truth == row]
        films.scatter(own, row + rng.uniform(-0.25, 0.25, len(own)), s=14, color=COLOURS[row], marker=marker, alpha=0.6)
        if len(own):
            films.plot([own.mean()] * 2, [row - 0.36, row + 0.36], color="black", linewidth=1.5)
    known = np.isin(truth, (0, 1))
    both = len(np.unique(truth[known])) == 2
    auc = f"AUC {roc_auc_score(truth[known], scores[known]):.2f}" if both else "AUC undefined: one group is empty"
    films.set(ylim=(-0.6, 1.6), xlabel="cosine similarity with the prompt",
              title=f"{int(known.sum())} films, a dot each, means in black: {auc}")
    films.set_yticks((0, 1), [f"{kind} {label}\n({(truth == row).sum()})" for row, kind in enumerate(("without", "with"))])
    order = np.argsort(to_labels)
    words.barh([labels[i] for i in order], to_labels[order], color=COLOURS[2])
    words.axvline(0, color="0.4", linewidth=0.8)
    words.set(xlabel="cosine similarity", title="the prompt and each label's own prompts")
    for ax in (films, words):
        ax.tick_params(labelsize=8)
    return fig


def placed_views(film: np.ndarray, boxes: np.ndarray, size: int, title: str | None = None) -> Figure:
    """A film ``(H, W)`` with numbered boxes ``(N, 4)``, and each as an encoder of input ``size`` x ``size`` sees it."""
    names = [f"view {i + 1}" for i in range(len(boxes))]
    rows = [["film", *names[::2]], ["film", *names[1::2], *"."[: len(names) % 2]]]
    fig, axes = chart(3.9 + 2.1 * (len(rows[0]) - 1), 4.3, title, rows, width_ratios=[1.9] + [1] * (len(rows[0]) - 1))
    show_film(axes["film"], film, f"film of {film.shape[0]} x {film.shape[1]} pixels", 9)
    draw_boxes(axes["film"], boxes, [str(i + 1) for i in range(len(boxes))])
    for name, view, (x0, _, x1, _) in zip(names, extract_views(film, boxes, size).numpy(), boxes, strict=True):
        show_film(axes[name], view, f"{name}: {x1 - x0:.0f} pixels\nbecome {size}", interpolation="nearest")
    return fig
