"""NIH ChestX-ray14 (Wang et al., CVPR 2017), read as the NIH Clinical Center distributes it.

```
root/
  Data_Entry_2017_v2020.csv   (or the older Data_Entry_2017.csv)
  train_val_list.txt          86,524 images
  test_list.txt               25,596 images
  BBox_List_2017.csv          984 boxes on 880 images, 8 labels
  images_001/images/*.png ... images_012/images/*.png   (or all in images/)
```

112,120 frontal films of 30,805 patients, 1024 x 1024. The split into train_val and test is the owner's; it keeps patients apart.
Validation films are drawn from train_val by patient [ours], as the owner gives none.

Where the files differ from their description: the sex column is 'Patient Gender' in most copies and 'Patient Sex' in newer
ones; the first release wrote ages as '058Y' (also months and days), later ones as numbers, some of them impossible (411), which
become unknown here; the table's width and height are those of the film before it was resized; the boxes' header
breaks at its own commas; boxes say 'Infiltrate' for the label 'Infiltration'. Every archive unpacks to images/, so both
layouts of the images are common.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark, assign_splits
from medbridge.data.files import build, check_root, draw_val, dropped_rows, keep_present, read_csv
from medbridge.data.images import probe_film
from medbridge.errors import BenchmarkError, ImageError

__all__ = ["LABELS", "OFFICIAL", "load_nih"]

LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
OFFICIAL = {"train_val": 86_524, "test": 25_596}
"""Images of each official split."""

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = "BBox_List_2017.csv"
_HINT = "NIH ChestX-ray14 (Data_Entry_2017_v2020.csv or Data_Entry_2017.csv)"
_OLDEST = 120  # years
_SIDE = 1024  # pixels; of the films as distributed, on which the boxes were drawn


def load_nih(
    root: str | Path,
    splits: str = "official",
    val_share: float = 0.1,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    files: str = "present",
) -> Benchmark:
    """Load NIH ChestX-ray14.

    Args:
        root: the folder with the files above.
        splits: 'official' (the two lists), or 'drawn' by patient for a copy without the lists; results on drawn splits
            cannot be compared with published ones.
        val_share: share of the train_val patients that become the validation split [ours]; with 'official'.
        fractions: shares of train, val and test; with 'drawn'.
        seed: of what is drawn.
        files: 'present' keeps the films on this disk, 'all' every row without a look at the disk.

    Returns:
        Benchmark with the 14 labels (a film of 'No Finding' has 0 in all), boxes in pixels of the films as they are here, resized
        or not (with files='all' in those of the owner's 1024 x 1024), and the columns official_split, age (years), sex, view,
        follow_up.

    Raises:
        BenchmarkError: a missing or foreign file, an unknown finding, no film on disk.
    """
    root = check_root(root, "Data_Entry_2017_v2020.csv and images_001/ ... images_012/")
    if splits not in ("official", "drawn"):
        raise BenchmarkError(f"splits={splits!r}; choose 'official' (train_val_list.txt, test_list.txt) or 'drawn'")
    path = next((root / name for name in _TABLES if (root / name).is_file()), root / _TABLES[0])
    raw = read_csv(path, ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position"], _HINT,
                   optional=["Patient Gender", "Patient Sex"], categories=["Finding Labels", "Patient Age"])
    sex = next((raw[c] for c in ("Patient Gender", "Patient Sex") if c in raw.columns), None)
    if sex is None:
        raise BenchmarkError(f"{path}: missing column(s) Patient Gender (or Patient Sex); this loader reads {_HINT}")
    names = raw["Image Index"]
    folders = _folders(root) if files == "present" else {}
    table = pd.DataFrame({
        "image": [f"{folders.get(name, 'images')}/{name}" for name in names],
        "patient_id": raw["Patient ID"].astype(object),
        **_labels(raw["Finding Labels"], path),
        "age": _years(raw["Patient Age"]),
        "sex": sex.astype(object),
        "view": raw["View Position"].astype(object),
        "follow_up": pd.to_numeric(raw["Follow-up #"], errors="coerce"),
    }, index=raw.index)
    # Splits are drawn over the whole list, so that a film keeps its split when more of the archives are unpacked.
    unlisted = dropped_rows([], "")
    if splits == "official":
        table, unlisted = _official(table, names, root)
        test = table["official_split"] == "test"
        table = pd.concat([draw_val(table[~test], val_share, seed), table[test].assign(split="test")]).sort_index()
    else:
        table = assign_splits(table, fractions, seed)
    table, absent = keep_present(table, root, str(path), files)
    return build("nih", root, LABELS, table, str(path), OFFICIAL if splits == "official" else {}, [unlisted, absent],
                 _boxes(root, table["image"], files))


def _folders(root: Path) -> dict[str, str]:
    """File name -> the folder, relative to root, that holds it."""
    held: dict[str, str] = {}
    tops = [name for name in sorted(os.listdir(root)) if name == "images" or name.startswith("images_")]
    for folder in (folder for top in tops for folder in (top, f"{top}/images")):
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    held.setdefault(entry.name, folder)
    return held


def _labels(findings: pd.Series, path: Path) -> dict[str, np.ndarray]:
    cells = pd.Categorical(findings)
    held = np.zeros((len(cells.categories), len(LABELS)))
    for code, cell in enumerate(cells.categories):
        names = [name.strip() for name in cell.split("|")]
        unknown = [name for name in names if name not in LABELS]
        if unknown and names != ["No Finding"]:
            row = findings.index[int(np.argmax(cells.codes == code))] + 2
            raise BenchmarkError(f"{path}: row {row}: column 'Finding Labels' holds {cell!r}: {unknown[0]!r} is none of "
                                 f"{', '.join(LABELS)}, nor 'No Finding' alone")
        held[code, [LABELS.index(name) for name in names if name in LABELS]] = 1
    return dict(zip(LABELS, held[cells.codes].T, strict=True))


def _years(ages: pd.Series) -> np.ndarray:
    """'58', '058Y', '006M', '010D' in years; what is no age, or beyond any person's, is NaN."""
    cells = pd.Categorical(ages)
    parts = pd.Series(cells.categories, dtype=object).str.extract(r"^\s*(\d+)\s*([YMD]?)\s*$")
    years = pd.to_numeric(parts[0], errors="coerce") / parts[1].map({"M": 12, "D": 365.25}).fillna(1).astype(float)
    return years.where(years <= _OLDEST).to_numpy()[cells.codes]


def _official(table: pd.DataFrame, names: pd.Series, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    split_of: dict[str, str] = {}
    for split, name in _LISTS.items():
        try:
            listed = (root / name).read_text(encoding="utf-8-sig").split()
        except FileNotFoundError:
            raise BenchmarkError(
                f"{root / name}: no such file, part of {_HINT}; put it there, or pass splits='drawn' to draw train, val "
                f"and test by patient (not comparable with published results)") from None
        except UnicodeDecodeError as error:
            raise BenchmarkError(
                f"{root / name}: not UTF-8 ({error.reason} at byte {error.start}); download it again") from None
        twice = next((image for image in listed if image in split_of), None)
        if twice:
            raise BenchmarkError(f"{root / name}: image {twice!r} is listed twice, or in both lists; download the lists again")
        split_of.update(dict.fromkeys(listed, split))
    table = table.assign(official_split=names.map(split_of).astype(object))
    known = table["official_split"].notna()
    return table[known], dropped_rows(table.loc[~known, "image"], f"in neither {' nor '.join(_LISTS.values())}")


def _boxes(root: Path, images: pd.Series, files: str) -> pd.DataFrame | None:
    """The owner's boxes in pixels of the films that are here; None where the file is not here."""
    path = root / _BOXES
    if not path.is_file():
        return None
    raw = read_csv(path, ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"], "NIH ChestX-ray14 (BBox_List_2017.csv)")
    corner = {}
    for column in ("Bbox [x", "y", "w", "h]"):
        corner[column] = pd.to_numeric(raw[column], errors="coerce")
        bad = corner[column].isna().to_numpy()
        if bad.any():
            i = int(np.argmax(bad))
            raise BenchmarkError(f"{path}: row {i + 2}: column {column!r} holds {raw[column].iloc[i]!r}, no number")
    x, y, w, h = corner.values()
    place = dict(zip((image.rpartition("/")[2] for image in images), images, strict=True))
    label = raw["Finding Label"].replace({"Infiltrate": "Infiltration"}).astype(object)
    wrong = ~label.isin(LABELS).to_numpy()
    if wrong.any():
        i = int(np.argmax(wrong))
        raise BenchmarkError(f"{path}: row {i + 2}: unknown label {label.iloc[i]!r}; known are {', '.join(LABELS)}")
    boxes = pd.DataFrame({"image": raw["Image Index"].map(place), "label": label, "x0": x, "y0": y, "x1": x + w, "y1": y + h})
    boxes = boxes[boxes["image"].notna()]
    if files == "present":  # the boxes were drawn on films of 1024 x 1024, and smaller copies of the films are common
        shapes = {image: _shape(root / image) for image in boxes["image"].unique()}
        for axis, corners in enumerate((["y0", "y1"], ["x0", "x1"])):
            scale = boxes["image"].map({image: shape[axis] / _SIDE for image, shape in shapes.items()}).astype(float)
            boxes = boxes.assign(**{c: boxes[c] * scale for c in corners})
    return boxes


def _shape(path: Path) -> tuple[int, int]:
    try:
        return probe_film(path)
    except ImageError:  # a damaged film is told of where it is read; its box stays as it was
        return _SIDE, _SIDE
