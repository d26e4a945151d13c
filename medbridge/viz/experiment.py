"""Pictures of an experiment, drawn from its tables; every function returns a matplotlib Figure. [ours]"""

import re
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from medbridge.studies.cells import MEDBRIDGE
from medbridge.viz.drawing import COLOURS, chart, clean, errors


def _marked(title: str, rows: pd.DataFrame) -> str:
    return f"{title} (SYNTHETIC films)" if rows["synthetic"].any() else title


def budget_curves(averages: pd.DataFrame, task: str, label: str = "mean") -> Figure:
    """AUC against the share of training labels: one panel per source and target, one line per method, with 95 % intervals.

    ``averages`` is that of :class:`medbridge.studies.experiment.Results`; ``label`` is a finding, or 'mean'.
    """
    rows = averages[(averages["task"] == task) & (averages["label"] == label)]
    methods = list(dict.fromkeys(rows["method"]))
    pairs = list(dict.fromkeys(zip(rows["train"], rows["test"], strict=True)))
    tests = rows["test"].nunique()
    columns = tests if tests > 1 and tests * rows["train"].nunique() == len(pairs) else min(3, len(pairs))
    lines = -(-len(pairs) // columns)
    fig, axes = chart(max(4.5, 3.3 * columns), 0.9 + 2.6 * lines, nrows=lines, ncols=columns, squeeze=False, sharey=True)
    axes = axes.ravel()
    for ax, (train, test) in zip(axes, pairs, strict=False):
        here = rows[(rows["train"] == train) & (rows["test"] == test)]
        fractions = sorted(here["label_fraction"].unique())
        for i, method in enumerate(methods):
            line = here[here["method"] == method].sort_values("label_fraction")
            # a little aside, or the intervals would hide each other
            at = line["label_fraction"] * 1.09 ** (i - (len(methods) - 1) / 2)
            ax.errorbar(at, line["auc"], errors(line["auc"], line["lo"], line["hi"]), color=COLOURS[i % 10],
                        marker="oDs^vX*P"[i % 8], markersize=4, linewidth=1.3, elinewidth=0.9, capsize=2, label=method)
        ax.axhline(0.5, color="0.5", linewidth=0.8, linestyle="--")
        ax.set_xscale("log")
        ax.set_xticks(fractions, [f"{100 * f:g} %" for f in fractions])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(f"{train}, in-domain" if here["in_domain"].all() else f"{train} → {test}", fontsize=9)
        clean(ax)
    for ax in axes[len(pairs):]:
        ax.set_axis_off()
    fig.supxlabel("training patients whose labels are used", fontsize=9)
    fig.supylabel(f"test AUC, {label} (95 % interval)", fontsize=9)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(methods), frameon=False, fontsize=9,
               title=_marked(task, rows))
    return fig


def domain_matrix(averages: pd.DataFrame, task: str, method: str = MEDBRIDGE) -> Figure:
    """Mean AUC of one method, source by target, one panel per label fraction; the diagonal is in-domain.

    What the task itself does not hold of the diagonal is taken from an in-domain multi-label task on the same films. Each cell
    is over the labels that its pair shares, so cells of different pairs are comparable only where these are the same.
    """
    means = averages[(averages["label"] == "mean") & (averages["method"] == method)]
    rows = means[means["task"] == task]
    within = means[means["in_domain"] & (means["kind"] == "multi-label") & means["train"].isin(rows["train"])
                   & means["test"].isin(rows["test"])]
    sources, targets = (list(dict.fromkeys(rows[c])) for c in ("train", "test"))
    rows = pd.concat([rows, within]).drop_duplicates(["train", "test", "label_fraction"])
    fractions = sorted(rows["label_fraction"].unique())
    title = _marked(f"{method}: {task} [95 % interval]; diagonal: in-domain", rows)
    fig, axes = chart(1.3 + (0.7 + 1.0 * len(targets)) * len(fractions), 1.5 + 0.75 * len(sources), title, ncols=len(fractions),
                      squeeze=False)
    axes, low = axes[0], min(0.5, rows["auc"].min())
    rows = rows.assign(text=[f"{r.auc:.2f}\n[{r.lo:.2f}, {r.hi:.2f}]" for r in rows.itertuples()])
    for ax, fraction in zip(axes, fractions, strict=True):
        grid = rows[rows["label_fraction"] == fraction].pivot(index="train", columns="test").reindex(sources)
        value, text = (grid[column].reindex(columns=targets) for column in ("auc", "text"))
        sns.heatmap(value, annot=text, fmt="", vmin=low, vmax=1, cmap="viridis", ax=ax, cbar=ax is axes[-1], linewidths=1,
                    xticklabels=targets, yticklabels=sources if ax is axes[0] else False, annot_kws={"fontsize": 8},
                    cbar_kws={"label": "mean test AUC"})
        ax.set_title(f"{100 * fraction:g} % of the labels", fontsize=9)
        ax.set_xlabel("scored on", fontsize=9)
        ax.tick_params(axis="x", rotation=25, labelsize=8)
        ax.tick_params(axis="y", rotation=0, labelsize=8)
        ax.set_ylabel("trained on" if ax is axes[0] else "", fontsize=9)
    return fig


def write_figures(averages: pd.DataFrame, folder: Path) -> list[Path]:
    """One picture of label budgets per task, and one matrix per cross-domain task, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for task, rows in averages.groupby("task", sort=False):
        name = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")
        figures = {f"budget-{name}": budget_curves(averages, task)}
        if (rows["kind"] == "cross-domain").all():
            figures[f"matrix-{name}"] = domain_matrix(averages, task)
        for stem, figure in figures.items():
            paths.append(folder / f"{stem}.png")
            figure.savefig(paths[-1], dpi=130)
    return paths
