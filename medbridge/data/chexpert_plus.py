"""CheXpert Plus (Chambon et al., arXiv 2405.19538), read as Stanford AIMI distributes it; labels by CheXbert, as JSON lines.

The official valid set is the test split here and 'val' is drawn from train by patient.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.chexpert import keep_views
from medbridge.data.files import CARDS, Distribution, draw_val
from medbridge.data.table import check_cells, check_choice
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

_COLUMNS = ("path_to_image", "deid_patient_id", "frontal_lateral", "ap_pa", "age", "sex", "split")


def load_chexpert_plus(root: str | Path, section: str = "report", views: str = "frontal",
                       uncertain: str | Mapping[str, str] = "ignore", blank: str = "negative", val_share: float = 0.1,
                       seed: int = 0, files: str = "present") -> Benchmark:
    """14 labels and the columns official_split, sex, age, view ('Frontal' or 'Lateral'), ap_pa.

    ``section``: whose labels, those of the whole 'report', of its 'impression' or of its 'findings'. The other options are those
    of :func:`medbridge.data.chexpert.load_chexpert`; null is a blank.
    """
    source = Distribution("chexpert-plus", root, **CARDS["chexpert-plus"])
    check_choice("section", section, ("report", "impression", "findings"))
    raw = source.csv(max(source.root.glob("df_chexpert_plus_*.csv"), default="df_chexpert_plus_240401.csv"), _COLUMNS)
    check_cells(source.where, raw["split"], ~raw["split"].isin(["train", "valid"]),
                "column {name!r} holds {value!r}; expected train or valid")
    labels = _labels(source, section, uncertain, blank)
    at = labels.index.get_indexer(raw["path_to_image"])  # -1: no labels
    # as the archive unpacks, or CheXpert's own JPEG beside the table, as path_to_image has it
    folder = next((folder for folder in ("PNG/PNG/", "PNG/", "PNGs/", "") for split in ("train", "valid")
                   if (source.root / folder / split).is_dir()), "PNG/")
    image = raw["path_to_image"]
    table = pd.DataFrame({
        "image": folder + image.str.replace(r"\.\w+$", ".png", regex=True) if folder else image,
        "patient_id": raw["deid_patient_id"], "split": raw["split"].replace("valid", "test"),
        **dict(zip(source.labels, labels.to_numpy()[at].T, strict=True)),
        "official_split": raw["split"], "sex": raw["sex"], "age": pd.to_numeric(raw["age"], errors="coerce"),
        "view": raw["frontal_lateral"], "ap_pa": raw["ap_pa"],
    })
    table = source.set_aside(draw_val(table, val_share, seed), at >= 0, f"no line in {section}_fixed.json")
    return source.benchmark(keep_views(source, table, views), files)


def _labels(source: Distribution, section: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    """Rows by path_to_image, the 14 labels as float64."""
    places = [source.root / "chexbert_labels" / f"{section}_fixed.json", source.root / f"{section}_fixed.json"]
    path = next((place for place in places if place.is_file()), places[0])
    packed = {"instead": "unpack chexbert_labels.zip there"} if (source.root / "chexbert_labels.zip").is_file() else {}
    rows = {}  # messages count rows from index + 2
    for number, line in enumerate(source.text(path, **packed).split("\n"), -1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            rows[number] = [str(record["path_to_image"]), *(record[label] for label in source.labels)]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BenchmarkError(f"{path}: line {number + 2}: no JSON object with path_to_image and the 14 labels "
                                 f"({type(error).__name__}: {error})") from None
    table = pd.DataFrame(rows.values(), list(rows), ["path_to_image", *source.labels])
    labels, images = apply_policy(table, source.labels, path, uncertain, blank), table["path_to_image"]
    check_cells(path, images, images.duplicated(), "image {value!r} has two lines; keep one of them")
    return labels.set_axis(images)
