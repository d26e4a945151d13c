"""What a run found, as text: AUC of every method on every target, with intervals and the paired difference. [ours]"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medbridge.model import MedBridge
    from medbridge.studies.adapt import Adapted, Tested

__all__ = ["comparison_table", "target_table"]


def comparison_table(result: Adapted) -> str:
    """The table of every target, one below the other."""
    return "\n\n".join(target_table(tested, result.model) for tested in result.tested)


def target_table(tested: Tested, model: MedBridge) -> str:
    """Test AUC of every method, mean and by label, with 95 % bootstrap intervals, and the paired difference below.

    Above the table of a cross-domain target: the labels that it shares with the source.
    """
    cells = [["", *tested.evaluations]]
    macros = [e.macro for e in tested.evaluations.values()]
    cells.append(["mean", *(_cell(m["auc"], m["lo"], m["hi"]) for m in macros)])
    test = tested.target.test
    for c, label in enumerate(test.labels):
        rows = [e.per_label.iloc[c] for e in tested.evaluations.values()]
        cells.append([label, *(_cell(r["auc"], r["auc_lo"], r["auc_hi"]) for r in rows)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    if not tested.target.in_domain:
        lines.insert(0, f"{len(test.labels)} of the source's {len(model.labels)} labels are shared "
                        f"(source = target): {tested.target.mapping()}")
    patients = test.table["patient_id"].nunique()
    d = tested.difference
    zero = "; the interval holds zero" if d.lo <= 0 <= d.hi else ""
    return "\n".join([
        f"{test.name}, test split: {len(test)} films of {patients} patients, AUC [95 % bootstrap interval]",
        *lines,
        f"MedBridge minus linear probe, paired on the same films: {d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]{zero}",
    ])


def _cell(value: float, low: float, high: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
