"""Is it as good for everyone? AUC by sex, age band, view position and hospital, with intervals over patients.

Every group is measured on the same resamples of the patients, so that the gap to all other films gets an interval of its own. A
gap shows that the scores differ on these films; it does not say why (a group may hold harder films).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medbridge.data import Benchmark
from medbridge.errors import EvaluationError
from medbridge.metrics.bootstrap import bootstrap_aucs, checked_arrays, defined_mean, group_codes, percentiles
from medbridge.metrics.evaluate import auc

SUBGROUP_COLUMNS = ("sex", "age", "view", "ap_pa", "hospital")  # looked at where a benchmark's table has them


def _groups(table: pd.DataFrame, column: str) -> pd.Series:
    """The group of each film, missing where it is blank; age in years as its band, '40-59' and the like."""
    values = table[column].reset_index(drop=True)
    if column != "age":
        return values.where(values != "")  # so a blank cell of a CSV file is read
    names = ["0-17", "18-39", "40-59", "60-79", "80+"]
    return pd.cut(pd.to_numeric(values, errors="coerce"), [0, 18, 40, 60, 80, np.inf], right=False, labels=names).astype(object)


def known_subgroups(benchmark: Benchmark) -> list[str]:
    """Those of :data:`SUBGROUP_COLUMNS` by which these films fall into two groups or more, in that order."""
    table = benchmark.table
    return [c for c in SUBGROUP_COLUMNS if c in table.columns and _groups(table, c).nunique() > 1]


def subgroup_table(
    benchmark: Benchmark, scores: np.ndarray, columns: Sequence[str] | None = None, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Macro AUC of each group by scores ``(n, C)``, and the gap to the other films; films whose column is blank are left out.

    One row per group of ``columns`` (default: :data:`SUBGROUP_COLUMNS`): column, group, films, patients, labels (that have both
    classes in the group), auc, lo, hi (95 %); gap, gap_lo, gap_hi: group minus others, over the labels that are defined in both.
    """
    table = benchmark.table
    names = [c for c in SUBGROUP_COLUMNS if c in table.columns] if columns is None else list(columns)
    if (missing := [c for c in names if c not in table.columns]) or not names:
        raise EvaluationError(
            f"benchmark {benchmark.name!r} has no column {', '.join(missing) or ' or '.join(SUBGROUP_COLUMNS)}; "
            f"its columns are {', '.join(map(str, table.columns))}")
    y, known = benchmark.targets()
    y, scores, known = checked_arrays(y, scores, known)
    codes = group_codes(table["patient_id"], len(table))
    rows = []
    for column in names:
        values = _groups(table, column)
        for group in sorted(values.dropna().unique(), key=str):
            inside, held = (values == group).to_numpy(), values.notna().to_numpy()
            masks = [known & part[:, None] for part in (inside, held & ~inside)]
            own, others = (auc(y, scores, mask) for mask in masks)
            own_draws, other_draws = (bootstrap_aucs(y, [scores], mask, codes, n_boot, seed)[0] for mask in masks)
            gap, gap_draws = own - others, own_draws - other_draws
            [lo, gap_lo], [hi, gap_hi] = percentiles(np.stack([defined_mean(own_draws), defined_mean(gap_draws)], axis=1))
            rows.append({
                "column": column, "group": group, "films": int(inside.sum()), "patients": len(np.unique(codes[inside])),
                "labels": int(np.sum(~np.isnan(own))), "auc": float(defined_mean(own)), "lo": lo, "hi": hi,
                "gap": float(defined_mean(gap)), "gap_lo": gap_lo, "gap_hi": gap_hi})
    return pd.DataFrame(rows)
