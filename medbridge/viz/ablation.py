"""Pictures of an ablation, drawn from its table; every function returns a matplotlib Figure. [ours]"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from medbridge.viz.drawing import COLOURS, caption, chart, clean, interval


def forest_plot(table: pd.DataFrame, text: str) -> Figure:
    """Every variant's difference from the default with its interval, by factor: validation (left) and test (right).

    A filled point: the interval leaves zero out. A star: so it does after Holm's correction for all variants. ``table`` is
    that of :class:`medbridge.studies.ablation.Ablation`; ``text`` says what was measured.
    """
    rows = table[table["val_diff"].notna()].reset_index(drop=True)
    new = (rows["factor"] != rows["factor"].shift()).cumsum() - 1
    at = np.arange(len(rows)) + 0.6 * new.to_numpy()  # a gap between factors
    height = 1.5 + 0.24 * (len(rows) + 0.6 * (new.max() + 1 if len(rows) else 0))
    fig, axes = chart(9.5, height, ncols=2, sharey=True, sharex=True)
    for ax, split, title in zip(axes, ("val", "test"), ("validation: to choose by", "test: to report"), strict=True):
        ax.axvline(0, color="0.4", linewidth=0.9, linestyle="--")
        for y, row in zip(at, rows.to_dict("records"), strict=True):
            diff, lo, hi = (row[f"{split}_{name}"] for name in ("diff", "lo", "hi"))
            clear = lo > 0 or hi < 0
            interval(ax, y, diff, lo, hi, COLOURS[0] if clear else "0.45", filled=clear)
            if row[f"{split}_holm"] < 0.05:
                ax.annotate("*", (hi, y), (3, -4), textcoords="offset points", fontsize=10)
        ax.set_title(title, fontsize=9)
        ax.grid(axis="x", color="0.92")
        ax.set_axisbelow(True)
    clean(*axes)
    axes[0].set_yticks(at, [f"{r.factor}:  {r.variant}" for r in rows.itertuples()], fontsize=8)
    axes[0].set_ylim((at[-1] if len(at) else 0) + 0.7, -0.7)
    fig.supxlabel("mean AUC minus the default's, 95 % paired interval over patients (filled: leaves zero out; *: Holm p < 0.05)",
                  fontsize=8)
    caption(fig, text, 125)
    return fig


def cost_plot(table: pd.DataFrame, text: str, split: str = "val") -> Figure:
    """What a variant costs against what it brings: mean AUC over training seconds (left) and over trained parameters (right).

    One marker per factor; the default is the black ring with the lines through it. Right below the lines is dearer and worse,
    left above them cheaper and better. ``table`` and ``text`` as for :func:`forest_plot`; ``split`` is 'val' or 'test'.
    """
    fig, axes = chart(9.5, 4.6, ncols=2, sharey=True)
    default, auc = table.iloc[0], f"{split}_auc"
    for ax, cost, label in zip(axes, ("seconds", "parameters"), ("training time in seconds", "trained parameters"), strict=True):
        for i, (factor, rows) in enumerate(table.iloc[1:].groupby("factor", sort=False)):
            ax.plot(rows[cost], rows[auc], "osD^vP*X<>p"[i % 11], color=COLOURS[i % 10], markersize=6, linestyle="none",
                    label=factor, alpha=0.9)
        ax.axhline(default[auc], color="0.7", linewidth=0.8, linestyle="--")
        ax.axvline(default[cost], color="0.7", linewidth=0.8, linestyle="--")
        ax.plot(default[cost], default[auc], "o", color="black", markersize=11, markerfacecolor="none", label="default")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(label, fontsize=9)
    clean(*axes)
    axes[0].set_ylabel(f"{'validation' if split == 'val' else split} mean AUC", fontsize=9)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8, title="factor",
               title_fontsize=8)
    caption(fig, text, 125)
    return fig
