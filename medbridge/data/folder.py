"""Bring your own films: a folder with labels.csv, images/ and, where there are boxes, boxes.csv. The layout is [ours].

The header of labels.csv is image,patient_id,split, then one column per label (1 present, 0 absent, blank unknown); ``image`` is
relative to images/. ``medbridge data prepare`` adds prepared.json: the benchmark's name and whether it is synthetic.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import first_five
from medbridge.data.table import REQUIRED_COLUMNS, assign_splits, check_cells, check_columns, in_order, validate
from medbridge.errors import BenchmarkError

BOX_COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")
PREPARED = "prepared.json"
_HEADER = "the header is image,patient_id,split, then one column a label"


def load_folder(root: str | Path, labels_csv: str | Path = "labels.csv", images: str | Path = "images",
                labels: Sequence[str] | None = None, split_seed: int | None = None, fractions: Sequence[float] = (0.7, 0.1, 0.2),
                name: str | None = None) -> Benchmark:
    """Load a folder of films with its label table.

    ``labels_csv`` and ``images`` are relative to ``root`` or absolute, '.' where the films lie beside the table. ``labels`` are
    the columns that are labels, None for all beyond image, patient_id and split; others are kept as metadata. ``split_seed``
    draws train, val and test by patient in these ``fractions``, for a table without ``split``. ``name``: by default that in
    prepared.json, else the folder's. BenchmarkError as :func:`medbridge.data.validate`, and for missing or unreadable files.
    """
    root = Path(root)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder; give the folder that holds {labels_csv} and {images}/")
    path, image_root = root / labels_csv, root / images
    table = _read_table(path)
    if not image_root.is_dir():
        raise BenchmarkError(f"{image_root}: no such folder; put the films there, or pass images= ('.' for {root} itself)")
    check_columns(table, ("image", "patient_id"), path, _HEADER)
    own = [column for column in table.columns if column not in REQUIRED_COLUMNS]
    names = tuple(own if labels is None else labels)
    if isinstance(labels, str) or not set(names) <= set(own):
        raise BenchmarkError(f"{path}: labels={labels!r}: no such label column; found {', '.join(table.columns)}")
    table[list(names)] = table[list(names)].replace("", None)
    if "split" in table.columns and split_seed is not None:
        raise BenchmarkError(f"{path}: has a 'split' column already; drop split_seed=, or remove the column")
    if "split" not in table.columns:
        if split_seed is None:
            raise BenchmarkError(f"{path}: no 'split' column; add one with train, val or test, or pass split_seed=0 to draw the "
                                 f"splits by patient")
        validate(table.assign(split="val"), names, path)  # blank or duplicate cells must not be counted as patients
        table = assign_splits(table, fractions, split_seed)
    validate(table, names, path)
    table = table.astype(dict.fromkeys(names, np.float64))
    table["image"] = [str(PurePosixPath(image)) for image in table["image"]]
    absent = [f"{image} (row {i + 2})" for i, image in table["image"].items() if not (image_root / image).is_file()]
    if absent:
        raise BenchmarkError(f"{path}: {len(absent)} of {len(table)} image files are not in {image_root}: {first_five(absent)}; "
                             f"copy them there, or pass images=")
    table = in_order(table, names)
    record = _prepared(root / PREPARED) if (root / PREPARED).is_file() else {}
    boxes = _read_boxes(root / "boxes.csv", table, names) if (root / "boxes.csv").is_file() else None
    return Benchmark(name or record.get("benchmark") or root.resolve().name, image_root, names, table,
                     synthetic=record.get("synthetic", False), boxes=boxes)


def _prepared(path: Path) -> dict:
    """The ``benchmark`` that the folder was prepared from, and whether it is ``synthetic``."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"benchmark": str(record["benchmark"]), "synthetic": bool(record["synthetic"])}
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({type(error).__name__}: {error}); prepare the folder again, or delete "
                             f"the file") from None


def _read_boxes(path: Path, films: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """boxes.csv of the labels ``names``; each row names a film and a column of labels.csv and has 0 <= x0 < x1, 0 <= y0 < y1."""
    boxes = _read_table(path)
    check_columns(boxes, BOX_COLUMNS, path, f"the header is {','.join(BOX_COLUMNS)}")
    boxes = boxes[list(BOX_COLUMNS)].assign(image=[str(PurePosixPath(image)) for image in boxes["image"]])
    corners = boxes[["x0", "y0", "x1", "y1"]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    x0, y0, x1, y1 = corners.to_numpy().T
    rows = pd.Series([", ".join(row) for row in boxes.to_numpy()], boxes.index, dtype=object)
    no_box = ~((x0 >= 0) & (x0 < x1) & (y0 >= 0) & (y0 < y1) & np.isfinite(x1 + y1))
    for wrong, fault in (
        (~boxes["image"].isin(films["image"]), "its image is no film of labels.csv"),
        (~boxes["label"].isin(films.columns.difference(REQUIRED_COLUMNS)), "its label is no column of labels.csv"),
        (no_box, "its corners are no box in pixels with 0 <= x0 < x1 and 0 <= y0 < y1"),
    ):
        check_cells(path, rows, wrong, f"{{value!r}}: {fault}")
    return boxes.assign(**corners)[boxes["label"].isin(names)].reset_index(drop=True)


def _read_table(path: Path) -> pd.DataFrame:
    """The CSV as stripped text; index + 2 is the spreadsheet's row number (blank rows are counted)."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *records = [[cell.strip() for cell in record] for record in csv.reader(file)] or [[]]
    except (FileNotFoundError, IsADirectoryError):
        raise BenchmarkError(f"{path}: no such file; write one row a film: image,patient_id,split, then the labels") from None
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as 'CSV UTF-8'") from None
    except (OSError, csv.Error) as error:
        raise BenchmarkError(f"{path}: cannot be read as CSV: {error}") from None
    if not any(header):
        raise BenchmarkError(f"{path}: no header in the first row; {_HEADER}")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise BenchmarkError(f"{path}: the header {header[0]!r} is not comma-separated; save it as CSV with commas")
    for i, column in enumerate(header):
        if not column:
            raise BenchmarkError(f"{path}: row 1: column {i + 1} has no name; name it or delete the column")
        if column in header[:i]:
            raise BenchmarkError(f"{path}: row 1: two columns are named {column!r}; rename or delete one")
    kept = {i: record for i, record in enumerate(records) if any(record)}
    for i, record in kept.items():
        if len(record) != len(header):
            raise BenchmarkError(f"{path}: row {i + 2} has {len(record)} cells, the header has {len(header)}; mend the commas")
    return pd.DataFrame(list(kept.values()), index=list(kept), columns=header, dtype=object)
