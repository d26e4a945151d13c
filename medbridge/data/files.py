"""What every loader of a published data set shares: its files, which of its films are on this disk, and the last checks.

Data sets of this size are seldom whole. A loader goes on with the films that are present, says once what is missing, and keeps
the list of it (:attr:`Benchmark.dropped`).
"""

import csv
import gzip
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.table import SPLITS, assign_splits, check_choice, check_columns, check_paths, in_order, validate
from medbridge.errors import BenchmarkError, BenchmarkWarning

MAX_UNPACKED = 4 * 2**30  # bytes of a .csv.gz; the largest published table, reports and all, has about a quarter of it
CARDS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("benchmarks.yaml").read_text(encoding="utf-8"))


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


@contextmanager
def reading(path: Path, title: str, instead: str = "give the folder that holds it as root") -> Iterator[None]:
    """BenchmarkError, with the way out, where a file of the release ``title`` is missing or cannot be read."""
    if not path.is_file():
        packed = _packed(path.parent, path.name.split(".")[0])
        raise BenchmarkError(f"{path}: no such file, part of {title}{packed}; put it there, or {instead}")
    try:
        yield
    except UnicodeDecodeError as error:
        fault = f"not UTF-8 ({error.reason} at byte {error.start}); save it as 'CSV UTF-8'"
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError, EOFError, zlib.error, OSError) as error:
        fault = f"cannot be read as CSV: {' '.join(str(error).split())}; download it again if it was cut short"
    else:
        return
    raise BenchmarkError(f"{path}: {fault}; this loader reads {title}")


class Distribution:
    """A published data set as its owner distributes it, in the folder ``root``; ``benchmarks.yaml`` says the rest.

    ``where`` names the file that lists the films (by default the first table that is read), ``dropped`` collects (image, reason)
    of what is set aside. BenchmarkError: no such folder.
    """

    def __init__(self, name: str, root: str | Path, holds: str, title: str, labels: Sequence[str],
                 official: Mapping[str, int] | None = None) -> None:
        self.name, self.root, self.title, self.labels, self.official = name, Path(root), title, tuple(labels), official or {}
        self.where: Path | None = None
        self.dropped: list[tuple[str, str]] = []
        if not self.root.is_dir():
            packed = _packed(self.root.parent, self.root.name)
            raise BenchmarkError(f"{root}: no such folder{packed}; give the folder that holds {holds}")

    def text(self, path: str | Path, **instead: str) -> str:
        """A text file below ``root``. BenchmarkError where it is missing (put it there, or ``instead``) or not UTF-8."""
        with reading(self.root / path, self.title, **instead):
            return (self.root / path).read_text(encoding="utf-8-sig")

    def csv(self, path: str | Path, columns: Sequence[str], optional: Sequence[str] = (),
            categories: Sequence[str] = ()) -> pd.DataFrame:
        """Columns of a CSV file below ``root``, packed or not, as text; a blank cell is ''; row ``index + 2`` of a spreadsheet.

        The ``optional`` columns follow where the file has them; ``categories`` are columns of few values, which come as pandas
        categories (fast, small). BenchmarkError: no such file, missing columns, text that is no CSV.
        """
        path = self.root / path
        other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
        path = other if other.is_file() and not path.is_file() else path
        self.where = self.where or path
        with reading(path, self.title):
            if path.suffix == ".gz":  # before pandas holds in memory what unpacks without end
                with gzip.open(path) as file:
                    if file.seek(MAX_UNPACKED + 1) > MAX_UNPACKED:
                        raise BenchmarkError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes, which no published table "
                                             f"does; download it again")
            # a trailing comma in every row gives the last column no name; it is read and left
            header = pd.read_csv(path, nrows=0, encoding="utf-8-sig", index_col=False)
            check_columns(header, columns, path, f"this loader reads {self.title}")
            chosen = [*columns, *(c for c in optional if c in header)]
            table = pd.read_csv(path, usecols=chosen, index_col=False, encoding="utf-8-sig", keep_default_na=False, na_values=[],
                                dtype={c: "category" if c in categories else object for c in chosen})
        if len(table) == 0:
            raise BenchmarkError(f"{path}: no rows below the header; this loader reads {self.title}")
        # pandas makes the categories of an all-numeric column numbers
        return table[chosen].assign(**{c: table[c].cat.rename_categories(str) for c in categories if c in chosen})

    def set_aside(self, table: pd.DataFrame, keep: Sequence[bool], reason: str | pd.Series) -> pd.DataFrame:
        """The rows to keep; the others are noted as dropped for a ``reason``, one for all or one per row of the table."""
        gone = ~np.asarray(keep, dtype=bool)
        reasons = [reason] * gone.sum() if isinstance(reason, str) else reason[gone]
        self.dropped += zip(table.loc[gone, "image"], reasons, strict=True)
        return table[~gone]

    def _keep_present(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows whose ``image`` is on disk. BenchmarkError where none is, BenchmarkWarning where some are not."""
        check_paths(table["image"], self.where)  # before any folder is listed
        places = [image.rpartition("/") for image in table["image"]]
        held: dict[str, set[str]] = {folder: set() for folder, _, _ in places}
        for folder in tqdm(held, "listing folders", unit="folder", leave=False, disable=None, delay=2):
            with suppress(FileNotFoundError, NotADirectoryError):
                held[folder] = set(os.listdir(self.root / folder))
        here = np.array([name in held[folder] for folder, _, name in places], dtype=bool)
        count, absent = f"{len(table)} images", first_five(table.loc[~here, "image"].tolist())
        if len(table) and not here.any():
            raise BenchmarkError(f"{self.where}: none of its {count} is in {self.root}: {absent}{_packed(self.root)}; unpack the "
                                 f"images there, or pass files='all' for the metadata alone")
        if absent:
            warnings.warn(f"{self.where}: {np.sum(~here)} of {count} are not in {self.root} and are left out: {absent}",
                          BenchmarkWarning, stacklevel=4)
        return self.set_aside(table, here, "not on disk")

    def benchmark(self, table: pd.DataFrame, files: str = "present", boxes: pd.DataFrame | None = None) -> Benchmark:
        """The last step of a loader: keep the films that are on disk (files='all': every row), and check the table.

        BenchmarkError as :func:`medbridge.data.validate`, or where no film is left; BenchmarkWarning where films are missing, or
        a split came out empty.
        """
        check_choice("files", files, ("present", "all"))
        table = self._keep_present(table) if files == "present" else table
        lost = pd.DataFrame(self.dropped, columns=["image", "reason"]).astype({"image": object, "reason": str})
        reasons = ", ".join(f"{count} ({reason})" for reason, count in lost["reason"].value_counts().items()) or "nothing"
        if len(table) == 0:
            raise BenchmarkError(f"{self.where}: no film is left; set aside: {reasons}; choose other options")
        validate(table, self.labels, self.where)
        if empty := [split for split in SPLITS if not (table["split"] == split).any()]:
            warnings.warn(f"{self.where}: split {', '.join(empty)} holds no film; set aside: {reasons}", BenchmarkWarning,
                          stacklevel=3)
        if boxes is not None:
            boxes = boxes[boxes["image"].isin(table["image"])].reset_index(drop=True)
        return Benchmark(self.name, self.root, self.labels, in_order(table, self.labels), boxes=boxes,
                         official=dict(self.official), dropped=lost)


def draw_val(table: pd.DataFrame, val_share: float, seed: int) -> pd.DataFrame:
    """``table`` with every patient in 'train' or, a share in [0, 1) of them, in 'val'; rows that are in 'test' stay there."""
    if not 0 <= val_share < 1:
        raise BenchmarkError(f"val_share={val_share!r}; give the share of the training patients, from 0 to below 1")
    drawn = assign_splits(table.loc[table["split"] != "test", ["patient_id"]], (1 - val_share, val_share, 0), seed)["split"]
    return table.assign(split=drawn.reindex(table.index, fill_value="test"))
