"""The one type that every benchmark becomes, and the checks that its table must pass.

A benchmark is a folder of films and a table with one row a film: ``image`` (path relative to ``root``),
``patient_id``, ``split`` and one float column a label (1.0 present, 0.0 absent, NaN unknown). Everything
downstream (focal sampling, training, evaluation) reads that table and nothing else. The design is [ours];
that patients, not films, are what is split and drawn follows the paper's label budgets.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd

from medbridge.data.images import read_film
from medbridge.errors import BenchmarkError

__all__ = ["REQUIRED_COLUMNS", "SPLITS", "Benchmark", "assign_splits", "check_paths", "validate"]

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("image", "patient_id", "split")
# In a path, with line breaks around it: it may be absolute, of Windows, climbing out, or another spelling of one seen before.
_MARKS = ("\\", "\0", ":", "..", "//", "/./", "\n/", "\n./", "/\n", "/.\n", "\n.\n")


@dataclass(frozen=True)
class Benchmark:
    """Films, labels and splits of one benchmark (or of a part of one).

    Attributes:
        name: short name, for reports.
        root: folder that the ``image`` column is relative to.
        labels: the C label names, in the order of every (n, C) array.
        table: n rows: ``image`` str, ``patient_id`` str, ``split`` 'train' | 'val' | 'test', one float column
            a label (1.0 / 0.0 / NaN = unknown), then any metadata columns.
        synthetic: True where the films are drawn by a program, not taken of patients.
        boxes: optional rows of ``image, label, x0, y0, x1, y1`` in pixels of the original film.
        official: images of each split in the whole distribution as published; empty where there is none.
        dropped: optional rows of ``image, reason``: what the files list and this benchmark does not hold.

    Raises:
        BenchmarkError: on construction, where the table lacks a required or label column.
    """

    name: str
    root: Path
    labels: tuple[str, ...]
    table: pd.DataFrame
    synthetic: bool = False
    boxes: pd.DataFrame | None = None
    official: Mapping[str, int] = field(default_factory=dict)
    dropped: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "labels", tuple(self.labels))
        missing = [c for c in (*REQUIRED_COLUMNS, *self.labels) if c not in self.table.columns]
        if missing:
            raise BenchmarkError(
                f"benchmark {self.name!r}: its table lacks the column(s) {', '.join(missing)}"
            )

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> Benchmark:
        """The films of one split. BenchmarkError for an unknown name, or for a split that holds no film."""
        if name not in SPLITS:
            raise BenchmarkError(
                f"benchmark {self.name!r}: unknown split {name!r}; choose from {', '.join(SPLITS)}"
            )
        indices = np.flatnonzero(self.table["split"].to_numpy() == name)
        if len(indices) == 0:
            held = self.table["split"].value_counts().to_dict()
            raise BenchmarkError(f"benchmark {self.name!r}: split {name!r} is empty; films by split: {held}")
        return self.take(indices)

    def take(self, indices: Sequence[int] | np.ndarray) -> Benchmark:
        """The films (and their boxes) at these positions, or where a boolean (n,) mask is True."""
        indices = np.asarray(indices)
        if indices.dtype == bool:
            if indices.shape != (len(self),):
                raise BenchmarkError(
                    f"benchmark {self.name!r}: the mask has shape {indices.shape}, not ({len(self)},)"
                )
            indices = np.flatnonzero(indices)
        table = self.table.iloc[indices.astype(np.int64)].reset_index(drop=True)
        boxes = self.boxes
        if boxes is not None:
            boxes = boxes[boxes["image"].isin(set(table["image"]))].reset_index(drop=True)
        return replace(self, table=table, boxes=boxes)

    def select(self, labels: Sequence[str] | Mapping[str, str]) -> Benchmark:
        """The same films with these labels alone, in this order: one label against the rest, or the labels that two
        benchmarks share.

        Args:
            labels: names of labels; a mapping also renames each (own name -> new name), boxes included.

        Raises:
            BenchmarkError: no label, a label that the benchmark lacks, or two labels of one name.
        """
        names = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
        unknown = [name for name in names if name not in self.labels]
        if isinstance(labels, str) or not names or unknown:
            raise BenchmarkError(
                f"benchmark {self.name!r}: select({labels!r}): give labels out of {', '.join(self.labels)}"
            )
        if len(names) < len(list(labels)) or len(set(names.values())) < len(names):
            raise BenchmarkError(f"benchmark {self.name!r}: select({labels!r}) names a label twice")
        # other labels go, and a metadata column gives way to a label that takes its name
        gone = [c for c in self.table.columns if c not in names and c in {*self.labels, *names.values()}]
        boxes = self.boxes
        if boxes is not None:
            boxes = boxes[boxes["label"].isin(names)].reset_index(drop=True)
            boxes = boxes.assign(label=boxes["label"].map(names))
        table = self.table.drop(columns=gone).rename(columns=names)
        return replace(self, labels=tuple(names.values()), table=table, boxes=boxes)

    def subset(self, n: float, split: str | None = None, seed: int = 0) -> Benchmark:
        """Draw whole patients, split by split: the label budgets of the paper (1 %, 10 %, 100 %) and quick
        trials.

        Args:
            n: int: that many patients of each split (all of them where it has fewer); float in (0, 1]: that
                fraction of its patients, at least one.
            split: thin this split alone and keep the other splits whole; None thins every split.
            seed: same seed: the same patients, and a smaller budget always lies inside a larger one.
        """
        fraction = isinstance(n, (float, np.floating))
        if isinstance(n, bool) or not (0 < n <= 1 if fraction else n >= 1):
            raise BenchmarkError(
                f"subset: n={n!r}; give a number of patients (int >= 1) or a fraction (float in (0, 1])"
            )
        if split is not None and split not in SPLITS:
            raise BenchmarkError(f"subset: unknown split {split!r}; choose from {', '.join(SPLITS)}")
        keep = np.zeros(len(self), dtype=bool)
        splits, patients = self.table["split"].to_numpy(), self.table["patient_id"].to_numpy()
        for name in SPLITS:
            here = splits == name
            if split in (None, name):
                drawn = _shuffled_patients(patients[here], seed)
                count = max(1, round(float(n) * len(drawn))) if fraction else int(n)
                here = here & np.isin(patients, drawn[:count])
            keep |= here
        return self.take(keep)

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """``(y, mask)``: y float32 (n, C), 0 where unknown; mask bool (n, C), True where known."""
        values = self.table.loc[:, list(self.labels)].to_numpy(dtype=np.float32)
        mask = ~np.isnan(values)
        return np.where(mask, values, np.float32(0)), mask

    def paths(self) -> list[Path]:
        """The n files, in table order."""
        return [self.root / image for image in self.table["image"]]

    def image_ids(self) -> list[str]:
        """The n values of the ``image`` column: unique in the benchmark, used as cache keys."""
        return self.table["image"].tolist()

    def read(self, i: int) -> np.ndarray:
        """Film i: float32 (H, W) in [0, 1], white = dense. ImageError where it cannot be read."""
        return read_film(self.root / self.table["image"].iloc[i])

    def summary(self) -> pd.DataFrame:
        """One row a label and split: label, split, n known, positive, negative, unknown, prevalence."""
        rows = []
        for label in self.labels:
            for name in SPLITS:
                values = self.table.loc[self.table["split"] == name, label].to_numpy(dtype=np.float64)
                if len(values) == 0:
                    continue
                known = int(np.sum(~np.isnan(values)))
                positive = int(np.sum(values == 1))
                rows.append(
                    {
                        "label": label,
                        "split": name,
                        "n": known,
                        "positive": positive,
                        "negative": known - positive,
                        "unknown": len(values) - known,
                        "prevalence": positive / known if known else float("nan"),
                    }
                )
        return pd.DataFrame(
            rows, columns=["label", "split", "n", "positive", "negative", "unknown", "prevalence"]
        )


def _shuffled_patients(patients: Iterable[str], seed: int) -> np.ndarray:
    # Sorted before the shuffle, so that neither row order nor pandas' version changes who is drawn.
    return np.random.default_rng(seed).permutation(np.array(sorted(set(patients)), dtype=object))


def assign_splits(
    table: pd.DataFrame, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0
) -> pd.DataFrame:
    """A copy of the table with a ``split`` column drawn by patient, so that no patient lies in two splits.

    Args:
        table: needs ``patient_id``.
        fractions: of the patients for train, val and test; they sum to 1. Every non-zero share gets a
            patient.
        seed: same seed and patients: same splits, in whatever order the rows come.

    Raises:
        BenchmarkError: fractions that are no split of 1, or fewer patients than splits.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise BenchmarkError(f"fractions={fractions!r}: give three shares (train, val, test) that sum to 1")
    patients = _shuffled_patients(table["patient_id"], seed)
    if len(patients) < np.count_nonzero(shares):
        raise BenchmarkError(
            f"{len(patients)} patient(s) cannot fill {np.count_nonzero(shares)} splits; "
            f"add patients, or set a share to 0"
        )
    counts = np.where(shares > 0, np.maximum(1, np.floor(shares * len(patients))), 0).astype(int)
    # What rounding left over (or took too much of) is settled with the largest share.
    counts[np.argmax(shares)] += len(patients) - counts.sum()
    split_of = dict(zip(patients, np.repeat(SPLITS, counts), strict=True))
    return table.assign(split=[str(split_of[p]) for p in table["patient_id"]])


def validate(
    table: pd.DataFrame, labels: Sequence[str], where: str, required_splits: Sequence[str] = ()
) -> None:
    """Check a benchmark's table; row numbers in messages are ``table.index + 2``, as a spreadsheet counts
    them.

    Args:
        table: see :class:`Benchmark`; ``where`` is the file that it came from, named in every message.
        labels: its label columns.
        required_splits: splits that must hold at least one film.

    Raises:
        BenchmarkError: missing column, no label, no row, blank image or patient, absolute or escaping path,
        duplicate
            image, unknown or empty split, label outside 1 / 0 / blank, or a patient in two splits.

    Warns:
        UserWarning: a label with only one class among its known training films, which cannot be learned.
    """
    missing = [c for c in (*REQUIRED_COLUMNS, *labels) if c not in table.columns]
    if missing:
        raise BenchmarkError(
            f"{where}: missing column(s) {', '.join(missing)}; found {', '.join(map(str, table.columns))}"
        )
    if not labels:
        raise BenchmarkError(f"{where}: no label column; add one column a label with 1, 0 or blank")
    if len(table) == 0:
        raise BenchmarkError(f"{where}: no rows; add one row a film")
    rows = table.index.to_numpy() + 2
    _check_cells(table, rows, where)
    _check_labels(table, labels, rows, where)
    for split in required_splits:
        if not (table["split"] == split).any():
            raise BenchmarkError(
                f"{where}: split {split!r} is empty; films by split: {_counts(table['split'])}"
            )
    _check_patients(table, rows, where)
    train = table[table["split"] == "train"]
    for label in labels if len(train) else ():
        classes = set(train[label].dropna().unique())
        if len(classes) < 2:
            held = (
                "no known value"
                if not classes
                else f"only {'positive' if 1 in classes else 'negative'} films"
            )
            warnings.warn(
                f"{where}: label {label!r} has {held} in the train split; it cannot be learned", stacklevel=2
            )


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(k): int(v) for k, v in values.value_counts().items()}


def check_paths(images: Sequence[str], rows: np.ndarray, where: str) -> list[str]:
    """The paths in plain spelling, each inside the image folder; ``rows`` are their row numbers for the message.

    Raises:
        BenchmarkError: a path that is absolute, of Windows, or climbs out with '..'.
    """
    plain = list(images)
    # One search for each mark in all paths at once; paths are judged one by one only where there is something to judge.
    text = "\n".join(["", *images, ""])
    if any(mark in text for mark in _MARKS):
        for row, image in zip(rows, images, strict=True):
            windows = PureWindowsPath(image)
            if (
                image.startswith("/")
                or windows.drive
                or windows.root
                or "\\" in image
                or ".." in PurePosixPath(image).parts
                or "\0" in image
            ):
                raise BenchmarkError(
                    f"{where}: row {row}: image {image!r} must be a path inside the image folder: "
                    f"relative, with '/', no '..'"
                )
        plain = [str(PurePosixPath(image)) for image in images]
    return plain


def _check_cells(table: pd.DataFrame, rows: np.ndarray, where: str) -> None:
    for column in ("image", "patient_id"):
        values = table[column]
        if pd.api.types.infer_dtype(values, skipna=False) == "string":
            blank = (values.str.strip() == "").to_numpy(dtype=bool)
        else:
            blank = np.array([not isinstance(value, str) or not value.strip() for value in values])
        if blank.any():
            i = int(np.argmax(blank))
            raise BenchmarkError(
                f"{where}: row {rows[i]}: column {column!r} is blank or no text ({values.iloc[i]!r}); fill it in"
            )
    images = table["image"].tolist()
    plain = check_paths(images, rows, where)
    codes, names = pd.factorize(np.array(plain, dtype=object))
    if len(names) < len(plain):
        again = int(np.argmax(pd.Series(codes).duplicated()))
        first = int(np.argmax(codes == codes[again]))
        raise BenchmarkError(
            f"{where}: rows {rows[first]} and {rows[again]} name the same image {images[again]!r}; keep one of them"
        )
    unknown = ~table["split"].isin(SPLITS).to_numpy()
    if unknown.any():
        i = int(np.argmax(unknown))
        raise BenchmarkError(
            f"{where}: row {rows[i]}: unknown split {table['split'].iloc[i]!r}; write {', '.join(SPLITS)}"
        )


def _check_labels(table: pd.DataFrame, labels: Sequence[str], rows: np.ndarray, where: str) -> None:
    for label in labels:
        numbers = pd.to_numeric(table[label], errors="coerce").to_numpy(dtype=np.float64)
        blank = table[label].isna().to_numpy()
        bad = np.flatnonzero(~blank & ~np.isin(numbers, (0.0, 1.0)))
        if len(bad):
            raise BenchmarkError(
                f"{where}: row {rows[bad[0]]}: column {label!r} holds {table[label].iloc[bad[0]]!r}; "
                f"write 1 (present), 0 (absent) or leave it blank (unknown)"
            )


def _check_patients(table: pd.DataFrame, rows: np.ndarray, where: str) -> None:
    patients, names = pd.factorize(table["patient_id"])
    splits = pd.factorize(table["split"])[0]
    first = np.flatnonzero(~pd.Series(patients).duplicated())  # of each patient, in the order of factorize
    wrong = splits != splits[first[patients]]
    if wrong.any():
        i = int(np.argmax(wrong))
        j = first[patients[i]]
        raise BenchmarkError(
            f"{where}: patient {names[patients[i]]!r} is in two splits, {table['split'].iloc[j]!r} (row {rows[j]}) "
            f"and {table['split'].iloc[i]!r} (row {rows[i]}); keep every film of a patient in one split, "
            f"or results will look better than they are"
        )
