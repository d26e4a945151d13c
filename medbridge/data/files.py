"""What every loader of a published data set shares: its CSV files, and which of its images are on this disk. [ours]

Data sets of this size are seldom whole: one of twelve archives is unpacked, or the small version is here. A loader goes
on with the films that are present, says once what is missing, and keeps the list of it (:attr:`Benchmark.dropped`).
"""

from __future__ import annotations

import gzip
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medbridge.data.base import REQUIRED_COLUMNS, SPLITS, Benchmark, assign_splits, check_paths, validate
from medbridge.errors import BenchmarkError, BenchmarkWarning

__all__ = ["archives", "build", "check_root", "draw_val", "dropped_rows", "keep_present", "read_csv"]

MAX_UNPACKED = 4 * 2**30
"""Most bytes that a .csv.gz may unpack to; the largest published table, reports and all, has about a quarter of it."""

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".gz")


def archives(folder: Path) -> list[str]:
    """Names of the archives that lie directly in a folder, sorted; empty where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_ARCHIVES))


def _packed(folder: Path, first: str = "") -> str:
    """Hint about archives in ``folder``, those whose name begins as ``first`` does before the others; '' without any."""
    names = sorted(archives(folder), key=lambda name: (not first or not name.startswith(first), name))
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"; still packed in {folder}: {', '.join(names[:3])}{more}: unpack there"


def check_root(root: str | Path, holds: str) -> Path:
    """``root`` as a Path. BenchmarkError where it is no folder; ``holds`` says what should lie in it."""
    root = Path(root)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder{_packed(root.parent, root.name)}; give the folder that holds {holds}")
    return root


def read_csv(path: str | Path, columns: Sequence[str], where_hint: str, optional: Sequence[str] = (),
             categories: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of an official CSV file as text; a blank cell is ''.

    Args:
        path: the file; 'x.csv.gz' is read where only that is here, and the other way round.
        columns: required columns, returned in this order.
        where_hint: the distribution and version that the loader expects, named in every message.
        optional: further columns, returned where the file has them.
        categories: which of the columns hold few values many times; they come as pandas categories (fast, small).

    Returns:
        DataFrame whose ``index + 2`` is the row as a spreadsheet counts it.

    Raises:
        BenchmarkError: no such file (and whether it is still packed), missing columns, text that is no CSV.
    """
    path = Path(path)
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    if not path.is_file() and other.is_file():
        path = other
    if not path.is_file():
        raise BenchmarkError(
            f"{path}: no such file, part of {where_hint}{_packed(path.parent, path.name.split('.')[0])}; "
            f"put it there, or give the folder that holds it as root")
    try:
        if path.suffix == ".gz":
            _check_unpacked(path)
        # a trailing comma in every row gives the last column no name; it is read and left
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig", index_col=False).columns
        missing = [c for c in columns if c not in header]
        if missing:
            raise BenchmarkError(f"{path}: missing column(s) {', '.join(missing)}; found {', '.join(header)}; "
                                 f"this loader reads {where_hint}")
        chosen = [*columns, *(c for c in optional if c in header)]
        table = pd.read_csv(
            path, usecols=chosen, index_col=False, encoding="utf-8-sig", keep_default_na=False, na_values=[],
            dtype={c: "category" if c in categories else str for c in chosen})
    except UnicodeDecodeError as error:
        raise BenchmarkError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); this loader reads {where_hint}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, EOFError, zlib.error, OSError) as error:
        raise BenchmarkError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}; this loader reads {where_hint}; "
                             f"download it again if it was cut short") from None
    if len(table) == 0:
        raise BenchmarkError(f"{path}: no rows below the header; this loader reads {where_hint}")
    # pandas makes the categories of an all-numeric column numbers
    return table[chosen].assign(**{c: table[c].cat.rename_categories(str) for c in categories if c in chosen})


def _check_unpacked(path: Path) -> None:
    """Refuse a file that unpacks without end, before pandas holds it in memory."""
    count = 0
    with gzip.open(path) as file:
        while part := file.read(2**20):
            count += len(part)
            if count > MAX_UNPACKED:
                raise BenchmarkError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes, which no published table does; "
                                     f"download it again")


def dropped_rows(images: Sequence[str], reason: str | Sequence[str]) -> pd.DataFrame:
    """Rows for :attr:`Benchmark.dropped`: columns ``image`` and ``reason`` (one for all, or one an image)."""
    return pd.DataFrame({"image": pd.Series(list(images), dtype=object), "reason": reason}, columns=["image", "reason"])


def keep_present(table: pd.DataFrame, root: Path, where: str, files: str = "present") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table into the rows whose image is on disk and the images that are not.

    Folders are listed, one call each; no file is asked for by itself.

    Args:
        table: has ``image``, relative to ``root`` with '/'.
        where: the file that the table came from, named in every message.
        files: 'present', or 'all' to keep every row without a look at the disk (metadata only).

    Returns:
        ``(table, dropped)``: the kept rows with their index, and :func:`dropped_rows`.

    Raises:
        BenchmarkError: none of the images is here, a path leaves ``root``, or ``files`` is another word.

    Warns:
        BenchmarkWarning: some are not here; once, with counts and the first five.
    """
    if files not in ("present", "all"):
        raise BenchmarkError(f"files={files!r}; choose 'present' (films on this disk) or 'all' (the metadata alone)")
    if files == "all":
        return table, dropped_rows([], "")
    images = table["image"].tolist()
    check_paths(images, table.index.to_numpy() + 2, where)  # before any folder is listed
    parents = [image.rpartition("/")[0] for image in images]
    held: dict[str, frozenset[str]] = {}
    for parent in tqdm(dict.fromkeys(parents), "listing folders", unit="folder", leave=False, disable=None, delay=2):
        try:
            with os.scandir(root / parent) as entries:
                held[parent] = frozenset(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            held[parent] = frozenset()
    present = np.fromiter((image.rpartition("/")[2] in held[parent] for image, parent in zip(images, parents, strict=True)),
                          dtype=bool, count=len(images))
    absent = [image for image, here in zip(images, present, strict=True) if not here]
    if not absent:
        return table, dropped_rows([], "")
    shown = f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
    if not present.any():
        raise BenchmarkError(f"{where}: none of its {len(images)} images is in {root}: {shown}{_packed(root)}; "
                             f"unpack the images there, or pass files='all' for the metadata alone")
    warnings.warn(f"{where}: {len(absent)} of {len(images)} images are not in {root} and are left out: {shown}",
                  BenchmarkWarning, stacklevel=3)
    return table[present], dropped_rows(absent, "not on disk")


def draw_val(table: pd.DataFrame, val_share: float, seed: int) -> pd.DataFrame:
    """``table`` with every patient in 'train' or, a share of them, in 'val'; for data sets that publish no such split.

    Raises:
        BenchmarkError: ``val_share`` outside [0, 1), or too few patients.
    """
    if not 0 <= val_share < 1:
        raise BenchmarkError(f"val_share={val_share!r}; give the share of the training patients, from 0 to below 1")
    return assign_splits(table, (1 - val_share, val_share, 0), seed)


def build(name: str, root: Path, labels: Sequence[str], table: pd.DataFrame, where: str, official: Mapping[str, int],
          dropped: Sequence[pd.DataFrame], boxes: pd.DataFrame | None = None) -> Benchmark:
    """The last step of a loader: check the table, put its columns in order, say which split came out empty.

    Raises:
        BenchmarkError: no film is left, or what :func:`medbridge.data.validate` refuses.

    Warns:
        BenchmarkWarning: a split without a film; asking for it later is an error.
    """
    lost = pd.concat([frame for frame in dropped if len(frame)] or [dropped_rows([], "")], ignore_index=True)
    if len(table) == 0:
        raise BenchmarkError(f"{where}: no film is left; set aside: {_reasons(lost)}; choose other options")
    validate(table, labels, where)
    held = set(table["split"])
    empty = [split for split in SPLITS if split not in held]
    if empty:
        warnings.warn(f"{where}: split {', '.join(empty)} holds no film; set aside: {_reasons(lost)}", BenchmarkWarning,
                      stacklevel=3)
    columns = [*REQUIRED_COLUMNS, *labels]
    table = table[columns + [c for c in table.columns if c not in columns]].reset_index(drop=True)
    if boxes is not None:
        boxes = boxes[boxes["image"].isin(set(table["image"]))].reset_index(drop=True)
    return Benchmark(name, root, tuple(labels), table, boxes=boxes, official=dict(official), dropped=lost)


def _reasons(lost: pd.DataFrame) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in lost["reason"].value_counts().items()) or "nothing"
