"""Pictures of a leaderboard, an ablation and an experiment, drawn from their tables; every function returns a Figure."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

from medbridge.studies.cells import MEDBRIDGE
from medbridge.viz.drawing import COLOURS, caption, chart, errors, interval, panels

_MARK = {True: " (SYNTHETIC films)", False: ""}


def leaderboard_plot(table: pd.DataFrame, text: str) -> Figure:
    """Test AUC of every method with its interval, best on top, and how many numbers each trained; MedBridge in orange.

    ``table`` is that of :class:`medbridge.studies.leaderboard.Leaderboard`; ``text`` says what was measured.
    """
    fig, ax = chart(7.5, 1.6 + 0.32 * len(table))
    for row in table.itertuples():
        interval(ax, row.Index, row.auc, row.lo, row.hi, COLOURS[1] if row.method == MEDBRIDGE else COLOURS[0])
    ax.axvline(0.5, color="0.7", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(table)), [f"{r.method} ({r.parameters:,})" for r in table.itertuples()])
    ax.invert_yaxis()
    # centred on the figure, not on the axes, whose left half is method names
    fig.supxlabel("mean test AUC over labels and seeds, 95 % interval over patients (brackets: trained parameters)", fontsize=8)
    caption(fig, text, 105)
    return fig


def forest_plot(table: pd.DataFrame, text: str) -> Figure:
    """Every variant's difference from the default with its interval, by factor: validation (left) and test (right).

    A filled point: the interval leaves zero out. A star: so it does after Holm's correction for all variants. ``table`` is
    that of :class:`medbridge.studies.ablation.Ablation`; ``text`` says what was measured.
    """
    rows = table[table["val_diff"].notna()].reset_index(drop=True)
    new = (rows["factor"] != rows["factor"].shift()).cumsum() - 1
    at = np.arange(len(rows)) + 0.6 * new.to_numpy()  # a gap between factors
    end = at[-1] if len(at) else -1
    fig, axes = chart(9.5, 1.88 + 0.24 * end, ncols=2, sharey=True, sharex=True)
    for ax, split, title in zip(axes, ("val", "test"), ("validation: to choose by", "test: to report"), strict=True):
        ax.axvline(0, color="0.4", linewidth=0.9, linestyle="--")
        for y, row in zip(at, rows.to_dict("records"), strict=True):
            diff, lo, hi = (row[f"{split}_{name}"] for name in ("diff", "lo", "hi"))
            clear = lo > 0 or hi < 0
            interval(ax, y, diff, lo, hi, COLOURS[0] if clear else "0.45", filled=clear)
            if row[f"{split}_holm"] < 0.05:
                ax.annotate("*", (hi, y), (3, -4), textcoords="offset points", fontsize=10)
        ax.set(title=title, axisbelow=True)
        ax.grid(axis="x", color="0.92")
    axes[0].set_yticks(at, [f"{r.factor}:  {r.variant}" for r in rows.itertuples()], fontsize=8)
    axes[0].set_ylim(max(end, 0) + 0.7, -0.7)
    fig.supxlabel("mean AUC minus the default's, 95 % paired interval over patients (filled: leaves zero out; *: Holm p < 0.05)",
                  fontsize=8)
    caption(fig, text, 125)
    return fig


def cost_plot(table: pd.DataFrame, text: str) -> Figure:
    """What a variant costs against what it brings: validation AUC over training seconds (left) and trained parameters (right).

    One marker per factor; the default is the black ring with the lines through it. Right below the lines is dearer and worse,
    left above them cheaper and better. ``table`` and ``text`` as for :func:`forest_plot`.
    """
    fig, axes = chart(9.5, 4.6, ncols=2, sharey=True)
    default = table.iloc[0]
    for ax, cost, label in zip(axes, ("seconds", "parameters"), ("training time in seconds", "trained parameters"), strict=True):
        for i, (factor, rows) in enumerate(table.iloc[1:].groupby("factor", sort=False)):
            ax.plot(rows[cost], rows["val_auc"], "osD^vP*X<>p"[i % 11], color=COLOURS[i % 10], label=factor, alpha=0.9)
        ax.axhline(default["val_auc"], color="0.7", linewidth=0.8, linestyle="--")
        ax.axvline(default[cost], color="0.7", linewidth=0.8, linestyle="--")
        ax.plot(default[cost], default["val_auc"], "o", color="black", markersize=11, markerfacecolor="none", label="default")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(label, fontsize=9)
    axes[0].set_ylabel("validation mean AUC", fontsize=9)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8, title="factor",
               title_fontsize=8)
    caption(fig, text, 125)
    return fig


def budget_curves(averages: pd.DataFrame, task: str, label: str = "mean") -> Figure:
    """AUC against the share of training labels: one panel per source and target, one line per method, with 95 % intervals.

    ``averages`` is that of :class:`medbridge.studies.experiment.Results`; ``label`` is a finding, or 'mean'.
    """
    rows = averages[(averages["task"] == task) & (averages["label"] == label)]
    pairs, methods = rows.groupby(["train", "test"], sort=False), list(dict.fromkeys(rows["method"]))
    tests = rows["test"].nunique()
    columns = tests if tests > 1 and tests * rows["train"].nunique() == len(pairs) else min(3, len(pairs))
    fig, axes = panels(len(pairs), columns, (max(4.5 / columns, 3.3), 3.2), sharey=True)
    for ax, ((train, test), here) in zip(axes, pairs, strict=False):
        for i, method in enumerate(methods):
            line = here[here["method"] == method].sort_values("label_fraction")
            # a little aside, or the intervals would hide each other
            at = line["label_fraction"] * 1.09 ** (i - (len(methods) - 1) / 2)
            ax.errorbar(at, line["auc"], errors(line["auc"], line["lo"], line["hi"]), color=COLOURS[i % 10],
                        marker="oDs^vX*P"[i % 8], markersize=4, linewidth=1.3, elinewidth=0.9, capsize=2, label=method)
        ax.axhline(0.5, color="0.5", linewidth=0.8, linestyle="--")
        ax.set(xscale="log", title=f"{train}, in-domain" if here["in_domain"].all() else f"{train} → {test}")
        fractions = sorted(here["label_fraction"].unique())
        ax.set_xticks(fractions, [f"{100 * f:g} %" for f in fractions])
        ax.xaxis.set_minor_locator(NullLocator())
    fig.supxlabel("training patients whose labels are used", fontsize=9)
    fig.supylabel(f"test AUC, {label} (95 % interval)", fontsize=9)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(methods), frameon=False, fontsize=9,
               title=f"{task}{_MARK[rows['synthetic'].any()]}")
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
    rows = rows.assign(text=[f"{r.auc:.2f}\n[{r.lo:.2f}, {r.hi:.2f}]" for r in rows.itertuples()])
    fractions = sorted(rows["label_fraction"].unique())
    fig, axes = panels(len(fractions), len(fractions), (0.7 + len(targets) + 1.3 / len(fractions), 1.5 + 0.75 * len(sources)),
                       f"{method}: {task} [95 % interval]; diagonal: in-domain{_MARK[rows['synthetic'].any()]}")
    for ax, fraction in zip(axes, fractions, strict=True):
        grid = rows[rows["label_fraction"] == fraction].pivot(index="train", columns="test").reindex(sources)
        value, text = (grid[column].reindex(columns=targets) for column in ("auc", "text"))
        sns.heatmap(value, annot=text, fmt="", vmin=min(0.5, rows["auc"].min()), vmax=1, cmap="viridis", ax=ax, linewidths=1,
                    cbar=ax is axes[-1], xticklabels=True, yticklabels=ax is axes[0], annot_kws={"fontsize": 8},
                    cbar_kws={"label": "mean test AUC"})
        ax.set_title(f"{100 * fraction:g} % of the labels")
        ax.set_xlabel("scored on", fontsize=9)
        ax.set_ylabel("trained on" if ax is axes[0] else "", fontsize=9)
        ax.tick_params(axis="x", rotation=25, labelsize=8)
        ax.tick_params(axis="y", rotation=0, labelsize=8)
    return fig


def write_figures(averages: pd.DataFrame, folder: Path) -> list[Path]:
    """One picture of label budgets per task, and one matrix per cross-domain task, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for task, rows in averages.groupby("task", sort=False):
        name = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")
        for kind, draw in (("budget", budget_curves), ("matrix", domain_matrix)):
            if kind == "budget" or (rows["kind"] == "cross-domain").all():
                paths.append(folder / f"{kind}-{name}.png")
                draw(averages, task).savefig(paths[-1], dpi=130)
    return paths
