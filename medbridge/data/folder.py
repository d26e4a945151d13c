"""Bring your own films: a folder of images and one ``labels.csv``.

```
root/
  labels.csv    image,patient_id,split,Pneumonia,Effusion
  images/       a.png  b.dcm  sub/c.jpg ...
  boxes.csv     optional: image,label,x0,y0,x1,y1 in pixels of the film
  prepared.json optional: written by `medbridge data prepare`, keeps the benchmark's name and whether it is synthetic
```

``image`` is relative to the image folder; ``split`` is train, val or test; every further column is a label: 1
present, 0 absent, blank unknown. Nothing is guessed: a fault stops the load with the file, the row as a
spreadsheet counts it (the header is row 1) and the column. The layout is [ours].
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medbridge.data.base import REQUIRED_COLUMNS, Benchmark, assign_splits, validate
from medbridge.errors import BenchmarkError

__all__ = ["BOX_COLUMNS", "PREPARED", "load_folder"]

BOX_COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")
PREPARED = "prepared.json"


def load_folder(
    root: str | Path,
    labels_csv: str | Path = "labels.csv",
    images: str | Path = "images",
    labels: Sequence[str] | None = None,
    split_seed: int | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    name: str | None = None,
) -> Benchmark:
    """Load a folder of films with its label table.

    Args:
        root: the folder.
        labels_csv: the table, relative to ``root`` or absolute. UTF-8 (a byte-order mark is fine),
            comma-separated.
        images: the image folder, relative to ``root`` or absolute; '.' where the films lie beside the table.
        labels: which columns are labels; the others are then kept as metadata. None: every column beyond
            image, patient_id and split is a label.
        split_seed: draw train/val/test by patient with this seed; only for a table without a ``split``
            column.
        fractions: shares of train, val and test when splits are drawn.
        name: for reports; by default the name in prepared.json, else the folder's.

    Returns:
        Benchmark whose ``root`` is the image folder, with the boxes of boxes.csv where it is there.

    Raises:
        BenchmarkError: everything that :func:`medbridge.data.validate` refuses, and missing or
        unreadable files.
    """
    root = Path(root)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder; give the folder that holds {labels_csv} and {images}/")
    csv_path, image_root = root / labels_csv, root / images
    table = _read_table(csv_path)
    if not image_root.is_dir():
        raise BenchmarkError(
            f"{image_root}: no such folder; put the films there, or pass images= ('.' for {root} itself)"
        )

    missing = [c for c in ("image", "patient_id") if c not in table.columns]
    if missing:
        raise BenchmarkError(
            f"{csv_path}: missing column(s) {', '.join(missing)}; found {', '.join(table.columns)}; "
            f"the header is image,patient_id,split, then one column a label"
        )
    names = _label_columns(table, labels, csv_path)
    for label in names:
        table[label] = table[label].replace("", None)
    if "split" in table.columns:
        if split_seed is not None:
            raise BenchmarkError(
                f"{csv_path}: has a 'split' column already; drop split_seed=, or remove the column"
            )
    elif split_seed is None:
        raise BenchmarkError(
            f"{csv_path}: no 'split' column; add one with train, val or test, "
            f"or pass split_seed=0 to draw the splits by patient"
        )
    else:
        # Blank or duplicate cells must be refused before they are counted as patients.
        validate(table.assign(split="val"), names, str(csv_path))
        table = assign_splits(table, fractions, split_seed)
    validate(table, names, str(csv_path))
    for label in names:
        table[label] = table[label].astype(np.float64)
    table["image"] = [str(PurePosixPath(image)) for image in table["image"]]
    _check_files(table, image_root, csv_path)
    columns = [*REQUIRED_COLUMNS, *names]
    table = table[columns + [c for c in table.columns if c not in columns]].reset_index(drop=True)
    known, synthetic = _prepared(root / PREPARED)
    boxes = _read_boxes(root / "boxes.csv", table, names) if (root / "boxes.csv").is_file() else None
    return Benchmark(name or known or root.resolve().name, image_root, names, table, synthetic=synthetic, boxes=boxes)


def _prepared(path: Path) -> tuple[str | None, bool]:
    """Name and whether synthetic, of the benchmark that the folder was prepared from; (None, False) without the file."""
    if not path.is_file():
        return None, False
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return str(record["benchmark"]), bool(record["synthetic"])
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({type(error).__name__}: {error}); prepare the folder again, or delete "
                             f"the file") from None


def _read_boxes(path: Path, films: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """boxes.csv of the labels ``names``; each row names a film and a column of labels.csv and has 0 <= x0 < x1, 0 <= y0 < y1."""
    boxes = _read_table(path)
    missing = [c for c in BOX_COLUMNS if c not in boxes.columns]
    if missing:
        raise BenchmarkError(f"{path}: missing column(s) {', '.join(missing)}; found {', '.join(boxes.columns)}; "
                             f"the header is {','.join(BOX_COLUMNS)}")
    boxes["image"] = [str(PurePosixPath(image)) for image in boxes["image"]]
    corners = boxes[["x0", "y0", "x1", "y1"]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    x0, y0, x1, y1 = corners.to_numpy().T
    labelled = set(films.columns) - set(REQUIRED_COLUMNS)
    for fault, what in (
        (~boxes["image"].isin(set(films["image"])).to_numpy(), "its image is no film of labels.csv"),
        (~boxes["label"].isin(labelled).to_numpy(), "its label is no column of labels.csv"),
        (~((x0 >= 0) & (x0 < x1) & (y0 >= 0) & (y0 < y1) & np.isfinite(x1 + y1)),
         "its corners are no box in pixels with 0 <= x0 < x1 and 0 <= y0 < y1"),
    ):
        if fault.any():
            i = int(np.argmax(fault))
            raise BenchmarkError(f"{path}: row {boxes.index[i] + 2}: {', '.join(boxes.iloc[i][list(BOX_COLUMNS)])!r}: {what}")
    boxes = boxes.assign(**corners)[list(BOX_COLUMNS)]
    return boxes[boxes["label"].isin(list(names))].reset_index(drop=True)


def _read_table(path: Path) -> pd.DataFrame:
    """The CSV as stripped text; index + 2 is the spreadsheet's row number (blank rows are counted)."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            records = [[cell.strip() for cell in record] for record in csv.reader(file)]
    except (FileNotFoundError, IsADirectoryError):
        raise BenchmarkError(
            f"{path}: no such file; write one row a film: image,patient_id,split, then the labels"
        ) from None
    except UnicodeDecodeError as error:
        raise BenchmarkError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as 'CSV UTF-8'"
        ) from None
    except (OSError, csv.Error) as error:
        raise BenchmarkError(f"{path}: cannot be read as CSV: {error}") from None
    if not records or not any(records[0]):
        raise BenchmarkError(
            f"{path}: no header in the first row; it is image,patient_id,split, then one column a label"
        )
    header = records[0]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise BenchmarkError(
            f"{path}: the header {header[0]!r} is not comma-separated; save it as CSV with commas"
        )
    for i, column in enumerate(header):
        if not column:
            raise BenchmarkError(f"{path}: row 1: column {i + 1} has no name; name it or delete the column")
        if column in header[:i]:
            raise BenchmarkError(f"{path}: row 1: two columns are named {column!r}; rename or delete one")
    kept = {i: record for i, record in enumerate(records[1:]) if any(record)}
    for i, record in kept.items():
        if len(record) != len(header):
            raise BenchmarkError(
                f"{path}: row {i + 2} has {len(record)} cells, the header has {len(header)}; mend the commas"
            )
    return pd.DataFrame(list(kept.values()), index=list(kept), columns=header, dtype=object)


def _label_columns(table: pd.DataFrame, labels: Sequence[str] | None, path: Path) -> tuple[str, ...]:
    if labels is None:
        return tuple(c for c in table.columns if c not in REQUIRED_COLUMNS)
    unknown = [label for label in labels if label not in table.columns or label in REQUIRED_COLUMNS]
    if isinstance(labels, str) or unknown:
        raise BenchmarkError(
            f"{path}: labels={labels!r}: no such label column; found {', '.join(table.columns)}"
        )
    return tuple(labels)


def _check_files(table: pd.DataFrame, image_root: Path, path: Path) -> None:
    missing = [(i + 2, image) for i, image in table["image"].items() if not (image_root / image).is_file()]
    if missing:
        shown = ", ".join(f"{image} (row {row})" for row, image in missing[:5])
        more = ", ..." if len(missing) > 5 else ""
        raise BenchmarkError(
            f"{path}: {len(missing)} of {len(table)} image files are not in {image_root}: {shown}{more}; "
            f"copy them there, or pass images="
        )
