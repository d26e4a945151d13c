"""Bring your own films: a folder with labels.csv, images/ and, where there are boxes, boxes.csv. The layout is this project's.

The header of labels.csv is image,patient_id,split, then one column per label (1 present, 0 absent, blank unknown); ``image`` is
relative to images/. ``medbridge data prepare`` adds prepared.json: the benchmark's name and whether it is synthetic.
"""

import csv
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import first_five, reading
from medbridge.data.table import REQUIRED_COLUMNS, assign_splits, check_cells, check_columns, in_order, validate
from medbridge.errors import BenchmarkError

BOX_COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")
PREPARED = "prepared.json"
_HEADER = "the header is image,patient_id,split, then one column per label"


def load_folder(root: str | Path, images: str | Path = "images", labels: Sequence[str] | None = None,
                split_seed: int | None = None, fractions: Sequence[float] = (0.7, 0.1, 0.2)) -> Benchmark:
    """Load a folder of films with its label table.

    ``images`` is relative to ``root`` or absolute, '.' where the films lie beside the table. ``labels`` are the columns that are
    labels, a list or text with commas, None for all beyond image, patient_id and split; others are kept as metadata.
    ``split_seed`` draws train, val and test by patient in these ``fractions``, for a table without ``split``. BenchmarkError as
    :func:`medbridge.data.validate`, and for missing or unreadable files.
    """
    root = Path(root)
    path, image_root = root / "labels.csv", root / images
    for folder, fix in ((root, "give the folder that holds labels.csv and images/"),
                        (image_root, f"put the films there, or pass images= ('.' for {root} itself)")):
        if not folder.is_dir():
            raise BenchmarkError(f"{folder}: no such folder; {fix}")
    table = _read_table(path)
    check_columns(table, ("image", "patient_id"), path, _HEADER)
    labels = [label.strip() for label in labels.split(",")] if isinstance(labels, str) else labels
    own = [column for column in table.columns if column not in REQUIRED_COLUMNS]
    names = tuple(own if labels is None else labels)
    if not set(names) <= set(own):
        raise BenchmarkError(f"{path}: labels={labels!r}: no such label column; found {', '.join(table.columns)}")
    table[list(names)] = table[list(names)].replace("", None)
    if labels is None:
        plain = [name for name in own if pd.to_numeric(table[name].dropna(), errors="coerce").isin((0, 1)).all()]
        for name in [name for name in own if name not in plain]:
            cells = table[name][table[name].notna()]
            check_cells(path, cells, ~pd.to_numeric(cells, errors="coerce").isin((0, 1)),
                        "column {name!r} holds {value!r}; write 1 (present), 0 (absent) or leave it blank (unknown); if it is no "
                        f"label, name the labels: labels={','.join(plain or ['A', 'B'])} (--option labels=...)")
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
    table["image"] = [_spelled_as_there(image_root, image) for image in table["image"]]
    absent = [f"{image} (row {i + 2})" for i, image in table["image"].items() if not (image_root / image).is_file()]
    if absent:
        raise BenchmarkError(f"{path}: {len(absent)} of {len(table)} image files are not in {image_root}: {first_five(absent)}; "
                             f"copy them there, or pass images=")
    table = in_order(table, names)
    name, synthetic = _prepared(root / PREPARED) if (root / PREPARED).is_file() else (root.resolve().name, False)
    boxes = _read_boxes(root / "boxes.csv", image_root, table, names) if (root / "boxes.csv").is_file() else None
    return Benchmark(name, image_root, names, table, synthetic=synthetic, boxes=boxes)


def _prepared(path: Path) -> tuple[str, bool]:
    """The name of the benchmark that the folder was prepared from, and whether it is synthetic."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return str(record["benchmark"]), bool(record["synthetic"])
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({type(error).__name__}: {error}); prepare the folder again, or delete "
                             f"the file") from None


def _spelled_as_there(root: Path, image: str) -> str:
    """The name of a film as its file has it: macOS writes an accent as a letter of its own (NFD), where others do not (NFC)."""
    image = str(PurePosixPath(image))
    spellings = [image] if image.isascii() else [image, *(unicodedata.normalize(form, image) for form in ("NFC", "NFD"))]
    return next((name for name in spellings if (root / name).is_file()), image)


def _read_boxes(path: Path, root: Path, films: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """boxes.csv of the labels ``names``; each row names a film and a column of labels.csv and has 0 <= x0 < x1, 0 <= y0 < y1."""
    boxes = _read_table(path)
    check_columns(boxes, BOX_COLUMNS, path, f"the header is {','.join(BOX_COLUMNS)}")
    boxes = boxes[list(BOX_COLUMNS)].assign(image=[_spelled_as_there(root, i) for i in boxes["image"]])
    corners = boxes[["x0", "y0", "x1", "y1"]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    x0, y0, x1, y1 = corners.to_numpy().T
    rows = pd.Series([", ".join(row) for row in boxes.to_numpy()], boxes.index, dtype=object)
    for right, fault in (
        (boxes["image"].isin(films["image"]), "its image is no film of labels.csv"),
        (boxes["label"].isin(films.columns.difference(REQUIRED_COLUMNS)), "its label is no column of labels.csv"),
        ((x0 >= 0) & (x0 < x1) & (y0 >= 0) & (y0 < y1) & np.isfinite(x1 + y1),
         "its corners are no box in pixels with 0 <= x0 < x1 and 0 <= y0 < y1"),
    ):
        check_cells(path, rows, ~right, f"{{value!r}}: {fault}")
    return boxes.assign(**corners)[boxes["label"].isin(names)].reset_index(drop=True)


def _read_table(path: Path) -> pd.DataFrame:
    """The CSV as stripped text; index + 2 is the spreadsheet's row number (blank rows are counted)."""
    with reading(path, f"a folder of films; {_HEADER}"), open(path, encoding="utf-8-sig", newline="") as file:
        header, *records = [[cell.strip() for cell in record] for record in csv.reader(file)] or [[]]
    fault = None
    if not any(header):
        fault = f"no header in the first row; {_HEADER}"
    elif any(mark in header[0] for mark in ";\t|"):
        fault = f"the header {','.join(header)!r} is not comma-separated; save it as CSV with commas"
    elif "" in header:
        fault = f"row 1: column {header.index('') + 1} has no name; name it or delete the column"
    elif twice := [column for i, column in enumerate(header) if column in header[:i]]:
        fault = f"row 1: two columns are named {twice[0]!r}; rename or delete one"
    kept = {i: record for i, record in enumerate(records) if any(record)}
    for i, record in kept.items():
        if not fault and len(record) != len(header):
            fault = f"row {i + 2} has {len(record)} cells, the header has {len(header)}; "
            fault += "save it as CSV with commas, not semicolons" if ";" in "".join(record) else "mend the commas"
    if fault:
        raise BenchmarkError(f"{path}: {fault}")
    return pd.DataFrame(list(kept.values()), index=list(kept), columns=header, dtype=object)
