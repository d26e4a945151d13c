"""RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: AI 2019), read as Kaggle distributes stage 2.

The label Pneumonia is the column Target: opacities that suggest pneumonia, read from the film alone. The archive's test films
have no labels, so all three splits are drawn here. ``patientId`` names an examination; the RSNA's mapping says who is who.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.dicom import open_dicom
from medbridge.data.files import CARDS, Distribution
from medbridge.data.table import assign_splits, check_cells
from medbridge.errors import BenchmarkError, BenchmarkWarning

MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
_CORNER = ["x", "y", "width", "height"]


def load_rsna(root: str | Path, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0, headers: bool = False,
              files: str = "present") -> Benchmark:
    """The label Pneumonia, its boxes, and the columns official_split, class, and nih_image with the RSNA's mapping to NIH films.

    ``fractions`` are the shares of the patients for train, val and test, drawn over the whole list; ``headers`` adds sex, age
    (years) and view of every DICOM header, which takes minutes for all films. BenchmarkWarning where the mapping file is missing.
    """
    source = Distribution("rsna", root, **CARDS["rsna"])
    if any(source.root.glob("stage_1_*")) and not any(source.root.glob("stage_2_*")):
        raise BenchmarkError(f"{root}: holds stage 1 of the challenge; this loader reads stage 2, which has more films and other "
                             f"test films; download that: kaggle competitions download -c rsna-pneumonia-detection-challenge")
    raw = source.csv("stage_2_train_labels.csv", ["patientId", *_CORNER, "Target"])
    raw["image"] = "stage_2_train_images/" + raw["patientId"] + ".dcm"
    table = raw.drop_duplicates("patientId").drop(columns=_CORNER)
    table["Pneumonia"] = _values(source, "stage_2_train_labels.csv", raw, "Target", ("0", "1"), table).astype(np.float64)
    table["official_split"] = "stage_2_train"
    kinds = source.csv("stage_2_detailed_class_info.csv", ["patientId", "class"])
    table["class"] = _values(source, "stage_2_detailed_class_info.csv", kinds, "class", _CLASSES, table)
    table["patient_id"] = table["patientId"]
    if (source.root / MAPPING).is_file():
        table["nih_image"] = _values(source, MAPPING, _mapping(source), "img_id", None, table)
        table["patient_id"] = table["nih_image"].str.partition("_")[0]
    else:
        warnings.warn(f"{source.root / MAPPING}: no such file; patientId names an examination, so without it a person may be in "
                      f"two splits; the RSNA's page of the challenge offers it", BenchmarkWarning, stacklevel=2)
    table = assign_splits(table.drop(columns=["patientId", "Target"]), fractions, seed)
    if headers:
        bar = tqdm(table["image"], "reading DICOM headers", unit="film", disable=None)
        rows = [_header(source.root / image) for image in bar]
        table = table.join(pd.DataFrame(rows, table.index, ["sex", "age", "view"]))
    return source.benchmark(table, files, _boxes(source, raw))


def _values(source: Distribution, name: str, rows: pd.DataFrame, column: str, known: Sequence[str] | None,
            films: pd.DataFrame) -> pd.Series:
    """The one value in the file ``name`` that each film's patientId has there."""
    path, patient, values = source.root / name, rows["patientId"], rows[column]
    check_cells(path, patient, patient.str.strip() == "", "column {name!r} is blank; download the file again")
    if known:
        check_cells(path, values, ~values.isin(known), f"column {{name!r}} holds {{value!r}}; expected {', '.join(known)}")
    first = rows.drop_duplicates("patientId").set_index("patientId")[column]
    check_cells(path, patient, values != patient.map(first),
                f"patient {{value!r}} has another {column} than in an earlier row; download the file again")
    check_cells(source.where, films["patientId"], ~films["patientId"].isin(first.index),
                f"patient {{value!r}} is not in {name}; download it again")
    return films["patientId"].map(first)


def _mapping(source: Distribution) -> pd.DataFrame:
    text = source.text(MAPPING)
    try:
        people = pd.DataFrame([(record["subset_img_id"], record["img_id"]) for record in json.loads(text)],
                              columns=["patientId", "img_id"], dtype=object)
        odd = [item for item in people.to_numpy().ravel() if not isinstance(item, str) or not item]
        if odd or people.empty:
            raise ValueError(f"{odd[0]!r} is no name" if odd else "no entry")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BenchmarkError(f"{source.root / MAPPING}: no JSON list of objects with subset_img_id and img_id "
                             f"({type(error).__name__}: {error}); download it again, or remove it") from None
    return people


def _boxes(source: Distribution, raw: pd.DataFrame) -> pd.DataFrame:
    """Corners of the boxes; a row has x, y, width and height where Target is 1, and none of them where it is 0."""
    cells, positive = raw[_CORNER], raw["Target"] == "1"
    numbers = cells.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    whole = np.isfinite(numbers).all(axis=1) & (numbers[["width", "height"]] > 0).all(axis=1)
    box = cells["x"].str.cat([cells[column] for column in _CORNER[1:]], sep=", ")
    check_cells(source.where, "Target " + raw["Target"] + " with the box '" + box + "'",
                np.where(positive, ~whole, (cells != "").any(axis=1)),
                "{value}; a row has x, y, width and height where Target is 1, and no box where it is 0")
    x, y, width, height = numbers[positive].to_numpy().T
    return pd.DataFrame({"image": raw.loc[positive, "image"], "label": "Pneumonia", "x0": x, "y0": y, "x1": x + width,
                         "y1": y + height})


def _header(path: Path) -> tuple[str, float, str]:
    """Sex, age and view of a DICOM header; unknown where the film is not here, has none or cannot be read."""
    try:
        film = open_dicom(path, header_only=True)
    except Exception:  # pydicom raises anything at all on damaged bytes; `medbridge data check` names such files
        film = {}
    with pydicom.config.disable_value_validation():  # ages come without their unit
        age = pd.to_numeric(str(film.get("PatientAge", "")).rstrip("Yy"), errors="coerce")
    return str(film.get("PatientSex", "")), float(age), str(film.get("ViewPosition", ""))
