"""RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: AI 2019), read as Kaggle distributes stage 2.

```
root/
  stage_2_train_labels.csv          patientId, x, y, width, height, Target: 30,227 rows, one a box
  stage_2_detailed_class_info.csv   patientId, class: Normal | No Lung Opacity / Not Normal | Lung Opacity
  stage_2_train_images/<patientId>.dcm   26,684 frontal films, 1024 x 1024, 8-bit JPEG in DICOM
  pneumonia-challenge-dataset-mappings_2018.json   optional, from the RSNA's own page: which NIH film each one is
```

6,012 films have Target 1, with 9,555 boxes. The label Pneumonia is Target; it marks opacities that suggest pneumonia, read from
the film alone. The 3,000 films of ``stage_2_test_images`` have no labels in the archive, so all three splits are drawn
here from the training films [ours].

Where the files differ from their description: the column ``patientId`` names an examination, not a person. The films were
chosen from NIH ChestX-ray14, where a person has one film or many. Only the mapping file says who is who: where it is present
the splits are drawn by person and ``nih_image`` names the film, so that a run across NIH and RSNA can leave out what both
hold. Without it the loader warns.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from tqdm import tqdm

from medbridge.data.base import Benchmark, assign_splits
from medbridge.data.dicom import open_dicom
from medbridge.data.files import build, check_root, keep_present, read_csv
from medbridge.errors import BenchmarkError, BenchmarkWarning

__all__ = ["LABELS", "OFFICIAL", "load_rsna"]

LABELS = ("Pneumonia",)
OFFICIAL = {"stage_2_train": 26_684}
"""Images of the labelled part; the owner labels no other."""
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"

_HINT = "the RSNA Pneumonia Detection Challenge, stage 2 ({})"
_FOLDER = "stage_2_train_images"
_CORNER = ["x", "y", "width", "height"]


def load_rsna(
    root: str | Path,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    headers: bool = False,
    files: str = "present",
) -> Benchmark:
    """Load the RSNA pneumonia films.

    Args:
        root: the folder with the files above.
        fractions: shares of the patients for train, val and test [ours]; drawn over the whole list, so that a film keeps
            its split when more films are unpacked.
        seed: of that draw.
        headers: read sex, age (years) and view from every DICOM header too; takes minutes for all films.
        files: 'present' keeps the films on this disk, 'all' every row without a look at the disk.

    Returns:
        Benchmark with the label Pneumonia, boxes of it, and the columns official_split, class, and nih_image with the mapping.

    Raises:
        BenchmarkError: a missing or foreign file, rows that contradict each other, no film on disk.

    Warns:
        BenchmarkWarning: films that are not here; no mapping file, so that a person may be in two splits.
    """
    root = check_root(root, f"stage_2_train_labels.csv and {_FOLDER}/")
    path = root / "stage_2_train_labels.csv"
    raw = read_csv(path, ["patientId", *_CORNER, "Target"], _HINT.format(path.name))
    target = _one_value(raw, "Target", path, ("0", "1"))
    table = pd.DataFrame({
        "image": _FOLDER + "/" + target.index + ".dcm",
        "patient_id": target.index.to_numpy(dtype=object),
        "Pneumonia": target.to_numpy(dtype=np.float64),
        "official_split": "stage_2_train",
        "class": _classes(root / "stage_2_detailed_class_info.csv", target.index),
    }, index=raw.index[~raw["patientId"].duplicated()])
    people = _mapping(root / MAPPING)
    if people is not None:
        table["nih_image"] = _film_of(people, target.index, root / MAPPING)
        table["patient_id"] = table["nih_image"].str.partition("_")[0].to_numpy(dtype=object)
    table = assign_splits(table, fractions, seed)
    boxes = _boxes(raw, path)
    table, absent = keep_present(table, root, str(path), files)
    if people is None:
        warnings.warn(f"{root / MAPPING}: no such file; patientId names an examination, so without it a person may be in two "
                      f"splits; the RSNA's page of the challenge offers it", BenchmarkWarning, stacklevel=2)
    if headers:
        table = _with_headers(table, root)
    return build("rsna", root, LABELS, table, str(path), OFFICIAL, [absent], boxes)


def _one_value(raw: pd.DataFrame, column: str, path: Path, known: Sequence[str]) -> pd.Series:
    """The one value of each patientId, indexed by it in the order of the file."""
    wrong = (raw["patientId"].str.strip() == "").to_numpy()
    if wrong.any():
        raise BenchmarkError(f"{path}: row {int(np.argmax(wrong)) + 2}: column 'patientId' is blank; download the file again")
    wrong = ~raw[column].isin(known).to_numpy()
    if wrong.any():
        i = int(np.argmax(wrong))
        raise BenchmarkError(f"{path}: row {i + 2}: column {column!r} holds {raw[column].iloc[i]!r}; expected {', '.join(known)}")
    first = raw.drop_duplicates("patientId").set_index("patientId")[column]
    wrong = (raw[column] != raw["patientId"].map(first)).to_numpy()
    if wrong.any():
        i = int(np.argmax(wrong))
        who = raw["patientId"].iloc[i]
        raise BenchmarkError(f"{path}: row {i + 2}: patient {who!r} has {column} {raw[column].iloc[i]!r} here and {first[who]!r} "
                             f"in an earlier row; download the file again")
    return first


def _classes(path: Path, patients: pd.Index) -> np.ndarray:
    raw = read_csv(path, ["patientId", "class"], _HINT.format(path.name))
    held = _one_value(raw, "class", path, CLASSES)
    at = held.index.get_indexer(patients)
    if (at < 0).any():
        raise BenchmarkError(f"{path}: no row for patient {patients[int(np.argmax(at < 0))]!r} of stage_2_train_labels.csv; "
                             f"the two files are of different releases, download both again")
    return held.to_numpy(dtype=object)[at]


def _mapping(path: Path) -> pd.Series | None:
    """patientId -> name of the NIH film; None where the file is not here."""
    if not path.is_file():
        return None
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
        people = {record["subset_img_id"]: record["img_id"] for record in records}
        odd = [item for pair in people.items() for item in pair if not isinstance(item, str) or not item]
        if odd or not people:
            raise ValueError(f"{odd[0]!r} is no name" if odd else "no entry")
        return pd.Series(people, dtype=object)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BenchmarkError(f"{path}: no JSON list of objects with subset_img_id and img_id ({type(error).__name__}: {error}); "
                             f"download it again, or remove it") from None


def _film_of(people: pd.Series, patients: pd.Index, path: Path) -> np.ndarray:
    at = people.index.get_indexer(patients)
    if (at < 0).any():
        raise BenchmarkError(f"{path}: no entry for patient {patients[int(np.argmax(at < 0))]!r} ({int((at < 0).sum())} in all); "
                             f"download it again, or remove it")
    return people.to_numpy(dtype=object)[at]


def _boxes(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    cells = raw[_CORNER]
    held = (cells != "").to_numpy()
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    positive = (raw["Target"] == "1").to_numpy()
    with np.errstate(invalid="ignore"):
        whole = held.all(axis=1) & np.isfinite(numbers).all(axis=1) & (numbers[:, 2:] > 0).all(axis=1)
    wrong = np.where(positive, ~whole, held.any(axis=1))
    if wrong.any():
        i = int(np.argmax(wrong))
        box = ", ".join(cells.iloc[i])
        raise BenchmarkError(f"{path}: row {i + 2}: Target {raw['Target'].iloc[i]} with the box {box!r}; a row has x, y, width "
                             f"and height where Target is 1, and no box where it is 0")
    x, y, width, height = numbers[positive].T
    images = _FOLDER + "/" + raw.loc[positive, "patientId"] + ".dcm"
    return pd.DataFrame({"image": images.to_numpy(dtype=object), "label": "Pneumonia", "x0": x, "y0": y, "x1": x + width,
                         "y1": y + height})


def _with_headers(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The table with sex, age and view of each DICOM header; unknown where a film has none or cannot be read."""
    rows = []
    for image in tqdm(table["image"], "reading DICOM headers", unit="film", disable=None):
        try:
            film = open_dicom(root / image, header_only=True)
        except Exception:  # pydicom raises anything at all on damaged bytes; `medbridge data check` names such files
            film = {}
        with pydicom.config.disable_value_validation():  # ages come without their unit
            age = pd.to_numeric(str(film.get("PatientAge", "")).rstrip("Yy"), errors="coerce")
        rows.append((str(film.get("PatientSex", "")), float(age), str(film.get("ViewPosition", ""))))
    sex, age, view = zip(*rows, strict=True) if rows else ((), (), ())
    return table.assign(sex=list(sex), age=list(age), view=list(view))
