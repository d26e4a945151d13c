"""CheXpert Plus (Chambon et al., arXiv 2405.19538), read as Stanford AIMI distributes it.

The official valid set is the test split here and 'val' is drawn from train by patient [ours]. The owner's total is 223,228 images
in the paper and 223,462 on the project's page, so ``official`` is empty. The label files (by CheXbert) are JSON lines.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.chexpert import LABELS, keep_views
from medbridge.data.files import build, check_root, draw_val, keep_present, read_csv, read_text, set_aside
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
    root = check_root(root, "df_chexpert_plus_240401.csv, chexbert_labels/ and PNG/")
    check_choice("section", section, ("report", "impression", "findings"))
    path = max(root.glob("df_chexpert_plus_*.csv"), default=root / "df_chexpert_plus_240401.csv")
    raw = read_csv(path, _COLUMNS, "CheXpert Plus (df_chexpert_plus_240401.csv)")
    check_cells(path, raw["split"], ~raw["split"].isin(["train", "valid"]),
                "column {name!r} holds {value!r}; expected train or valid")
    labels = _labels(root, section, uncertain, blank)
    at = labels.index.get_indexer(raw["path_to_image"])  # -1: no labels
    # as the archive unpacks, or CheXpert's own JPEG beside the table, as path_to_image has it
    folder = next((folder for folder in ("PNG/PNG/", "PNG/", "PNGs/", "") for split in ("train", "valid")
                   if (root / folder / split).is_dir()), "PNG/")
    image = raw["path_to_image"]
    table = pd.DataFrame({
        "image": folder + image.str.replace(r"\.\w+$", ".png", regex=True) if folder else image,
        "patient_id": raw["deid_patient_id"], "split": raw["split"].replace("valid", "test"),
        **dict(zip(LABELS, labels.to_numpy()[at].T, strict=True)),
        "official_split": raw["split"], "sex": raw["sex"], "age": pd.to_numeric(raw["age"], errors="coerce"),
        "view": raw["frontal_lateral"], "ap_pa": raw["ap_pa"],
    })
    table, unlabelled = set_aside(draw_val(table, val_share, seed), at >= 0, f"no line in {section}_fixed.json")
    table, others = keep_views(table, views)
    table, absent = keep_present(table, root, path, files)
    return build("chexpert-plus", root, LABELS, table, path, {}, [unlabelled, others, absent])


def _labels(root: Path, section: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    """Rows by path_to_image, the 14 labels as float64."""
    places = [root / "chexbert_labels" / f"{section}_fixed.json", root / f"{section}_fixed.json"]
    path = next((place for place in places if place.is_file()), places[0])
    packed = {"instead": "unpack chexbert_labels.zip there"} if (root / "chexbert_labels.zip").is_file() else {}
    rows = {}  # messages count rows from index + 2
    for number, line in enumerate(read_text(path, "CheXpert Plus", **packed).split("\n"), -1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            rows[number] = [str(record["path_to_image"]), *(record[label] for label in LABELS)]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BenchmarkError(f"{path}: line {number + 2}: no JSON object with path_to_image and the 14 labels "
                                 f"({type(error).__name__}: {error})") from None
    table = pd.DataFrame(rows.values(), list(rows), ["path_to_image", *LABELS])
    labels, images = apply_policy(table, LABELS, path, uncertain, blank), table["path_to_image"]
    check_cells(path, images, images.duplicated(), "image {value!r} has two lines; keep one of them")
    return labels.set_axis(images)
