"""Labels of 1 / 0 / -1 / blank, as the CheXpert labeler writes them, made 1 / 0 / unknown by a stated policy.

-1 is "uncertain": Irvin et al. (AAAI 2019, section 3.1) compare U-Ignore, U-Zeros and U-Ones; no policy wins for every finding.
Blank is "not mentioned": negative in the literature and here, unless blank='unknown', since silence is no proof of absence.
torchxrayvision takes blanks as unknown, and sets all findings of a film of 'No Finding' to 0; here cells are taken as written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.table import check_cells, check_choice
from medbridge.errors import BenchmarkError

_UNCERTAIN = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}  # policy -> what -1 becomes; NaN is unknown
_BLANK = {"negative": 0.0, "unknown": np.nan}  # policy -> what a blank becomes


def apply_policy(table: pd.DataFrame, labels: Sequence[str], where: str | Path, uncertain: str | Mapping[str, str] = "ignore",
                 blank: str = "negative") -> pd.DataFrame:
    """The label columns of the file ``where``, text or numbers, as float64: 1.0, 0.0, NaN = unknown.

    ``uncertain`` is 'ignore', 'ones' or 'zeros' for every label, or a dict label -> policy, 'ignore' for those not named;
    ``blank`` is 'negative' or 'unknown'. BenchmarkError for another policy or label, or a cell that is not 1, 0, -1 or blank.
    """
    check_choice("blank", blank, _BLANK)
    of_label = dict(uncertain) if isinstance(uncertain, Mapping) else dict.fromkeys(labels, uncertain)
    if unknown := [label for label in of_label if label not in labels]:
        raise BenchmarkError(f"uncertain= names {', '.join(map(repr, unknown))}; the labels are {', '.join(labels)}")
    columns = {}
    for label in labels:
        policy = of_label.get(label, "ignore")
        check_choice(f"label {label!r}: uncertain", policy, _UNCERTAIN)
        meaning = {"1": 1.0, "0": 0.0, "-1": _UNCERTAIN[policy], "": _BLANK[blank]}
        # A column of millions of cells holds four values: each value is judged once, then looked up by code.
        cells = pd.Categorical(table[label])
        keys = [*map(_key, cells.categories), ""]  # the last is code -1: no value
        if not meaning.keys() >= set(keys):
            check_cells(where, table[label].astype(str), np.array([key not in meaning for key in keys])[cells.codes],
                        "column {name!r} holds {value!r}; expected 1 (present), 0 (absent), -1 (uncertain) or blank")
        columns[label] = np.array([meaning.get(key, np.nan) for key in keys])[cells.codes]
    return pd.DataFrame(columns, index=table.index)


def _key(value: object) -> str:
    """'1', '0', '-1' or '' for '1.0', 1, ' -1 ' ...; any other text stays what it is."""
    text = str(value).strip()
    try:
        return f"{float(text):.0f}" if float(text) in (1, 0, -1) else text
    except ValueError:
        return text
