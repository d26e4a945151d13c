"""Labels of 1 / 0 / -1 / blank, as the CheXpert labeler writes them, made 1 / 0 / unknown by a stated policy.

-1 is "uncertain": the report mentions the finding and does not commit itself. Irvin et al. (AAAI 2019, section 3.1) compare
U-Ignore, U-Zeros and U-Ones; no policy wins for every finding, hence one for each label where wanted. Blank is "not mentioned".
The literature's default, from that paper on, counts blank as negative, and so does this module; a report that is
silent on a finding is no proof of its absence, so ``blank='unknown'`` leaves such labels out of training and scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from medbridge.errors import BenchmarkError

__all__ = ["BLANK", "UNCERTAIN", "apply_policy"]

UNCERTAIN = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}
"""Policy -> what -1 becomes; NaN is unknown."""
BLANK = {"negative": 0.0, "unknown": np.nan}
"""Policy -> what a blank becomes."""


def apply_policy(
    table: pd.DataFrame,
    labels: Sequence[str],
    where: str,
    uncertain: str | Mapping[str, str] = "ignore",
    blank: str = "negative",
    first_row: int = 2,
) -> pd.DataFrame:
    """The label columns as float64: 1.0, 0.0, NaN = unknown.

    Args:
        table: holds the columns ``labels`` as text or numbers; other columns are ignored.
        where: the file that the table came from, named in every message.
        uncertain: 'ignore' | 'ones' | 'zeros' for every label, or a dict label -> policy; labels that it does not name
            are ignored where uncertain.
        blank: 'negative' or 'unknown'.
        first_row: how the file counts the row of index 0.

    Raises:
        BenchmarkError: an unknown policy or label, or a cell that is not 1, 0, -1 or blank (file, row and column).
    """
    if not isinstance(blank, str) or blank not in BLANK:
        raise BenchmarkError(f"blank={blank!r}; choose from {', '.join(BLANK)}")
    of_label = dict(uncertain) if isinstance(uncertain, Mapping) else dict.fromkeys(labels, uncertain)
    unknown = [label for label in of_label if label not in labels]
    if unknown:
        raise BenchmarkError(f"uncertain= names {', '.join(map(repr, unknown))}; the labels are {', '.join(labels)}")
    for label, policy in of_label.items():
        if not isinstance(policy, str) or policy not in UNCERTAIN:
            raise BenchmarkError(f"uncertain={policy!r} (label {label!r}); choose from {', '.join(UNCERTAIN)}")
    columns = {}
    for label in labels:
        meaning = {"1": 1.0, "0": 0.0, "-1": UNCERTAIN[of_label.get(label, "ignore")], "": BLANK[blank]}
        # A column of millions of cells holds four values: each value is judged once, then looked up by code.
        cells = pd.Categorical(table[label])
        keys = [_key(value) for value in cells.categories]
        for code, key in enumerate(keys):
            found = np.flatnonzero(cells.codes == code) if key not in meaning else ()
            if len(found):
                raise BenchmarkError(
                    f"{where}: row {table.index[found[0]] + first_row}: column {label!r} holds {str(cells.categories[code])!r}; "
                    f"expected 1 (present), 0 (absent), -1 (uncertain) or blank")
        values = np.array([*(meaning.get(key, np.nan) for key in keys), meaning[""]])  # the last is code -1: no value
        columns[label] = values[cells.codes]
    return pd.DataFrame(columns, index=table.index)


def _key(value: object) -> str:
    """'1', '0', '-1' or '' for '1.0', 1, ' -1 ' ...; any other text stays what it is."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.0f}" if number in (1, 0, -1) else text
