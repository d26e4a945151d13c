"""MIMIC-CXR-JPG (Johnson et al., arXiv 1901.07042), read as PhysioNet distributes it (credentialed access).

```
root/
  mimic-cxr-2.0.0-metadata.csv.gz   377,110 images: dicom_id, subject_id, study_id, ViewPosition, ...
  mimic-cxr-2.0.0-split.csv.gz      train 368,960, validate 2,991, test 5,159 images; patients kept apart
  mimic-cxr-2.0.0-chexpert.csv.gz   one row a study: 1.0, 0.0, -1.0 (uncertain), blank (not mentioned)
  mimic-cxr-2.0.0-negbio.csv.gz     the same by the NegBio labeler
  files/p10/p10000032/s50414267/02aa804e-....jpg
```

The three files are read as .csv.gz or unpacked. Release 2.1.0 keeps the names of 2.0.0. Labels belong to the study and are
joined to each of its films; the few studies without a row are set aside. The split is the owner's, 'validate' is 'val' here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.chexpert import LABELS
from medbridge.data.files import build, check_root, dropped_rows, keep_present, read_csv
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

__all__ = ["LABELS", "OFFICIAL", "load_mimic"]

OFFICIAL = {"train": 368_960, "validate": 2_991, "test": 5_159}
"""Images of each official split, lateral views among them."""

_NAME = "mimic-cxr-2.0.0-{}.csv.gz"
_SPLITS = {"train": "train", "validate": "val", "test": "test"}


def load_mimic(
    root: str | Path,
    views: str | Sequence[str] = ("PA", "AP"),
    labeler: str = "chexpert",
    uncertain: str | Mapping[str, str] = "ignore",
    blank: str = "negative",
    files: str = "present",
) -> Benchmark:
    """Load MIMIC-CXR-JPG.

    Args:
        root: the folder with the files above.
        views: the ViewPosition values that are kept (frontal: PA, AP; lateral: LATERAL, LL), or 'all'; films without a
            ViewPosition only come with 'all'.
        labeler: 'chexpert' or 'negbio'.
        uncertain, blank: what -1 and blank become, see :func:`medbridge.data.uncertainty.apply_policy`.
        files: 'present' keeps the films on this disk, 'all' every row without a look at the disk.

    Returns:
        Benchmark with the 14 labels and the columns official_split, study, view.

    Raises:
        BenchmarkError: a missing or foreign file, a label outside 1 / 0 / -1 / blank, no film on disk.
    """
    root = check_root(root, "mimic-cxr-2.0.0-metadata.csv.gz and files/")
    if labeler not in ("chexpert", "negbio"):
        raise BenchmarkError(f"labeler={labeler!r}; choose chexpert or negbio")
    if isinstance(views, str) and views != "all":
        raise BenchmarkError(f"views={views!r}; give a list of ViewPosition values, e.g. ['PA', 'AP'], or 'all'")
    path = root / _NAME.format("metadata")
    films = _read(root, "metadata", ["dicom_id", "subject_id", "study_id", "ViewPosition"], ["ViewPosition"])
    subject, study = films["subject_id"], films["study_id"]
    table = pd.DataFrame({
        "image": "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + films["dicom_id"] + ".jpg",
        "patient_id": subject,
        "official_split": _splits(root, films["dicom_id"]),
        "study": study,
        "view": films["ViewPosition"].astype(object),
    }, index=films.index)
    table["split"] = table["official_split"].map(_SPLITS).astype(object)

    dropped = []
    if views != "all":
        keep = table["view"].isin(list(views)).to_numpy()
        dropped.append(dropped_rows(table.loc[~keep, "image"], [f"view {v or 'unknown'}" for v in table.loc[~keep, "view"]]))
        table = table[keep]
    keep = table["split"].notna().to_numpy()
    dropped.append(dropped_rows(table.loc[~keep, "image"], "not in the split file"))
    table = table[keep]
    labels = _labels(root, labeler, uncertain, blank)
    at = labels.index.get_indexer(table["study"])
    dropped.append(dropped_rows(table.loc[at < 0, "image"], f"its study has no row in the {labeler} file"))
    values = labels.to_numpy()[at[at >= 0]]
    table = table[at >= 0].assign(**dict(zip(LABELS, values.T, strict=True)))
    if len(table):
        table, absent = keep_present(table, root, str(path), files)
        dropped.append(absent)
    table = table.astype({"image": object, "patient_id": object, "study": object})
    return build("mimic", root, LABELS, table, str(path), OFFICIAL, dropped)


def _read(root: Path, which: str, columns: Sequence[str], categories: Sequence[str]) -> pd.DataFrame:
    name = _NAME.format(which)
    return read_csv(root / name, columns, f"MIMIC-CXR-JPG 2.0.0 or 2.1.0 ({name})", categories=categories)


def _splits(root: Path, films: pd.Series) -> pd.Series:
    """The official split of each film, None where the file does not say."""
    raw = _read(root, "split", ["dicom_id", "split"], ["split"])
    unknown = ~raw["split"].isin(_SPLITS).to_numpy()
    if unknown.any():
        i = int(np.argmax(unknown))
        raise BenchmarkError(f"{root / _NAME.format('split')}: row {i + 2}: column 'split' holds {raw['split'].iloc[i]!r}; "
                             f"expected {', '.join(_SPLITS)}")
    at = _unique(raw["dicom_id"], root / _NAME.format("split")).get_indexer(films)
    return pd.Series(np.append(raw["split"].to_numpy(dtype=object), None)[at], index=films.index, dtype=object)


def _labels(root: Path, labeler: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    """Rows by study_id, the 14 labels as float64."""
    path = root / _NAME.format(labeler)
    raw = _read(root, labeler, ["study_id", *LABELS], LABELS)
    return apply_policy(raw, LABELS, str(path), uncertain, blank).set_axis(_unique(raw["study_id"], path))


def _unique(column: pd.Series, path: Path) -> pd.Index:
    index = pd.Index(column)
    if index.has_duplicates:
        row = int(np.argmax(index.duplicated())) + 2
        raise BenchmarkError(f"{path}: row {row}: {column.name} {index[row - 2]!r} is there twice; download the file again")
    return index
