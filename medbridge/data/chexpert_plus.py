"""CheXpert Plus (Chambon et al., arXiv 2405.19538), read as Stanford AIMI distributes it.

```
root/
  df_chexpert_plus_240401.csv          one row an image: path_to_image, deid_patient_id, split (train, valid), ...
  chexbert_labels/report_fixed.json    one JSON object a line: path_to_image and the 14 labels (CheXbert)
  chexbert_labels/impression_fixed.json, findings_fixed.json
  PNG/train/patient00001/study1/view1_frontal.png ...   (or PNG/PNG/train/..., as the archive unpacks)
```

The films are CheXpert's train and valid sets; the official valid set is the test split here and 'val' is drawn from
train by patient [ours], as in ``chexpert.py``. The owner publishes no count for each split, and its total
is 223,228 images in the paper and 223,462 on the project's page, so ``official`` is empty.

Where the files differ from their names: ``path_to_image`` ends in .jpg, the PNG files in .png; the label files are JSON lines
under the ending .json; reports fill several lines of the CSV, so rows are counted as records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.chexpert import LABELS, keep_views
from medbridge.data.files import build, check_root, draw_val, dropped_rows, keep_present, read_csv
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

__all__ = ["LABELS", "load_chexpert_plus"]

_HINT = "CheXpert Plus (df_chexpert_plus_240401.csv)"
_SECTIONS = ("report", "impression", "findings")
_COLUMNS = ("path_to_image", "deid_patient_id", "frontal_lateral", "ap_pa", "age", "sex", "split")
_SPLITS = {"train": "train", "valid": "test"}


def load_chexpert_plus(
    root: str | Path,
    section: str = "report",
    views: str = "frontal",
    uncertain: str | Mapping[str, str] = "ignore",
    blank: str = "negative",
    val_share: float = 0.1,
    seed: int = 0,
    files: str = "present",
) -> Benchmark:
    """Load CheXpert Plus.

    Args:
        root: the folder with the files above.
        section: whose labels: of the whole 'report', of its 'impression' or of its 'findings'.
        views: 'frontal', 'lateral' or 'all'.
        uncertain, blank: what -1 and null become, see :func:`medbridge.data.uncertainty.apply_policy`.
        val_share: share of the training patients that become the validation split [ours].
        seed: of that draw.
        files: 'present' keeps the films on this disk, 'all' every row without a look at the disk.

    Returns:
        Benchmark with the 14 labels and the columns official_split, sex, age, view ('Frontal' or 'Lateral'), ap_pa.

    Raises:
        BenchmarkError: a missing or foreign file, a label outside 1 / 0 / -1 / null, no film on disk.
    """
    root = check_root(root, "df_chexpert_plus_240401.csv, chexbert_labels/ and PNG/")
    if section not in _SECTIONS:
        raise BenchmarkError(f"section={section!r}; choose from {', '.join(_SECTIONS)}")
    path = next(iter(sorted(root.glob("df_chexpert_plus_*.csv"), reverse=True)), root / "df_chexpert_plus_240401.csv")
    raw = read_csv(path, _COLUMNS, _HINT, categories=("split", "frontal_lateral", "ap_pa", "sex"))
    split = raw["split"].astype(object).map(_SPLITS)
    if split.isna().any():
        i = int(np.argmax(split.isna()))
        raise BenchmarkError(f"{path}: row {i + 2}: column 'split' holds {raw['split'].iloc[i]!r}; expected train or valid")
    labels = _labels(root, section, uncertain, blank)
    at = labels.index.get_indexer(raw["path_to_image"])
    folder, ending = _films(root)
    table = pd.DataFrame({
        "image": folder + (raw["path_to_image"].str.replace(r"\.\w+$", ending, regex=True) if ending else raw["path_to_image"]),
        "patient_id": raw["deid_patient_id"].astype(object),
        "split": split,
        **dict(zip(LABELS, labels.to_numpy()[at].T, strict=True)),
        "official_split": raw["split"].astype(object),
        "sex": raw["sex"].astype(object),
        "age": pd.to_numeric(raw["age"], errors="coerce"),
        "view": raw["frontal_lateral"].astype(object),
        "ap_pa": raw["ap_pa"].astype(object),
    }, index=raw.index).astype({"image": object})
    test = table["split"] == "test"
    table = pd.concat([draw_val(table[~test], val_share, seed), table[test]]).sort_index()
    unlabelled = at < 0
    lost = dropped_rows(table.loc[unlabelled, "image"], f"no line in {section}_fixed.json")
    table, others = keep_views(table[~unlabelled], views)
    table, absent = keep_present(table, root, str(path), files) if len(table) else (table, dropped_rows([], ""))
    return build("chexpert-plus", root, LABELS, table, str(path), {}, [lost, others, absent])


def _films(root: Path) -> tuple[str, str]:
    """The folder, with '/', that path_to_image is relative to, and the files' ending ('' = as written)."""
    for folder in ("PNG/PNG/", "PNG/", "PNGs/"):
        if (root / folder / "train").is_dir() or (root / folder / "valid").is_dir():
            return folder, ".png"
    if (root / "train").is_dir() or (root / "valid").is_dir():
        return "", ""
    return "PNG/", ".png"


def _labels(root: Path, section: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    """Rows by path_to_image, the 14 labels as float64."""
    name = f"{section}_fixed.json"
    path = next((p for p in (root / "chexbert_labels" / name, root / name) if p.is_file()), None)
    if path is None:
        packed = "; unpack chexbert_labels.zip there" if (root / "chexbert_labels.zip").is_file() else ""
        raise BenchmarkError(f"{root / 'chexbert_labels' / name}: no such file, part of CheXpert Plus{packed}")
    records = []
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    records.append([str(record["path_to_image"]), *(record[label] for label in LABELS), number])
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    raise BenchmarkError(f"{path}: line {number}: no JSON object with path_to_image and the 14 labels "
                                         f"({type(error).__name__}: {error})") from None
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); download it again") from None
    raw = pd.DataFrame(records, columns=["path_to_image", *LABELS, "line"]).set_index("line")
    labels = apply_policy(raw, LABELS, str(path), uncertain, blank, first_row=0).set_axis(raw["path_to_image"])
    if labels.index.has_duplicates:
        image = labels.index[labels.index.duplicated()][0]
        raise BenchmarkError(f"{path}: image {image!r} has two lines; keep one of them")
    return labels
