"""The table of a benchmark, one row per film (see :class:`medbridge.data.Benchmark`), and the rules that it obeys."""

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd

from medbridge.errors import BenchmarkError

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("image", "patient_id", "split")
# a path, on a line of its own, that may be absolute, of Windows, climbing out, or another spelling of one seen before
_ODD_PATH = re.compile(r"[\\\0:]|\.\.|//|/\./|^\.?/|/\.?$|^\.$", re.MULTILINE)


def shuffled_patients(patients: Iterable[str], seed: int) -> np.ndarray:
    """Every patient once; sorted before the shuffle, so that neither row order nor pandas' version changes who is drawn."""
    return np.random.default_rng(seed).permutation(np.array(sorted(set(patients)), dtype=object))


def assign_splits(table: pd.DataFrame, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> pd.DataFrame:
    """A copy of the table with a ``split`` column drawn by ``patient_id``, so that no patient lies in two splits.

    ``fractions`` of the patients are for train, val and test, and every non-zero one gets a patient. The order of the rows does
    not matter. BenchmarkError where the fractions are no split of 1, or for fewer patients than splits.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise BenchmarkError(f"fractions={fractions!r}: give three shares (train, val, test) that sum to 1")
    patients, needed = shuffled_patients(table["patient_id"], seed), np.count_nonzero(shares)
    if len(patients) < needed:
        raise BenchmarkError(f"{len(patients)} patient(s) cannot fill {needed} splits; add patients, or set a share to 0")
    counts = np.where(shares > 0, np.maximum(1, np.floor(shares * len(patients))), 0).astype(int)
    counts[np.argmax(shares)] += len(patients) - counts.sum()  # what rounding left over, or took too much of
    split_of = dict(zip(patients, np.repeat(SPLITS, counts), strict=True))
    return table.assign(split=[str(split_of[patient]) for patient in table["patient_id"]])


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """BenchmarkError where an argument is none of its words."""
    if not isinstance(value, str) or value not in choices:
        raise BenchmarkError(f"{name}={value!r}; choose from {', '.join(choices)}")


def check_whole_number(name: str, value: object, least: int) -> None:
    """BenchmarkError unless an argument is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise BenchmarkError(f"{name}={value!r}; give a whole number >= {least}")


def check_columns(table: pd.DataFrame, columns: Iterable[str], where: object, fix: str) -> None:
    """BenchmarkError where the table of the file ``where`` lacks one of these columns."""
    if missing := [column for column in columns if column not in table.columns]:
        held = ", ".join(map(str, table.columns))
        raise BenchmarkError(f"{where}: missing column(s) {', '.join(missing)}; found {held}; {fix}")


def check_cells(where: object, cells: pd.Series, wrong: Sequence[bool], fault: str) -> None:
    """BenchmarkError for the first ``wrong`` cell: file, spreadsheet row, and ``fault`` with its {name} and {value}."""
    wrong = np.asarray(wrong, dtype=bool)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise BenchmarkError(f"{where}: row {cells.index[i] + 2}: {fault.format(name=cells.name, value=cells.iloc[i])}")


def check_paths(images: pd.Series, where: object) -> list[str]:
    """The paths in plain spelling. BenchmarkError for one that is absolute, of Windows, or climbs out with '..'."""
    if not _ODD_PATH.search("\n".join(images)):  # one search in all; one by one only where there is something to judge
        return images.tolist()
    outside = [bool(PureWindowsPath(image).anchor) or ".." in image.split("/") or "\\" in image or "\0" in image
               for image in images]
    check_cells(where, images, outside, "image {value!r} must be a path inside the image folder: relative, with '/', no '..'")
    return [str(PurePosixPath(image)) for image in images]


def in_order(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The table with its required columns first, then the labels, then the metadata; rows are numbered anew."""
    first = [*REQUIRED_COLUMNS, *labels]
    return table[first + [column for column in table.columns if column not in first]].reset_index(drop=True)


def validate(table: pd.DataFrame, labels: Sequence[str], where: str | Path) -> None:
    """Check a benchmark's table of the file ``where``; messages count rows as a spreadsheet does (``table.index + 2``).

    BenchmarkError: missing column, no label, no row, blank image or patient, absolute or escaping path, duplicate image, unknown
    split, label outside 1 / 0 / blank, or a patient in two splits. UserWarning: a label with one class only in train.
    """
    check_columns(table, (*REQUIRED_COLUMNS, *labels), where, "add what is missing")
    if not labels or table.empty:
        fault = "no rows; add one row per film" if labels else "no label column; add one column per label with 1, 0 or blank"
        raise BenchmarkError(f"{where}: {fault}")
    for column in ("image", "patient_id"):
        check_cells(where, table[column], [not isinstance(cell, str) or not cell.strip() for cell in table[column]],
                    "column {name!r} is blank or no text ({value!r}); fill it in")
    images, rows = pd.Series(check_paths(table["image"], where), dtype=object), table.index + 2
    if (again := images.duplicated()).any():
        first, second = np.flatnonzero(images == images[again].iloc[0])[:2]
        raise BenchmarkError(f"{where}: rows {rows[first]} and {rows[second]} name the same image "
                             f"{table['image'].iloc[second]!r}; keep one of them")
    check_cells(where, table["split"], ~table["split"].isin(SPLITS), f"unknown split {{value!r}}; write {', '.join(SPLITS)}")
    split_of = table["split"].to_numpy()
    values = {label: pd.to_numeric(table[label], errors="coerce").to_numpy(dtype=np.float64) for label in labels}
    for label, numbers in values.items():
        check_cells(where, table[label], table[label].notna() & ~np.isin(numbers, (0.0, 1.0)),
                    "column {name!r} holds {value!r}; write 1 (present), 0 (absent) or leave it blank (unknown)")
    patients = pd.factorize(table["patient_id"])[0]
    first = np.unique(patients, return_index=True)[1][patients]  # where the patient's first film stands
    if len(wrong := np.flatnonzero(split_of != split_of[first])):
        held = " and ".join(f"{split_of[i]!r} (row {rows[i]})" for i in (first[wrong[0]], wrong[0]))
        raise BenchmarkError(f"{where}: patient {table['patient_id'].iloc[wrong[0]]!r} is in two splits, {held}; keep every film "
                             f"of a patient in one split, or results will look better than they are")
    train = split_of == "train"
    for label, numbers in values.items() if train.any() else ():
        held = [name for name, value in (("negative", 0), ("positive", 1)) if (numbers[train] == value).any()]
        if len(held) < 2:
            what = f"only {held[0]} films" if held else "no known value"
            warnings.warn(f"{where}: label {label!r} has {what} in the train split; it cannot be learned", stacklevel=2)
