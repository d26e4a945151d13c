"""RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: AI 2019), read as Kaggle distributes stage 2.

The label Pneumonia is the column Target: opacities that suggest pneumonia, read from the film alone. The archive's test films
have no labels, so all three splits are drawn here [ours]. ``patientId`` names an examination; the RSNA's mapping says who is who.
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
_CLASSES = "stage_2_detailed_class_info.csv"
_FOLDER = "stage_2_train_images"
_CORNER = ["x", "y", "width", "height"]


def load_rsna(root: str | Path, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0, headers: bool = False,
              files: str = "present") -> Benchmark:
    """The label Pneumonia, its boxes, and the columns official_split, class, and nih_image with the RSNA's mapping to NIH films.

    ``fractions`` are the shares of the patients for train, val and test, drawn over the whole list; ``headers`` adds sex, age
    (years) and view of every DICOM header, which takes minutes for all films. BenchmarkWarning where the mapping file is missing.
    """
    source = Distribution("rsna", root, **CARDS["rsna"])
    path, class_path, map_path = (source.root / name for name in ("stage_2_train_labels.csv", _CLASSES, MAPPING))
    raw = source.csv(path, ["patientId", *_CORNER, "Target"])
    target = _one_value(raw, "Target", path, ("0", "1"))
    kinds = source.csv(class_path, ["patientId", "class"])
    kinds = _one_value(kinds, "class", class_path, ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity"))
    table = pd.DataFrame({
        "image": [f"{_FOLDER}/{patient}.dcm" for patient in target.index], "patient_id": target.index.to_numpy(dtype=object),
        "Pneumonia": target.to_numpy(dtype=np.float64), "official_split": "stage_2_train",
        "class": _of_patients(target.index, kinds, class_path, "row", "the files are of different releases, download them again"),
    }, index=raw.index[~raw["patientId"].duplicated()])
    if map_path.is_file():
        people = _mapping(source)
        table["nih_image"] = _of_patients(target.index, people, map_path, "entry", "download it again, or remove it")
        table["patient_id"] = table["nih_image"].str.partition("_")[0].to_numpy(dtype=object)
    else:
        warnings.warn(f"{map_path}: no such file; patientId names an examination, so without it a person may be in two splits; "
                      f"the RSNA's page of the challenge offers it", BenchmarkWarning, stacklevel=2)
    table = assign_splits(table, fractions, seed)
    if headers:
        table[["sex", "age", "view"]] = _headers(table["image"], source.root)
    return source.benchmark(table, files, _boxes(raw, path))


def _one_value(raw: pd.DataFrame, column: str, path: Path, known: Sequence[str]) -> pd.Series:
    """The one value of each patientId, indexed by it in the order of the file."""
    patient, values = raw["patientId"], raw[column]
    check_cells(path, patient, patient.str.strip() == "", "column {name!r} is blank; download the file again")
    check_cells(path, values, ~values.isin(known), f"column {{name!r}} holds {{value!r}}; expected {', '.join(known)}")
    first = raw.drop_duplicates("patientId").set_index("patientId")[column]
    earlier = patient.map(first)
    check_cells(path, "patient '" + patient + f"' has {column} '" + values + "' here and '" + earlier + "' in an earlier row",
                values != earlier, "{value}; download the file again")
    return first


def _of_patients(patients: pd.Index, values: pd.Series, path: Path, entry: str, fix: str) -> np.ndarray:
    """The value of each patient; every one of them needs one."""
    at = values.index.get_indexer(patients)
    if (at < 0).any():
        raise BenchmarkError(f"{path}: no {entry} for patient {patients[int(np.argmax(at < 0))]!r} of stage_2_train_labels.csv "
                             f"({int((at < 0).sum())} in all); {fix}")
    return values.to_numpy(dtype=object)[at]


def _mapping(source: Distribution) -> pd.Series:
    """patientId -> name of the NIH film."""
    text = source.text(MAPPING)
    try:
        people = {record["subset_img_id"]: record["img_id"] for record in json.loads(text)}
        odd = [item for pair in people.items() for item in pair if not isinstance(item, str) or not item]
        if odd or not people:
            raise ValueError(f"{odd[0]!r} is no name" if odd else "no entry")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BenchmarkError(f"{source.root / MAPPING}: no JSON list of objects with subset_img_id and img_id "
                             f"({type(error).__name__}: {error}); download it again, or remove it") from None
    return pd.Series(people, dtype=object)


def _boxes(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Corners of the boxes; a row has x, y, width and height where Target is 1, and none of them where it is 0."""
    cells, positive = raw[_CORNER], raw["Target"] == "1"
    numbers = cells.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    whole = np.isfinite(numbers).all(axis=1) & (numbers[["width", "height"]] > 0).all(axis=1)
    box = cells["x"].str.cat([cells[column] for column in _CORNER[1:]], sep=", ")
    wrong = np.where(positive, ~whole, (cells != "").any(axis=1))
    check_cells(path, "Target " + raw["Target"] + " with the box '" + box + "'", wrong,
                "{value}; a row has x, y, width and height where Target is 1, and no box where it is 0")
    x, y, width, height = numbers[positive].to_numpy().T
    images = [f"{_FOLDER}/{patient}.dcm" for patient in raw.loc[positive, "patientId"]]
    return pd.DataFrame({"image": images, "label": "Pneumonia", "x0": x, "y0": y, "x1": x + width, "y1": y + height})


def _headers(images: pd.Series, root: Path) -> pd.DataFrame:
    """Sex, age and view of each DICOM header; unknown where a film is not here, has none or cannot be read."""
    rows = []
    for image in tqdm(images, "reading DICOM headers", unit="film", disable=None):
        try:
            film = open_dicom(root / image, header_only=True)
        except Exception:  # pydicom raises anything at all on damaged bytes; `medbridge data check` names such files
            film = {}
        with pydicom.config.disable_value_validation():  # ages come without their unit
            age = pd.to_numeric(str(film.get("PatientAge", "")).rstrip("Yy"), errors="coerce")
        rows.append((str(film.get("PatientSex", "")), float(age), str(film.get("ViewPosition", ""))))
    return pd.DataFrame(rows, images.index, ["sex", "age", "view"])
