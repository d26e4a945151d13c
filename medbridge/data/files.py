"""What every loader of a published data set shares: its files, which of its films are on this disk, and the last checks. [ours]

Data sets of this size are seldom whole. A loader goes on with the films that are present, says once what is missing, and keeps
the list of it (:attr:`Benchmark.dropped`).
"""

import gzip
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.table import SPLITS, assign_splits, check_choice, check_columns, check_paths, in_order, validate
from medbridge.errors import BenchmarkError, BenchmarkWarning

MAX_UNPACKED = 4 * 2**30  # bytes of a .csv.gz; the largest published table, reports and all, has about a quarter of it


def first_five(names: Sequence[str]) -> str:
    """The first five names for a message."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _packed(folder: Path, first: str = "") -> str:
    """Hint about archives in ``folder``, those whose name begins as ``first`` does before the others; '' without any."""
    names = os.listdir(folder) if folder.is_dir() else []
    names = sorted((name for name in names if name.lower().endswith((".zip", ".tar", ".tgz", ".gz"))),
                   key=lambda name: (not first or not name.startswith(first), name))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"; still packed in {folder}: {', '.join(names[:3])}{more}: unpack there" if names else ""


def check_root(root: str | Path, holds: str) -> Path:
    """``root`` as a Path. BenchmarkError where it is no folder; ``holds`` says what should lie in it."""
    root = Path(root)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder{_packed(root.parent, root.name)}; give the folder that holds {holds}")
    return root


def _check_file(path: Path, hint: str, instead: str = "give the folder that holds it as root") -> None:
    if not path.is_file():
        raise BenchmarkError(f"{path}: no such file, part of {hint}{_packed(path.parent, path.name.split('.')[0])}; "
                             f"put it there, or {instead}")


def _unreadable(path: Path, hint: str, error: Exception) -> BenchmarkError:
    if isinstance(error, UnicodeDecodeError):
        return BenchmarkError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); this loader reads {hint}")
    return BenchmarkError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}; this loader reads {hint}; "
                          f"download it again if it was cut short")


def read_text(path: Path, hint: str, instead: str = "give the folder that holds it as root") -> str:
    """An official text file. BenchmarkError where it is missing (put it there, or ``instead``) or not UTF-8."""
    _check_file(path, hint, instead)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(path, hint, error) from None


def read_csv(path: str | Path, columns: Sequence[str], where_hint: str, optional: Sequence[str] = (),
             categories: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of an official CSV file, packed or not, as text; a blank cell is ''; ``index + 2`` is the spreadsheet's row.

    The ``optional`` columns follow where the file has them; ``categories`` are columns of few values, which come as pandas
    categories (fast, small). ``where_hint`` is the distribution that the loader expects. BenchmarkError: no such file (and
    whether it is still packed), missing columns, text that is no CSV.
    """
    path = Path(path)
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    if not path.is_file() and other.is_file():
        path = other
    _check_file(path, where_hint)
    try:
        if path.suffix == ".gz":  # before pandas holds in memory what unpacks without end
            with gzip.open(path) as file:
                if file.seek(MAX_UNPACKED + 1) > MAX_UNPACKED:
                    raise BenchmarkError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes, which no published table does; "
                                         f"download it again")
        # a trailing comma in every row gives the last column no name; it is read and left
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig", index_col=False)
        check_columns(header, columns, path, f"this loader reads {where_hint}")
        chosen = [*columns, *(c for c in optional if c in header)]
        table = pd.read_csv(path, usecols=chosen, index_col=False, encoding="utf-8-sig", keep_default_na=False, na_values=[],
                            dtype={c: "category" if c in categories else object for c in chosen})
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, EOFError, zlib.error, OSError) as error:
        raise _unreadable(path, where_hint, error) from None
    if len(table) == 0:
        raise BenchmarkError(f"{path}: no rows below the header; this loader reads {where_hint}")
    # pandas makes the categories of an all-numeric column numbers
    return table[chosen].assign(**{c: table[c].cat.rename_categories(str) for c in categories if c in chosen})


def dropped_rows(images: Sequence[str], reason: str | Sequence[str]) -> pd.DataFrame:
    """Rows for :attr:`Benchmark.dropped`: columns ``image`` and ``reason`` (one for all, or one per image)."""
    return pd.DataFrame({"image": pd.Series(list(images), dtype=object), "reason": reason}, columns=["image", "reason"])


def set_aside(table: pd.DataFrame, keep: Sequence[bool], reason: str | pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to keep, and :func:`dropped_rows` of the others; ``reason`` is one for all, or one per row of the table."""
    keep = np.asarray(keep, dtype=bool)
    return table[keep], dropped_rows(table.loc[~keep, "image"], reason if isinstance(reason, str) else reason[~keep].tolist())


def keep_present(table: pd.DataFrame, root: Path, where: str | Path, files: str = "present") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows whose ``image`` is on disk below ``root`` (all, without a look, for files='all'), and dropped rows of the others.

    BenchmarkError: none of the images is here, or a path leaves ``root``. BenchmarkWarning: some are not here, with counts.
    """
    check_choice("files", files, ("present", "all"))
    if files == "all":
        return table, dropped_rows([], "")
    check_paths(table["image"], where)  # before any folder is listed
    places = [image.rpartition("/") for image in table["image"]]
    held: dict[str, set[str]] = {folder: set() for folder, _, _ in places}
    for folder in tqdm(held, "listing folders", unit="folder", leave=False, disable=None, delay=2):
        with suppress(FileNotFoundError, NotADirectoryError):
            held[folder] = set(os.listdir(root / folder))
    present, absent = set_aside(table, [name in held[folder] for folder, _, name in places], "not on disk")
    if len(absent) == 0:
        return table, dropped_rows([], "")
    shown = first_five(absent["image"].tolist())
    if len(present) == 0:
        raise BenchmarkError(f"{where}: none of its {len(table)} images is in {root}: {shown}{_packed(root)}; unpack the images "
                             f"there, or pass files='all' for the metadata alone")
    warnings.warn(f"{where}: {len(absent)} of {len(table)} images are not in {root} and are left out: {shown}",
                  BenchmarkWarning, stacklevel=3)
    return present, absent


def draw_val(table: pd.DataFrame, val_share: float, seed: int) -> pd.DataFrame:
    """``table`` with every patient in 'train' or, a share in [0, 1) of them, in 'val'; rows that are in 'test' stay there."""
    if not 0 <= val_share < 1:
        raise BenchmarkError(f"val_share={val_share!r}; give the share of the training patients, from 0 to below 1")
    drawn = assign_splits(table.loc[table["split"] != "test", ["patient_id"]], (1 - val_share, val_share, 0), seed)["split"]
    return table.assign(split=drawn.reindex(table.index, fill_value="test"))


def build(name: str, root: Path, labels: Sequence[str], table: pd.DataFrame, where: str | Path, official: Mapping[str, int],
          dropped: Sequence[pd.DataFrame], boxes: pd.DataFrame | None = None) -> Benchmark:
    """The last step of a loader: check the table, order its columns, warn (BenchmarkWarning) where a split came out empty."""
    lost = pd.concat([frame for frame in dropped if len(frame)] or [dropped_rows([], "")], ignore_index=True)
    reasons = ", ".join(f"{count} ({reason})" for reason, count in lost["reason"].value_counts().items()) or "nothing"
    if len(table) == 0:
        raise BenchmarkError(f"{where}: no film is left; set aside: {reasons}; choose other options")
    validate(table, labels, where)
    empty = [split for split in SPLITS if not (table["split"] == split).any()]
    if empty:
        warnings.warn(f"{where}: split {', '.join(empty)} holds no film; set aside: {reasons}", BenchmarkWarning, stacklevel=3)
    table = in_order(table, labels)
    if boxes is not None:
        boxes = boxes[boxes["image"].isin(table["image"])].reset_index(drop=True)
    return Benchmark(name, root, labels, table, boxes=boxes, official=dict(official), dropped=lost)
