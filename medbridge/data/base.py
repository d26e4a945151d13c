"""The one type that every benchmark becomes: a folder of films, and a table with one row per film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.images import read_film
from medbridge.data.table import REQUIRED_COLUMNS, SPLITS, check_columns, shuffled_patients
from medbridge.errors import BenchmarkError


@dataclass(frozen=True)
class Benchmark:
    """Films, labels and splits of one benchmark (or of a part of one).

    The n rows of the table have ``image`` str, ``patient_id`` str, ``split`` 'train' | 'val' | 'test', one float column per label
    (1.0 / 0.0 / NaN = unknown), then any metadata. BenchmarkError on construction where it lacks a required or label column.
    """

    name: str  # short, for reports
    root: Path  # folder that the ``image`` column is relative to
    labels: tuple[str, ...]  # the C names, in the order of every (n, C) array
    table: pd.DataFrame
    synthetic: bool = False  # the films are drawn by a program, not taken of patients
    boxes: pd.DataFrame | None = None  # rows of image, label, x0, y0, x1, y1 in pixels of the original film
    official: Mapping[str, int] = field(default_factory=dict)  # images of each split as published; empty where there is none
    dropped: pd.DataFrame | None = None  # rows of image, reason: what the files list and this benchmark does not hold
    unlabelled: Benchmark | None = None  # more training films, of which the pixels may be looked at and not the labels

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "labels", tuple(self.labels))
        check_columns(self.table, (*REQUIRED_COLUMNS, *self.labels), f"benchmark {self.name!r}", "its table needs them")

    def __len__(self) -> int:
        return len(self.table)

    def _error(self, fault: str) -> BenchmarkError:
        return BenchmarkError(f"benchmark {self.name!r}: {fault}")

    def split(self, name: str) -> Benchmark:
        """The films of one split. BenchmarkError for an unknown name, or for a split that holds no film."""
        if name not in SPLITS:
            raise self._error(f"unknown split {name!r}; choose from {', '.join(SPLITS)}")
        wanted = (self.table["split"] == name).to_numpy()
        if not wanted.any():
            own = self.dropped is None and not self.synthetic  # of a folder, whose table may be changed
            raise self._error(f"split {name!r} is empty; films by split: {self.table['split'].value_counts().to_dict()}" + own * (
                "; give some patients that split, or delete the column 'split' and pass split_seed=0 (--option split_seed=0), "
                "which draws train, val and test by patient"))
        return self.take(wanted)

    def take(self, indices: Sequence[int] | np.ndarray) -> Benchmark:
        """The films (and their boxes) at these positions, or where a boolean (n,) mask is True."""
        indices = np.asarray(indices)
        if indices.dtype == bool and indices.shape != (len(self),):
            raise self._error(f"the mask has shape {indices.shape}, not ({len(self)},)")
        table = self.table.iloc[indices if len(indices) else []].reset_index(drop=True)
        boxes = self.boxes
        if boxes is not None:
            boxes = boxes[boxes["image"].isin(table["image"])].reset_index(drop=True)
        return replace(self, table=table, boxes=boxes)

    def select(self, labels: Sequence[str] | Mapping[str, str]) -> Benchmark:
        """The same films with these labels alone, in this order; a mapping also renames each (own name -> new name), boxes too.

        BenchmarkError for no label, a label that the benchmark lacks, or two labels of one name.
        """
        names = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
        if isinstance(labels, str) or not names or any(name not in self.labels for name in names):
            raise self._error(f"select({labels!r}): give labels out of {', '.join(self.labels)}")
        if len({*names.values()}) < len(list(labels)):
            raise self._error(f"select({labels!r}) names a label twice")
        # other labels go, and a metadata column gives way to a label that takes its name
        gone = [c for c in self.table.columns if c not in names and c in {*self.labels, *names.values()}]
        boxes = self.boxes
        if boxes is not None:
            boxes = boxes.assign(label=boxes["label"].map(names)).dropna(subset="label").reset_index(drop=True)
        return replace(self, labels=tuple(names.values()), table=self.table.drop(columns=gone).rename(columns=names), boxes=boxes)

    def subset(self, n: float, split: str | None = None, seed: int = 0) -> Benchmark:
        """Draw whole patients, split by split: label budgets (1 %, 10 %, 100 %) and quick trials.

        An int ``n`` is that many patients of each split (all of them where it has fewer), a float in (0, 1] that fraction of its
        patients, at least one. ``split`` is thinned alone; None thins all. A smaller budget of one seed lies inside a larger.
        """
        fraction = isinstance(n, (float, np.floating))
        if isinstance(n, bool) or not (0 < n <= 1 if fraction else n >= 1):
            raise BenchmarkError(f"subset: n={n!r}; give a number of patients (int >= 1) or a fraction (float in (0, 1])")
        if split not in (None, *SPLITS):
            raise BenchmarkError(f"subset: unknown split {split!r}; choose from {', '.join(SPLITS)}")
        splits, patients = self.table["split"].to_numpy(), self.table["patient_id"].to_numpy()
        keep = np.isin(splits, SPLITS)
        for name in SPLITS if split is None else (split,):
            drawn = shuffled_patients(patients[splits == name], seed)
            count = max(1, round(float(n) * len(drawn))) if fraction else int(n)
            keep &= (splits != name) | np.isin(patients, drawn[:count])
        return self.take(keep)

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """``(y, mask)``: y float32 (n, C), 0 where unknown; mask bool (n, C), True where known."""
        values = self.table.loc[:, list(self.labels)].to_numpy(dtype=np.float32)
        return np.nan_to_num(values), ~np.isnan(values)

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
        """One row per label and split that holds films: label, split, n known, positive, negative, unknown, prevalence."""
        rows = []
        for label in self.labels:
            for split in (split for split in SPLITS if split in set(self.table["split"])):
                values = self.table.loc[self.table["split"] == split, label].astype(float)
                n, positive = int(values.count()), int((values == 1).sum())
                rows.append((label, split, n, positive, n - positive, len(values) - n, values.mean()))
        return pd.DataFrame(rows, columns=["label", "split", "n", "positive", "negative", "unknown", "prevalence"])
