"""Is it as good for everyone? AUC by sex, age band, view position and hospital, with intervals over patients. [ours]

Every group is measured on the same resamples of the patients, so that the gap between a group and all other films gets an
interval of its own. A gap shows that the scores differ on these films; it does not say why (a group may hold harder films).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from medbridge.data import Benchmark
from medbridge.metrics.bootstrap import EvaluationError, bootstrap_aucs, checked_arrays, defined_mean, group_codes, percentiles
from medbridge.metrics.evaluate import auc

__all__ = ["AGE_BANDS", "SUBGROUP_COLUMNS", "age_band", "known_subgroups", "subgroup_table"]

SUBGROUP_COLUMNS = ("sex", "age", "view", "ap_pa", "hospital")
"""Columns of a benchmark's table that are looked at where they are there."""

AGE_BANDS = (0, 18, 40, 60, 80)
"""Lower ends of the age bands in years."""


def _band_names(bands: Sequence[int]) -> list[str]:
    return [f"{low}-{high - 1}" for low, high in pairwise(bands)] + [f"{bands[-1]}+"]


def age_band(ages: Sequence[float], bands: Sequence[int] = AGE_BANDS) -> list[str | None]:
    """'40-59' and the like for each age in years; None where it is unknown, or below the first band."""
    names = _band_names(bands)
    out: list[str | None] = []
    for age in pd.to_numeric(pd.Series(list(ages)), errors="coerce"):
        at = np.searchsorted(bands, age, side="right") - 1 if not np.isnan(age) else -1
        out.append(names[at] if at >= 0 else None)
    return out


def _groups(table: pd.DataFrame, column: str, bands: Sequence[int]) -> pd.Series:
    """The group of each film, missing where it is blank; age as its band."""
    return pd.Series(age_band(table[column], bands) if column == "age" else table[column].to_numpy())


def known_subgroups(benchmark: Benchmark) -> list[str]:
    """Those of :data:`SUBGROUP_COLUMNS` by which these films fall into two groups or more, in that order."""
    table = benchmark.table
    return [c for c in SUBGROUP_COLUMNS if c in table.columns and _groups(table, c, AGE_BANDS).nunique() > 1]


def subgroup_table(
    benchmark: Benchmark, scores: np.ndarray, columns: Sequence[str] | None = None, bands: Sequence[int] = AGE_BANDS,
    n_boot: int = 1000, seed: int = 0, level: float = 0.95,
) -> pd.DataFrame:
    """Macro AUC of each group, and the gap to the other films.

    Args:
        benchmark: n films, for instance a test split. scores: ``(n, C)``.
        columns: of the benchmark's table; default those of :data:`SUBGROUP_COLUMNS` that it has. ``age`` is cut into ``bands``.
        n_boot, seed, level: as in :func:`medbridge.metrics.evaluate.evaluate`.

    Returns:
        One row a group: column, group, films, patients, labels (how many have both classes in the group), auc, lo, hi; then gap,
        gap_lo, gap_hi: the mean over the labels that are defined both in the group and outside it, group minus others; NaN where
        there is none. Films whose column is blank are left out of it.

    Raises:
        EvaluationError: arrays that do not fit, a column that the table lacks, or none at all.
    """
    table = benchmark.table
    names = [c for c in SUBGROUP_COLUMNS if c in table.columns] if columns is None else list(columns)
    missing = [c for c in names if c not in table.columns]
    if missing or not names:
        raise EvaluationError(
            f"benchmark {benchmark.name!r} has no column {', '.join(missing) or ' or '.join(SUBGROUP_COLUMNS)}; "
            f"its columns are {', '.join(map(str, table.columns))}")
    y, known = benchmark.targets()
    y, scores, known = checked_arrays(y, scores, known)
    codes = group_codes(table["patient_id"], len(table))
    rows = []
    for column in names:
        values = _groups(table, column, bands)
        held = values.notna().to_numpy()
        groups = sorted(values[held].unique(), key=str)
        if column == "age":
            groups = [g for g in _band_names(bands) if g in set(groups)]
        for group in groups:
            inside = (values == group).to_numpy()
            rows.append({"column": column, "group": group, "films": int(inside.sum()),
                         "patients": len(np.unique(codes[inside])),
                         **_row(y, scores, known, inside, held & ~inside, codes, n_boot, seed, level)})
    return pd.DataFrame(rows)


def _row(
    y: np.ndarray, scores: np.ndarray, known: np.ndarray, inside: np.ndarray, outside: np.ndarray, codes: np.ndarray,
    n_boot: int, seed: int, level: float,
) -> dict[str, float]:
    points, draws = [], []
    for part in (inside, outside):
        mask = known & part[:, None]
        points.append(auc(y, scores, mask))
        draws.append(bootstrap_aucs(y, [scores], mask, codes, n_boot, seed)[0])
    lo, hi = percentiles(defined_mean(draws[0])[:, None], level)
    gap = points[0] - points[1]
    gap_lo, gap_hi = percentiles(defined_mean(draws[0] - draws[1])[:, None], level)
    return {"labels": int(np.sum(~np.isnan(points[0]))), "auc": float(defined_mean(points[0])), "lo": lo[0], "hi": hi[0],
            "gap": float(defined_mean(gap)), "gap_lo": gap_lo[0], "gap_hi": gap_hi[0]}
